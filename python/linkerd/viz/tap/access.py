"""Who asks, and whether they may: the front proxy's word for the first, a SubjectAccessReview for the second.

The API server authenticates the person and passes the request on with a client certificate of its own and the person's
name in headers (kubernetes.io: "Configure the Aggregation Layer"). Which certificate and which headers those are is in
the ConfigMap that every extension server reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import orjson
from multidict import CIMultiDictProxy

from linkerd.core import kinds
from linkerd.core.kinds import Target
from linkerd.k8s.client import Client
from linkerd.k8s.resources import SUBJECT_ACCESS_REVIEWS
from linkerd.kit.x509 import CertificateError, parse_certificates, parse_der, verify_chain
from linkerd.viz.tap.paths import GROUP, VERSION

AUTHENTICATION_CONFIG = "extension-apiserver-authentication"
AUTHENTICATION_NAMESPACE = "kube-system"


class NotTheFrontProxy(Exception):
    """The connection is not the API server's; the text says what was missing."""


class Denied(Exception):
    """The person has no right to tap this."""


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """How the API server proves itself and names the person."""

    ca: str = ""
    allowed_names: tuple[str, ...] = ()
    username_headers: tuple[str, ...] = ("X-Remote-User",)
    group_headers: tuple[str, ...] = ("X-Remote-Group",)
    extra_prefixes: tuple[str, ...] = ("X-Remote-Extra-",)

    def check_certificate(self, names: Iterable[str]) -> None:
        """`names` are the subject and alternative names of a certificate that `ca` signed. Raises NotTheFrontProxy."""
        found = tuple(names)
        if not found:
            raise NotTheFrontProxy("no client certificate of the API server's front proxy")
        if self.allowed_names and not set(found) & set(self.allowed_names):
            raise NotTheFrontProxy(
                f"no valid CN found. allowed names: [{' '.join(self.allowed_names)}], client names: [{' '.join(found)}]"
            )

    def check_signature(self, der: bytes | None) -> None:
        """That an authority which is trusted now signed it. Raises NotTheFrontProxy."""
        try:
            authorities = parse_certificates(self.ca)
            verify_chain([parse_der(der or b"")], authorities, datetime.now(UTC))
        except CertificateError as error:
            raise NotTheFrontProxy(f"the front proxy's authorities were replaced, connect again: {error}") from error

    def user(self, headers: CIMultiDictProxy[str]) -> User:
        """Raises NotTheFrontProxy when nobody is named."""
        name = next((headers[header] for header in self.username_headers if headers.get(header)), "")
        if not name:
            raise NotTheFrontProxy("the request names no user")
        group_header = next((header for header in self.group_headers if header in headers), "")
        groups = tuple(headers.getall(group_header)) if group_header else ()
        return User(name, groups, self._extra(headers))

    def _extra(self, headers: CIMultiDictProxy[str]) -> dict[str, tuple[str, ...]]:
        extra: dict[str, tuple[str, ...]] = {}
        for header in headers:
            for prefix in self.extra_prefixes:
                if header.lower().startswith(prefix.lower()):
                    key = unquote(header[len(prefix) :].lower())
                    extra[key] = tuple(headers.getall(header))
        return extra


def front_proxy_from(config_map: Mapping[str, Any]) -> FrontProxy:
    """Raises ValueError when the cluster has no front proxy to trust."""
    data: Mapping[str, str] = config_map.get("data") or {}
    if not data.get("requestheader-client-ca-file"):
        raise ValueError(
            f"ConfigMap {AUTHENTICATION_NAMESPACE}/{AUTHENTICATION_CONFIG} has no `requestheader-client-ca-file`: "
            "the API server runs without an aggregation layer"
        )

    def names(key: str) -> tuple[str, ...]:
        return tuple(orjson.loads(data.get(f"requestheader-{key}") or "[]"))

    default = FrontProxy()
    return FrontProxy(
        ca=data["requestheader-client-ca-file"],
        allowed_names=names("allowed-names"),
        username_headers=names("username-headers") or default.username_headers,
        group_headers=names("group-headers") or default.group_headers,
        extra_prefixes=names("extra-headers-prefix") or default.extra_prefixes,
    )


def certificate_names(certificate: Mapping[str, Any] | None) -> list[str]:
    """Common name and alternative names of what `ssl.SSLSocket.getpeercert` tells."""
    if not certificate:
        return []
    subject = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return subject + [value for _, value in certificate.get("subjectAltName", ())]


def access_review(user: User, target: Target) -> dict[str, Any]:
    """May the user watch `<kind>/tap` of the target?"""
    return {
        "spec": {
            "user": user.name,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
            "resourceAttributes": {
                "namespace": target.name if target.kind is kinds.NAMESPACE else target.namespace,
                "verb": "watch",
                "group": GROUP,
                "version": VERSION,
                "resource": target.kind.plural,
                "subresource": "tap",
                "name": target.name,
            },
        }
    }


async def authorize(client: Client, user: User, target: Target) -> None:
    """Raises Denied, ApiError."""
    review = await client.create(SUBJECT_ACCESS_REVIEWS, access_review(user, target))
    status = review.get("status") or {}
    if status.get("allowed"):
        return
    reason = f": {status['reason']}" if status.get("reason") else ""
    raise Denied(
        f"tap authorization failed (not authorized to access {target.kind.plural}.{GROUP}{reason}), "
        "visit https://linkerd.io/tap-rbac for more information"
    )
