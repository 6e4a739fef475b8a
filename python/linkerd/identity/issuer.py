"""The authority that signs leaves, as it lies in files: read, checked against the trust anchors, read again.

The files are a mounted Secret and a mounted ConfigMap. What is there may be replaced at any time, in any order, and
may be wrong for a while; the last good one goes on signing until it is no longer valid itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from linkerd.kit.x509 import (
    Authority,
    Certificate,
    CertificateError,
    certificate_pem,
    parse_authority,
    parse_certificates,
    verify_chain,
)

_PAIRS = {"linkerd.io/tls": ("crt.pem", "key.pem"), "kubernetes.io/tls": ("tls.crt", "tls.key")}
"""File names by scheme of the Secret."""


class IssuerUnavailable(Exception):
    """There is no issuer that could be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An authority with the anchors it was found to lead to."""

    authority: Authority
    anchors: tuple[Certificate, ...]

    @property
    def anchors_pem(self) -> str:
        return certificate_pem(*self.anchors)

    def check(self, now: datetime) -> None:
        """That what it signs now will be believed. Raises CertificateError."""
        verify_chain(self.authority.chain, self.anchors, now)

    def seconds_left(self, now: datetime) -> float:
        return (self.authority.certificate.not_valid_after_utc - now).total_seconds()


@dataclass(frozen=True, slots=True)
class IssuerFiles:
    directory: Path
    anchors: Path
    scheme: str = "linkerd.io/tls"

    def paths(self) -> list[Path]:
        """All that could hold a part of it."""
        return [self.directory / name for pair in _PAIRS.values() for name in pair] + [self.anchors]

    def load(self, now: datetime | None = None) -> Issuer:
        """Raises IssuerUnavailable."""
        certificate, key = self._pair()
        try:
            authority = parse_authority(certificate.read_bytes(), key.read_bytes())
            anchors = parse_certificates(self.anchors.read_bytes())
        except OSError as error:
            raise IssuerUnavailable(f"{error.filename}: {error.strerror}") from error
        except CertificateError as error:
            raise IssuerUnavailable(f"issuer in {self.directory}, anchors in {self.anchors}: {error}") from error
        issuer = Issuer(without_anchors(authority, anchors), tuple(anchors))
        try:
            issuer.check(now or datetime.now(UTC))
        except CertificateError as error:
            raise IssuerUnavailable(f"issuer in {self.directory}: {error}") from error
        return issuer

    def certificate(self) -> Certificate:
        """The issuer's, whether or not it can be used. Raises IssuerUnavailable."""
        file, _ = self._pair()
        try:
            return parse_certificates(file.read_bytes())[0]
        except (OSError, CertificateError) as error:
            raise IssuerUnavailable(f"{file}: {error}") from error

    def _pair(self) -> tuple[Path, Path]:
        """The files of the scheme; those of the other one when only they are there."""
        preferred = _PAIRS.get(self.scheme, _PAIRS["linkerd.io/tls"])
        for names in (preferred, *_PAIRS.values()):
            if all((self.directory / name).exists() for name in names):
                return self.directory / names[0], self.directory / names[1]
        raise IssuerUnavailable(f"{self.directory} has no {' and '.join(preferred)}")


def without_anchors(authority: Authority, anchors: list[Certificate]) -> Authority:
    """Proxies have the anchors; sending them in each handshake would cost bytes and prove nothing."""
    kept = tuple(c for c in authority.intermediates if c not in anchors)
    return Authority(authority.certificate, authority.key, kept)
