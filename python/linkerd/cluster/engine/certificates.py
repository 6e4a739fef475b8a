"""The cluster's keys and certificates: two authorities, the components' leaves, the key of service account tokens.

They live in `pki/` as PEM and stay the same over restarts. What comes close to its end is renewed when the cluster
starts, by the same authority, so that kubeconfigs that were handed out keep working.
"""

from __future__ import annotations

import base64
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from linkerd.cluster.engine import settings
from linkerd.kit.x509 import (
    Authority,
    CertificateError,
    PublicKey,
    SigningKey,
    certificate_pem,
    key_pem,
    new_key,
    new_root,
    parse_authority,
    parse_certificates,
    parse_key,
    public_bytes,
)

AUTHORITY_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=2 * 365)
RENEW_BEFORE = timedelta(days=365)
"""A leaf with less than this left is renewed at start; so no run shorter than a year ever meets an expired one."""

_BEGINNING = timedelta(minutes=5)


class DamagedPki(Exception):
    """A file in `pki/` is not what was written there."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate to have: who it is for and by which authority. `names` may be DNS names and IP addresses."""

    file: str
    common_name: str
    authority: str = "ca"
    organization: str = ""
    names: tuple[str, ...] = ()
    server: bool = False
    client: bool = True


AUTHORITIES = {"ca": "linkerd-cluster", "front-proxy-ca": "linkerd-cluster-front-proxy"}
"""File name and common name. The second one signs only the client certificate of API aggregation: were it the same
as the first, every client could claim any user's name in a header."""

SERVICE_ACCOUNT_KEY = "sa"

LEAVES = (
    Leaf(
        "apiserver",
        "kube-apiserver",
        names=(
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            f"kubernetes.default.svc.{settings.CLUSTER_DOMAIN}",
            "localhost",
            settings.NODE_NAME,
            "127.0.0.1",
            settings.NODE_IP,
            settings.API_SERVICE_IP,
        ),
        server=True,
        client=False,
    ),
    Leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client", organization="system:masters"),
    Leaf("front-proxy-client", "front-proxy-client", authority="front-proxy-ca"),
    Leaf("kubelet", "node-1", names=(settings.NODE_NAME, settings.NODE_IP), server=True, client=False),
    Leaf(
        "metrics-server",
        "metrics-server",
        names=("metrics-server", "metrics-server.kube-system", "metrics-server.kube-system.svc"),
        server=True,
        client=False,
    ),
    Leaf("admin", "kubernetes-admin", organization="system:masters"),
    Leaf("kube-controller-manager", "system:kube-controller-manager", organization="system:masters"),
    Leaf("kube-scheduler", "system:kube-scheduler"),
    Leaf("kube-proxy", "system:kube-proxy"),
    Leaf("node", f"system:node:{settings.NODE_NAME}", organization="system:nodes"),
)


def ensure_pki(directory: Path, now: datetime | None = None) -> None:
    """Create what is missing, renew what ends soon. Raises DamagedPki for a file that cannot be read."""
    now = now or datetime.now(UTC)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authorities = {name: _ensure_authority(directory, name, title, now) for name, title in AUTHORITIES.items()}
    for leaf in LEAVES:
        _ensure_leaf(directory, leaf, authorities[leaf.authority], now)
    _ensure_service_account_key(directory)


def read_pem(directory: Path, file: str) -> tuple[str, str]:
    """A certificate and its key."""
    return (directory / f"{file}.crt").read_text(), (directory / f"{file}.key").read_text()


def _ensure_authority(directory: Path, name: str, title: str, now: datetime) -> Authority:
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    if certificate.exists() and not key.exists():
        raise DamagedPki(key, "is missing")
    if not certificate.exists():
        # The key is written first, so a key alone is a start that was cut off before anything was signed.
        authority = new_root(title, AUTHORITY_LIFETIME, now=now)
        _write(key, key_pem(authority.key))
        _write(certificate, certificate_pem(authority.certificate))
        return authority
    try:
        authority = parse_authority(certificate.read_bytes(), key.read_bytes())
    except CertificateError as error:
        raise DamagedPki(certificate, str(error)) from error
    if authority.certificate.not_valid_after_utc < now:
        raise DamagedPki(certificate, f"expired at {authority.certificate.not_valid_after_utc:%Y-%m-%d}")
    return authority


def _ensure_service_account_key(directory: Path) -> None:
    """The API server reads the public half of an EC key only from a file of its own."""
    private, public = directory / f"{SERVICE_ACCOUNT_KEY}.key", directory / f"{SERVICE_ACCOUNT_KEY}.pub"
    if not private.exists():
        _write(private, key_pem(new_key()))
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    text = _load_key(private).public_key().public_bytes(encoding, form).decode()
    if not public.exists() or public.read_text() != text:
        _write(public, text)


def _ensure_leaf(directory: Path, leaf: Leaf, authority: Authority, now: datetime) -> None:
    certificate, key = directory / f"{leaf.file}.crt", directory / f"{leaf.file}.key"
    if certificate.exists() and key.exists() and _is_good(certificate, key, leaf, authority, now):
        return
    private = new_key()
    signed = sign_leaf(leaf, authority, private.public_key(), now)
    _write(key, key_pem(private))
    _write(certificate, certificate_pem(signed))


def _is_good(certificate: Path, key: Path, leaf: Leaf, authority: Authority, now: datetime) -> bool:
    """That a leaf may stay. False: to be made anew, since it ends soon, or the wish or the authority has changed."""
    found = _load_certificate(certificate)
    private = _load_key(key)
    if public_bytes(found.public_key()) != public_bytes(private.public_key()):  # type: ignore[arg-type]
        raise DamagedPki(key, f"is not the key of {certificate.name}")
    if found.not_valid_after_utc - now < min(RENEW_BEFORE, authority.certificate.not_valid_after_utc - now):
        return False
    return _is_signed(found, authority.certificate) and _alternative_names(found) == set(leaf.names)


def sign_leaf(leaf: Leaf, authority: Authority, public_key: PublicKey, now: datetime) -> x509.Certificate:
    """The certificate for the key; it never outlives the authority."""
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, leaf.common_name)]
    if leaf.organization:
        subject.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, leaf.organization))
    usages = [ExtendedKeyUsageOID.SERVER_AUTH] * leaf.server + [ExtendedKeyUsageOID.CLIENT_AUTH] * leaf.client
    usage = dict.fromkeys(_KEY_USAGES, False) | {"digital_signature": True}
    issuer = authority.certificate
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BEGINNING)
        .not_valid_after(min(now + LEAF_LIFETIME, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
    )
    if leaf.names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(n) for n in leaf.names]), False)
    return builder.sign(authority.key, hashes.SHA256())


_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _alternative_names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _is_signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return parse_certificates(path.read_bytes())[0]
    except CertificateError as error:
        raise DamagedPki(path, str(error)) from error


def _load_key(path: Path) -> SigningKey:
    try:
        return parse_key(path.read_bytes())
    except CertificateError as error:
        raise DamagedPki(path, str(error)) from error


def _write(path: Path, text: str) -> None:
    """Readable for root only, complete or not at all, even when the machine stops right now."""
    partial = path.with_name(path.name + ".new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def kubeconfig(server: str, ca: str, certificate: str, key: str, *, name: str, user: str) -> Mapping[str, object]:
    """A kubeconfig as a document, credentials inside it."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": _base64(ca)}}],
        "users": [
            {
                "name": user,
                "user": {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)},
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
    }


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
