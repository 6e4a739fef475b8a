"""The certificates of an installation: anchor and issuer of the mesh, and those of the webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from linkerd.kit import x509

ANCHOR_LIFETIME = timedelta(days=3650)
ISSUER_LIFETIME = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM texts. `anchors` may hold several certificates; `issuer` its own first, then those above it."""

    anchors: str
    issuer: str
    issuer_key: str
    anchor: Mapping[str, str] = field(default_factory=dict)
    """What Secret `linkerd-identity-anchor` holds: the anchor with its key, by which the identity service renews it and
    the issuer. Empty: somebody else does that."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A webhook's certificate and key, and what the API server must trust to talk to it. PEM texts."""

    certificate: str
    key: str
    authority: str


def new_credentials(control_plane_namespace: str, trust_domain: str) -> Credentials:
    """An anchor for ten years and an issuer for one, which the identity service renews."""
    root = x509.new_root(f"root.{control_plane_namespace}.{trust_domain}", ANCHOR_LIFETIME)
    issuer = x509.new_issuer(f"identity.{control_plane_namespace}.{trust_domain}", root, ISSUER_LIFETIME)
    anchors = x509.certificate_pem(root.certificate)
    held = {"ca.crt": anchors, "ca.key": x509.key_pem(root.key)}
    return Credentials(anchors, x509.certificate_pem(*issuer.chain), x509.key_pem(issuer.key), held)


def replacing(old: Credentials, new: Credentials) -> Credentials:
    """The new ones, with the old anchors still trusted: leaves of theirs are about for a day.

    The identity service takes out again the one whose key we held. Of the others those that have ended go at once.
    """
    retired = old.anchor.get("ca.crt", "")
    now = datetime.now(UTC)
    kept = [
        anchor
        for anchor in x509.parse_certificates(old.anchors)
        if anchor.not_valid_after_utc > now or x509.certificate_pem(anchor) == retired
    ]
    marks = {"old.crt": retired, "since": now.isoformat()} if retired else {}
    return replace(new, anchors=new.anchors + x509.certificate_pem(*kept), anchor={**new.anchor, **marks})


def checked_credentials(credentials: Credentials) -> Credentials:
    """The same, if an issuer with this key is valid now under these anchors. Raises x509.CertificateError."""
    anchors = x509.parse_certificates(credentials.anchors)
    authority = x509.parse_authority(credentials.issuer, credentials.issuer_key)
    x509.verify_chain(authority.chain, anchors, datetime.now(UTC))
    return credentials


def new_server_certificate(name: str, lifetime: timedelta) -> ServerCertificate:
    """For a Service `name` (`linkerd-proxy-injector.linkerd.svc`)."""
    leaf, key, authority = x509.new_server_certificate(name, lifetime)
    return ServerCertificate(x509.certificate_pem(leaf), x509.key_pem(key), x509.certificate_pem(authority.certificate))
