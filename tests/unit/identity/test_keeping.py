"""The mesh's authorities as the data of Secrets and a ConfigMap."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from linkerd.identity.keeping import anchor_data, parse_authorities, written_data
from linkerd.identity.rotating import Authorities, Change, Place
from linkerd.kit.x509 import CertificateError, certificate_pem, key_pem, new_issuer, new_root

DAY = timedelta(days=1)
ROOT, NEXT, OLD = (new_root(name, DAY) for name in ("root", "next", "old"))
HELD = Authorities(
    ROOT,
    new_issuer("issuer", ROOT, DAY),
    (ROOT.certificate, OLD.certificate),
    successor=NEXT,
    retired=OLD.certificate,
    since=datetime(2026, 1, 1, tzinfo=UTC),
)
ROOTS = {"ca-bundle.crt": certificate_pem(*HELD.bundle)}


def issuer(certificate: str, key: str) -> dict[str, str]:
    return {certificate: certificate_pem(HELD.issuer.certificate), key: key_pem(HELD.issuer.key)}


@pytest.mark.parametrize("names", [("crt.pem", "key.pem"), ("tls.crt", "tls.key")])
def test_what_is_written_is_read_again(names):
    found = parse_authorities(anchor_data(HELD), issuer(*names), ROOTS)
    assert (found.anchor.certificate, found.issuer.certificate) == (ROOT.certificate, HELD.issuer.certificate)
    assert found.successor is not None
    assert found.successor.certificate == NEXT.certificate
    assert (found.bundle, found.retired, found.since) == (HELD.bundle, HELD.retired, HELD.since)


def test_an_issuer_is_written_under_the_names_that_are_there_with_the_anchors_where_they_are():
    change = Change(Place.ISSUER, HELD, "")
    assert set(written_data(change, {"crt.pem": "", "key.pem": ""})) == {"crt.pem", "key.pem"}
    tls = written_data(change, {"tls.crt": "", "tls.key": "", "ca.crt": ""})
    assert base64.b64decode(tls["ca.crt"] or "").decode() == ROOTS["ca-bundle.crt"]


def test_what_is_over_is_taken_out_of_the_anchors_secret():
    after = Authorities(NEXT, HELD.issuer, HELD.bundle)
    written = written_data(Change(Place.ANCHOR, after, ""), anchor_data(HELD))
    assert {key for key, value in written.items() if value is None} == {"next.crt", "next.key", "old.crt", "since"}


@pytest.mark.parametrize("broken", [{"ca.crt": "nonsense"}, {"ca.key": key_pem(NEXT.key)}, {"since": "soon"}])
def test_what_cannot_be_read_is_said(broken):
    with pytest.raises(CertificateError):
        parse_authorities(anchor_data(HELD) | broken, issuer("crt.pem", "key.pem"), ROOTS)
