"""What is asked of a certificate request before it is signed, and the signing: pure, the time is given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from linkerd.identity.issuer import Issuer
from linkerd.kit.x509 import Certificate, CertificateError, new_leaf


class InvalidRequest(ValueError):
    """Something is missing from the request or cannot be read."""


class RequestMismatch(ValueError):
    """The certificate request asks for something else than the identity that was proven."""


@dataclass(frozen=True, slots=True)
class Validity:
    """How long leaves live. `skew` is added on both sides: clocks of the nodes differ."""

    lifetime: timedelta = timedelta(hours=24)
    skew: timedelta = timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    identity: str
    public_key: ec.EllipticCurvePublicKey


def check_request(identity: str, der: bytes) -> CheckedRequest:
    """Exactly the identity as a DNS name, no other name, an ECDSA key, and proof of holding it.

    Raises InvalidRequest or RequestMismatch.
    """
    try:
        request = x509.load_der_x509_csr(der)
        signed = request.is_signature_valid
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidRequest(f"certificate_signing_request cannot be read: {error}") from error
    if not signed:
        raise InvalidRequest("certificate_signing_request is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise RequestMismatch("the key of the certificate request must be ECDSA")
    _check_names(request, identity)
    return CheckedRequest(identity, key)


def issue(request: CheckedRequest, issuer: Issuer, validity: Validity, now: datetime) -> Certificate:
    """The leaf. Raises CertificateError when the issuer is not valid any more."""
    issuer.check(now)
    leaf = new_leaf(
        issuer.authority,
        [request.identity],
        request.public_key,
        not_before=now - validity.skew,
        not_after=now + validity.lifetime + validity.skew,
    )
    if leaf.not_valid_after_utc <= now:
        raise CertificateError("the issuer ends before the leaf would begin")
    return leaf


def _check_names(request: x509.CertificateSigningRequest, identity: str) -> None:
    common_names = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if common_names not in ([], [""], [identity]):
        raise RequestMismatch(f"the common name of the certificate request is `{common_names[0]}`, not `{identity}`")
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise RequestMismatch("the certificate request has no subject alternative name") from error
    found = [name.value if isinstance(name, x509.DNSName) else None for name in names]
    if found != [identity]:
        raise RequestMismatch(f"the certificate request must be for the DNS name `{identity}` and nothing else")
