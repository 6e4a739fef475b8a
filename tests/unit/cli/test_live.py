"""A proxy's own view of a service, beside the control plane's."""

from __future__ import annotations

import json

import pytest
from linkerd.cli.commands.diagnostics.endpoints import Endpoint, joined
from linkerd.cli.live import NotKnown, difference, live_endpoints, state_text

AUTHORITY = "web.shop.svc.cluster.local:8080"
LABELS = {"namespace": "shop", "pod": "web-1", "service": "web"}


def document(*endpoints, known=True):
    entry = {"authority": AUTHORITY, "known": known, "exists": known, "endpoints": list(endpoints) if known else None}
    return json.dumps({"outbound": {"endpoints": [entry]}})


def live(address, **details):
    return {"address": address, "labels": LABELS, "weight": 10000} | details


def told(ip):
    return Endpoint("shop", ip, 8080, "web-1", "web.shop", 10000, False, {})


def test_what_the_proxy_has():
    (one, six) = live_endpoints(document(live("10.0.0.1:8080"), live("[fd00::1]:8080")), AUTHORITY)
    assert (one.address, six.address) == (("10.0.0.1", 8080), ("fd00::1", 8080))
    assert one.details == {"weight": 10000}


@pytest.mark.parametrize(
    ("text", "authority", "why"),
    [
        (document(), "other:80", f"not asked for other:80.*knows {AUTHORITY}"),
        (document(known=False), AUTHORITY, "waits for an answer"),
    ],
)
def test_what_it_does_not_have_and_why(text, authority, why):
    with pytest.raises(NotKnown, match=why):
        live_endpoints(text, authority)


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({}, "yes"),
        ({"state": "ready"}, "ready"),
        ({"state": "ready", "load": 3, "age": "5s"}, "ready (load 3, age 5s)"),
    ],
)
def test_its_state_is_told_in_its_own_words(details, text):
    assert state_text(live_endpoints(document(live("10.0.0.1:1", **details)), AUTHORITY)[0]) == text


def test_both_views_side_by_side():
    believed = live_endpoints(document(live("10.0.0.2:8080"), live("10.0.0.3:8080")), AUTHORITY)
    rows = joined([told("10.0.0.1"), told("10.0.0.2")], believed)
    assert [(row.cells()[1], *row.cells()[-2:]) for row in rows] == [
        ("10.0.0.1", "yes", "-"),
        ("10.0.0.2", "yes", "yes"),
        ("10.0.0.3", "-", "yes"),
    ]
    assert [(row.json()["ip"], row.json()["controlPlane"], bool(row.json()["proxy"])) for row in rows] == [
        ("10.0.0.1", True, False),
        ("10.0.0.2", True, True),
        ("10.0.0.3", False, True),
    ]


def test_the_difference_in_words():
    assert difference([("a", 1), ("b", 1)], [("b", 1), ("c", 1)]) == [
        "only the control plane has a:1",
        "only the proxy has c:1",
    ]
    assert difference([("a", 1)], [("a", 1)]) == []
