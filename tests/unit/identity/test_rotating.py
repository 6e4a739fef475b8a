"""The mesh's own authorities over the years."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import pytest
from linkerd.identity.rotating import Authorities, Place, next_change
from linkerd.kit.x509 import (
    Authority,
    Certificate,
    is_signed_by,
    new_issuer,
    new_key,
    new_leaf,
    new_root,
    same_key,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def authorities(anchor: timedelta = 100 * DAY, issuer: timedelta = 30 * DAY) -> Authorities:
    root = new_root("root.linkerd.cluster.local", anchor, now=START)
    return Authorities(root, new_issuer("identity.linkerd.cluster.local", root, issuer, now=START), (root.certificate,))


def settled(held: Authorities, now: datetime) -> tuple[Authorities, list[str]]:
    """What is there when nothing is left to change, and what was told."""
    told = []
    for _ in range(20):
        change = next_change(held, now, DAY)
        if change is None:
            return held, told
        held = change.after
        told += [change.reason] if change.reason else []
    raise AssertionError(f"it does not come to rest: {told}")


def test_nothing_changes_while_all_is_young():
    assert next_change(authorities(), START + 10 * DAY, DAY) is None


@pytest.mark.parametrize("age", [21 * DAY, 40 * DAY], ids=["old", "ended"])
def test_an_issuer_is_replaced_when_a_third_is_left_and_when_it_has_ended(age):
    held = authorities()
    after, told = settled(held, START + age)
    assert told == ["IssuerRotated"]
    assert is_signed_by(after.issuer.certificate, held.anchor.certificate)
    assert after.issuer.certificate.not_valid_after_utc == START + age + 30 * DAY


def test_an_issuer_never_outlives_its_anchor():
    after, _ = settled(authorities(issuer=90 * DAY), START + 75 * DAY)
    assert after.issuer.certificate.not_valid_after_utc == START + 100 * DAY


def test_an_anchor_that_has_ended_is_valid_again_with_the_same_key():
    held = authorities()
    now = START + 101 * DAY
    after, told = settled(held, now)
    assert told == ["AnchorRenewed", "IssuerRotated"]
    (trusted,) = after.bundle
    assert trusted == after.anchor.certificate
    assert same_key(trusted, held.anchor.certificate)
    assert trusted.not_valid_after_utc == now + 100 * DAY
    assert is_signed_by(after.issuer.certificate, held.anchor.certificate), "who knows the old one believes it"


def test_an_anchor_is_replaced_with_overlap():
    old = authorities(issuer=99 * DAY)
    now = START + 85 * DAY
    both, told = settled(old, now)
    assert told == ["IssuerRotated", "AnchorSuccessorMade", "AnchorAdded"]
    assert len(both.bundle) == 2
    assert is_signed_by(both.issuer.certificate, old.anchor.certificate)
    waiting, told = settled(both, now + 1.9 * DAY)
    assert told == []
    switched, told = settled(waiting, now + 2 * DAY)
    assert told == ["IssuerRotated", "AnchorRotated"]
    assert switched.bundle == both.bundle
    assert is_signed_by(switched.issuer.certificate, switched.anchor.certificate)
    after, told = settled(switched, now + 4 * DAY)
    assert told == ["AnchorRetired"]
    assert after.bundle == (after.anchor.certificate,)
    assert not same_key(after.anchor.certificate, old.anchor.certificate)
    assert (after.successor, after.retired, after.since) == (None, None, None)


def other() -> Authority:
    return new_root("root.of.somebody.else", 100 * DAY, now=START)


@pytest.mark.parametrize(
    "changes",
    [
        lambda held: {"issuer": new_issuer("theirs", other(), DAY, now=START)},
        lambda held: {"issuer": replace(held.issuer, intermediates=(other().certificate,))},
        lambda held: {"bundle": (other().certificate,)},
    ],
    ids=["another issuer", "a chain", "not trusted"],
)
def test_what_is_not_ours_is_left_alone(changes):
    held = authorities()
    assert next_change(replace(held, **changes(held)), START + 1000 * DAY, DAY) is None


def test_anchors_that_somebody_added_stay():
    theirs = other().certificate
    held = authorities()
    held = replace(held, bundle=(theirs, *held.bundle))
    for days in range(0, 400, 2):
        held, _ = settled(held, START + days * DAY)
        assert theirs in held.bundle


@dataclass
class Proxy:
    """As a meshed pod knows the world: what it got with its last certificate."""

    renewed: datetime
    leaf: Certificate
    issuer: Certificate
    anchors: tuple[Certificate, ...]

    def believes(self, peer: Proxy, now: datetime) -> bool:
        """As the proxies' TLS library does: anchors are names with keys and never end."""
        valid = all(c.not_valid_before_utc <= now <= c.not_valid_after_utc for c in (peer.leaf, peer.issuer))
        return valid and any(signed_by(peer.issuer, anchor) for anchor in self.anchors)


signed_by = lru_cache(is_signed_by)
KEY = new_key().public_key()


def certified(held: Authorities, now: datetime) -> Proxy:
    leaf = new_leaf(held.issuer, ["a"], KEY, not_before=now, not_after=now + DAY)
    return Proxy(now, leaf, held.issuer.certificate, held.bundle)


def test_over_the_years_every_proxy_always_believes_every_other():
    """Proxies renew at 70 % of a day, each at an hour of its own; one in two changes is interrupted for a while."""
    held, now = authorities(60 * DAY, 20 * DAY), START
    proxies = [certified(held, now - timedelta(hours=3 * number)) for number in range(5)]
    anchors = set()
    for hour in range(0, 24 * 180, 3):
        now = START + timedelta(hours=hour)
        change = next_change(held, now, DAY)
        if change is not None and hour % 2:
            held = change.after
        for number, proxy in enumerate(proxies):
            if now - proxy.renewed >= 0.7 * DAY:
                proxies[number] = certified(held, now)
        assert all(one.believes(two, now) for one in proxies for two in proxies), f"hour {hour}"
        anchors.add(held.anchor.certificate.serial_number)
    assert len(anchors) >= 3, "the anchor was replaced several times"
    assert len(held.bundle) <= 2


def test_each_change_names_the_place_it_is_written_to():
    held, now = authorities(issuer=99 * DAY), START + 85 * DAY
    places = []
    while change := next_change(held, now, DAY):
        places.append(change.place)
        held = change.after
    assert places == [Place.ISSUER, Place.ANCHOR, Place.BUNDLE, Place.ANCHOR]
