"""What identity signs and what it refuses."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from linkerd.identity.certifying import InvalidRequest, RequestMismatch, Validity, check_request, issue
from linkerd.identity.issuer import Issuer
from linkerd.kit.x509 import CertificateError, dns_names, new_issuer, new_key, new_root, verify_chain

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = "web.shop.serviceaccount.identity.linkerd.cluster.local"


def request(names: list[x509.GeneralName], common_name: str = "", key=None) -> bytes:
    key = key or new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def issuer(lifetime: timedelta = timedelta(days=365)) -> Issuer:
    root = new_root("root.linkerd.cluster.local", timedelta(days=3650), now=NOW)
    return Issuer(new_issuer("identity.linkerd.cluster.local", root, lifetime, now=NOW), (root.certificate,))


def test_a_leaf_leads_to_the_anchor_and_lives_a_day_with_the_skew_on_both_sides():
    authority = issuer()
    leaf = issue(check_request(NAME, request([x509.DNSName(NAME)], NAME)), authority, Validity(), NOW)
    verify_chain([leaf, *authority.authority.chain], authority.anchors, NOW)
    assert dns_names(leaf) == [NAME]
    assert leaf.not_valid_before_utc == NOW - timedelta(seconds=20)
    assert leaf.not_valid_after_utc == NOW + timedelta(hours=24, seconds=20)


def test_a_leaf_never_outlives_its_issuer():
    authority = issuer(timedelta(hours=1))
    leaf = issue(check_request(NAME, request([x509.DNSName(NAME)])), authority, Validity(), NOW)
    assert leaf.not_valid_after_utc == NOW + timedelta(hours=1)


def test_an_expired_issuer_signs_nothing():
    checked = check_request(NAME, request([x509.DNSName(NAME)]))
    with pytest.raises(CertificateError, match="expired"):
        issue(checked, issuer(timedelta(hours=1)), Validity(), NOW + timedelta(hours=2))


@pytest.mark.parametrize(
    "der",
    [
        request([x509.DNSName("other.shop.serviceaccount.identity.linkerd.cluster.local")]),
        request([x509.DNSName(NAME), x509.DNSName("second")]),
        request([x509.DNSName(NAME), x509.RFC822Name("a@b.c")]),
        request([x509.DNSName(NAME), x509.UniformResourceIdentifier("spiffe://x")]),
        request([]),
        request([x509.DNSName(NAME)], "somebody-else"),
        request([x509.DNSName(NAME)], key=rsa.generate_private_key(65537, 2048)),
    ],
    ids=["other name", "two names", "mail", "uri", "no name", "common name", "rsa"],
)
def test_a_request_for_anything_else_is_refused(der: bytes):
    with pytest.raises(RequestMismatch):
        check_request(NAME, der)


@pytest.mark.parametrize("der", [b"", b"nonsense", request([x509.DNSName(NAME)])[:-1]])
def test_a_request_that_cannot_be_read_is_refused(der: bytes):
    with pytest.raises(InvalidRequest):
        check_request(NAME, der)


def test_a_request_signed_by_another_key_is_refused():
    der = bytearray(request([x509.DNSName(NAME)]))
    der[-1] ^= 1
    with pytest.raises(InvalidRequest):
        check_request(NAME, bytes(der))
