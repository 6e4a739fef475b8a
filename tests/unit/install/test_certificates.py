"""The certificates of an installation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from linkerd.install.certificates import Credentials, checked_credentials, new_credentials, replacing
from linkerd.kit.x509 import certificate_pem, new_root, parse_authority, parse_certificates


def ended() -> str:
    return certificate_pem(new_root("old", timedelta(days=1), now=datetime.now(UTC) - timedelta(days=9)).certificate)


def test_new_ones_fit_together_and_keep_the_anchors_key():
    made = checked_credentials(new_credentials("linkerd", "cluster.local"))
    anchor = parse_authority(made.anchor["ca.crt"], made.anchor["ca.key"])
    assert certificate_pem(anchor.certificate) == made.anchors


def test_an_anchor_that_is_replaced_stays_trusted_and_is_marked_to_go():
    old, new = new_credentials("linkerd", "cluster.local"), new_credentials("linkerd", "cluster.local")
    made = checked_credentials(replacing(old, new))
    assert made.anchors == new.anchors + old.anchors
    assert (made.anchor["ca.key"], made.anchor["old.crt"]) == (new.anchor["ca.key"], old.anchors)
    assert datetime.fromisoformat(made.anchor["since"]) <= datetime.now(UTC)


def test_an_anchor_of_others_goes_when_it_has_ended_and_stays_while_it_is_valid():
    new = new_credentials("linkerd", "cluster.local")
    valid = new_credentials("linkerd", "cluster.local").anchors
    made = checked_credentials(replacing(Credentials(valid + ended(), "", ""), new))
    assert made.anchors == new.anchors + valid
    assert "old.crt" not in made.anchor


def test_an_anchor_of_ours_stays_although_it_has_ended():
    old = ended()
    made = replacing(Credentials(old, "", "", {"ca.crt": old}), new_credentials("linkerd", "cluster.local"))
    assert len(parse_certificates(made.anchors)) == 2
