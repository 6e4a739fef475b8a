"""The certificates of an installation: anchor and issuer of the mesh, and those of the webhooks."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A webhook's certificate and key, and what the API server must trust to talk to it. PEM texts."""

    certificate: str
    key: str
    authority: str


def new_credentials(control_plane_namespace: str, trust_domain: str) -> Credentials:
    """An anchor for ten years and an issuer for one.

    The anchor's key is thrown away: nobody can steal it, and an issuer that ends is replaced together with the anchor
    (with overlap). Whoever wants to keep an anchor's key brings their own certificates.
    """
    root = x509.new_root(f"root.{control_plane_namespace}.{trust_domain}", ANCHOR_LIFETIME)
    issuer = x509.new_issuer(f"identity.{control_plane_namespace}.{trust_domain}", root, ISSUER_LIFETIME)
    return Credentials(
        x509.certificate_pem(root.certificate), x509.certificate_pem(*issuer.chain), x509.key_pem(issuer.key)
    )


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
