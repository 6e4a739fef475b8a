"""Certificates of the mesh: keys, anchors, issuers, leaves; PEM in and out.

P-256 unless the caller brings another key. Names of a certificate are DNS-like identities (RFC 5280 §4.2.1.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Certificate = x509.Certificate
SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_BEGINNING = timedelta(minutes=1)
"""How long before now a new anchor or issuer begins: clocks of the nodes differ."""


class CertificateError(ValueError):
    """Key or certificate material that cannot be used; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that may sign others, with its key, and the chain above it (not the root), issuer first."""

    certificate: Certificate
    key: SigningKey
    intermediates: tuple[Certificate, ...] = ()

    @property
    def chain(self) -> tuple[Certificate, ...]:
        """What a leaf of ours must be sent with: this certificate, then those above it."""
        return (self.certificate, *self.intermediates)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def new_root(name: str, lifetime: timedelta, *, now: datetime | None = None) -> Authority:
    """A self-signed trust anchor."""
    key = new_key()
    subject = _name(name)
    certificate = _authority_builder(subject, key, lifetime, now, path_length=None).issuer_name(subject)
    return Authority(_signed(certificate, key, key.public_key()), key)


def renewed_root(root: Authority, *, now: datetime) -> Authority:
    """The same anchor for as long again: who trusts its name and key trusts it without being told."""
    lifetime = lifetime_of(root.certificate)
    builder = _authority_builder(root.certificate.subject, root.key, lifetime, now, path_length=None)
    builder = builder.issuer_name(root.certificate.subject)
    return Authority(_signed(builder, root.key, root.certificate.public_key()), root.key)  # type: ignore[arg-type]


def succeeding_root(root: Certificate, *, now: datetime) -> Authority:
    """Another anchor of the same name and lifetime, with a key of its own."""
    key = new_key()
    builder = _authority_builder(root.subject, key, lifetime_of(root), now, path_length=None)
    return Authority(_signed(builder.issuer_name(root.subject), key, key.public_key()), key)


def succeeding_issuer(issuer: Certificate, root: Authority, *, now: datetime) -> Authority:
    """Another issuer of the same name and lifetime below `root`, which it does not outlive."""
    key = new_key()
    lifetime = min(lifetime_of(issuer), root.certificate.not_valid_after_utc - now)
    builder = _authority_builder(issuer.subject, key, lifetime, now, path_length=0)
    builder = builder.issuer_name(root.certificate.subject)
    return Authority(_signed(builder, root.key, root.certificate.public_key()), key)  # type: ignore[arg-type]


def lifetime_of(certificate: Certificate) -> timedelta:
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc - _BEGINNING


def new_issuer(name: str, root: Authority, lifetime: timedelta, *, now: datetime | None = None) -> Authority:
    """An intermediate authority below the root, which may sign leaves only."""
    key = new_key()
    builder = _authority_builder(_name(name), key, lifetime, now, path_length=0)
    builder = builder.issuer_name(root.certificate.subject)
    return Authority(_signed(builder, root.key, root.certificate.public_key()), key)  # type: ignore[arg-type]


def new_leaf(
    authority: Authority,
    names: Sequence[str],
    public_key: PublicKey,
    *,
    not_before: datetime,
    not_after: datetime,
    serial: int | None = None,
    common_name: str = "",
) -> Certificate:
    """A certificate for both ends of TLS, for these DNS names. It never outlives the chain that signs it."""
    end = min([not_after, *(c.not_valid_after_utc for c in authority.chain)])
    subject = _name(common_name or names[0])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.certificate.subject)
        .public_key(public_key)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=not list(subject))
        .add_extension(_key_usage(encipher=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    return _signed(builder, authority.key, authority.certificate.public_key())  # type: ignore[arg-type]


def new_server_certificate(name: str, lifetime: timedelta) -> tuple[Certificate, ec.EllipticCurvePrivateKey, Authority]:
    """A leaf for a webhook's server and the authority made for it alone, whose certificate is the `caBundle`."""
    # A leaf with the very name of its authority would be taken for a self-signed one.
    authority, key, now = new_root(f"ca.{name}", lifetime), new_key(), datetime.now(UTC)
    leaf = new_leaf(authority, [name], key.public_key(), not_before=now - _BEGINNING, not_after=now + lifetime)
    return leaf, key, authority


def parse_certificates(pem: str | bytes) -> list[Certificate]:
    """All certificates of a PEM text, in order. Raises CertificateError, also when there is none."""
    data = pem.encode() if isinstance(pem, str) else pem
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise CertificateError(f"no usable certificate in PEM: {error}") from error


def parse_der(der: bytes) -> Certificate:
    """Raises CertificateError."""
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise CertificateError(f"no usable certificate: {error}") from error


def parse_key(pem: str | bytes) -> SigningKey:
    """An unencrypted private key, PKCS#8 or the older forms. Raises CertificateError."""
    data = pem.encode() if isinstance(pem, str) else pem
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise CertificateError(f"no usable private key in PEM: {error}") from error
    if not isinstance(key, SigningKey):
        raise CertificateError(f"keys of kind {type(key).__name__} are not supported; ECDSA, Ed25519 or RSA is")
    return key


def parse_authority(certificates_pem: str | bytes, key_pem: str | bytes) -> Authority:
    """Issuer certificate first, then those above it; the key belongs to the first. Raises CertificateError."""
    first, *above = parse_certificates(certificates_pem)
    key = parse_key(key_pem)
    if public_bytes(first.public_key()) != public_bytes(key.public_key()):  # type: ignore[arg-type]
        raise CertificateError("the private key does not belong to the certificate")
    if not _may_sign(first):
        raise CertificateError("the certificate is not an authority (basicConstraints CA:TRUE is missing)")
    return Authority(first, key, tuple(above))


def certificate_pem(*certificates: Certificate) -> str:
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in certificates)


def certificate_der(certificate: Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def key_pem(key: SigningKey) -> str:
    """PKCS#8, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def public_bytes(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def dns_names(certificate: Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.DNSName)


def verify_chain(chain: Sequence[Certificate], anchors: Sequence[Certificate], now: datetime) -> None:
    """That the chain (leaf side first) leads to one of the anchors and all of it is valid now.

    Raises CertificateError, saying which certificate fails and why.
    """
    for certificate in chain:
        _check_time(certificate, now)
    for lower, upper in pairwise(chain):
        _check_signed(lower, upper)
    top = chain[-1]
    for anchor in anchors:
        if top == anchor or (top.issuer == anchor.subject and _is_signed(top, anchor)):
            _check_time(anchor, now)
            return
    raise CertificateError(f"`{top.subject.rfc4514_string()}` is not signed by any of the {len(anchors)} trust anchors")


def _check_time(certificate: Certificate, now: datetime) -> None:
    name = certificate.subject.rfc4514_string()
    if now < certificate.not_valid_before_utc:
        raise CertificateError(f"`{name}` is not valid before {certificate.not_valid_before_utc.isoformat()}")
    if now > certificate.not_valid_after_utc:
        raise CertificateError(f"`{name}` expired at {certificate.not_valid_after_utc.isoformat()}")


def is_signed_by(lower: Certificate, upper: Certificate) -> bool:
    """By name and signature; whether either is valid now is another question."""
    return _is_signed(lower, upper)


def same_key(one: Certificate, other: Certificate) -> bool:
    return public_bytes(one.public_key()) == public_bytes(other.public_key())  # type: ignore[arg-type]


def _check_signed(lower: Certificate, upper: Certificate) -> None:
    if not _is_signed(lower, upper):
        below, above = lower.subject.rfc4514_string(), upper.subject.rfc4514_string()
        raise CertificateError(f"`{below}` is not signed by `{above}`")


def _is_signed(lower: Certificate, upper: Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _may_sign(certificate: Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def _name(common_name: str) -> x509.Name:
    # The X.520 upper bound of a common name is 64; a longer one is left to the SAN.
    if len(common_name) > 64:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _authority_builder(
    subject: x509.Name, key: SigningKey, lifetime: timedelta, now: datetime | None, *, path_length: int | None
) -> x509.CertificateBuilder:
    begin = now or datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _BEGINNING)
        .not_valid_after(begin + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, encipher: bool = False, sign_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=encipher,
        content_commitment=False,
        key_encipherment=encipher,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, key: SigningKey, issuer_key: PublicKey) -> Certificate:
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
