"""A certificate as text, in the layout of `linkerd identity` (which is that of `openssl x509 -text`, more or less)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

_NAMES: tuple[tuple[ObjectIdentifier, str], ...] = (
    (NameOID.COMMON_NAME, "CN"),
    (NameOID.COUNTRY_NAME, "C"),
    (NameOID.STATE_OR_PROVINCE_NAME, "ST"),
    (NameOID.ORGANIZATION_NAME, "O"),
    (NameOID.ORGANIZATIONAL_UNIT_NAME, "OU"),
    (NameOID.EMAIL_ADDRESS, "emailAddress"),
)
_USAGES = {
    "digital_signature": "Digital Signature",
    "content_commitment": "Content Commitment",
    "key_encipherment": "Key Encipherment",
    "data_encipherment": "Data Encipherment",
    "key_agreement": "Key Agreement",
    "key_cert_sign": "Certificate Sign",
    "crl_sign": "CRL Sign",
}
_EXTENDED_USAGES = {
    "serverAuth": "TLS Web Server Authentication",
    "clientAuth": "TLS Web Client Authentication",
    "codeSigning": "Code Signing",
}
_SIGNATURES = {
    "ecdsa-with-SHA256": "ECDSA-SHA256",
    "ecdsa-with-SHA384": "ECDSA-SHA384",
    "sha256WithRSAEncryption": "SHA256-RSA",
    "ed25519": "Ed25519",
}


def text(certificate: x509.Certificate) -> str:
    """Ends with a newline."""
    algorithm = signature_algorithm(certificate)
    lines = [
        "Certificate:",
        "    Data:",
        f"        Version: 3 ({hex(certificate.version.value)})",
        f"        Serial Number: {certificate.serial_number} ({hex(certificate.serial_number)})",
        f"    Signature Algorithm: {algorithm}",
        f"        Issuer: {name(certificate.issuer)}",
        "        Validity",
        f"            Not Before: {_time(certificate.not_valid_before_utc)}",
        f"            Not After : {_time(certificate.not_valid_after_utc)}",
        f"        Subject: {name(certificate.subject)}",
        "        Subject Public Key Info:",
        *_indented(12, _public_key(certificate)),
        "        X509v3 extensions:",
        *_indented(12, _extensions(certificate)),
        "",
        f"    Signature Algorithm: {algorithm}",
        *_indented(9, _hex_lines(certificate.signature, 18)),
    ]
    return "\n".join(lines) + "\n"


def parsed(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def json_value(certificate: x509.Certificate) -> dict[str, str | list[str]]:
    """What programs ask of a certificate; `-o pem` has the rest."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        identities = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        identities = []
    return {
        "identities": identities,
        "subject": name(certificate.subject),
        "issuer": name(certificate.issuer),
        "serialNumber": str(certificate.serial_number),
        "notBefore": certificate.not_valid_before_utc.isoformat().replace("+00:00", "Z"),
        "notAfter": certificate.not_valid_after_utc.isoformat().replace("+00:00", "Z"),
    }


def name(subject: x509.Name) -> str:
    parts = [f"{short}={attribute.value}" for oid, short in _NAMES for attribute in subject.get_attributes_for_oid(oid)]
    return ", ".join(parts)


def signature_algorithm(certificate: x509.Certificate) -> str:
    known = certificate.signature_algorithm_oid._name
    return _SIGNATURES.get(known, known)


def _time(moment: object) -> str:
    return moment.strftime("%b %-d %H:%M:%S %Y UTC")  # type: ignore[attr-defined]


def _indented(spaces: int, lines: Iterable[str]) -> Iterator[str]:
    return (" " * spaces + line for line in lines)


def _hex_lines(data: bytes, width: int) -> list[str]:
    """Pairs joined by `:`; a line that goes on ends with one."""
    pairs = [f"{byte:02x}" for byte in data]
    rows = [":".join(pairs[start : start + width]) for start in range(0, len(pairs), width)]
    return [f"{row}:" for row in rows[:-1]] + rows[-1:]


def _public_key(certificate: x509.Certificate) -> list[str]:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        numbers, size = key.public_numbers(), (key.key_size + 7) // 8
        curve = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(key.curve.name, key.curve.name)
        return [
            "Public Key Algorithm: ECDSA",
            f"    Public-Key: ({key.key_size} bit)",
            "    X:",
            *_indented(8, _hex_lines(numbers.x.to_bytes(size, "big"), 15)),
            "    Y:",
            *_indented(8, _hex_lines(numbers.y.to_bytes(size, "big"), 15)),
            f"    Curve: {curve}",
        ]
    if isinstance(key, rsa.RSAPublicKey):
        modulus = key.public_numbers().n
        return [
            "Public Key Algorithm: RSA",
            f"    Public-Key: ({key.key_size} bit)",
            "    Modulus:",
            *_indented(8, _hex_lines(modulus.to_bytes((modulus.bit_length() + 7) // 8, "big"), 15)),
            f"    Exponent: {key.public_numbers().e} ({hex(key.public_numbers().e)})",
        ]
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ["Public Key Algorithm: Ed25519", *_indented(8, _hex_lines(key.public_bytes_raw(), 15))]
    return [f"Public Key Algorithm: {type(key).__name__}"]


def _extensions(certificate: x509.Certificate) -> list[str]:
    lines: list[str] = []
    for extension in certificate.extensions:
        title, values = _extension(extension.value)
        lines += [f"X509v3 {title}:{' critical' if extension.critical else ''}", *_indented(4, values)]
    return lines


def _extension(value: x509.ExtensionType) -> tuple[str, list[str]]:
    if isinstance(value, x509.KeyUsage):
        return "Key Usage", [", ".join(text for field, text in _USAGES.items() if getattr(value, field))]
    if isinstance(value, x509.ExtendedKeyUsage):
        return "Extended Key Usage", [
            ", ".join(_EXTENDED_USAGES.get(usage._name, usage.dotted_string) for usage in value)
        ]
    if isinstance(value, x509.BasicConstraints):
        return "Basic Constraints", [f"CA:{'TRUE' if value.ca else 'FALSE'}"]
    if isinstance(value, x509.AuthorityKeyIdentifier):
        return "Authority Key Identifier", [f"keyid:{_colons(value.key_identifier or b'')}"]
    if isinstance(value, x509.SubjectKeyIdentifier):
        return "Subject Key Identifier", [_colons(value.digest)]
    if isinstance(value, x509.SubjectAlternativeName):
        return "Subject Alternative Name", [", ".join(_general_name(item) for item in value)]
    return value.oid._name, ["(not shown)"]


def _general_name(item: x509.GeneralName) -> str:
    if isinstance(item, x509.DNSName):
        return f"DNS:{item.value}"
    if isinstance(item, x509.UniformResourceIdentifier):
        return f"URI:{item.value}"
    return str(item.value)


def _colons(data: bytes) -> str:
    return ":".join(f"{byte:02X}" for byte in data)
