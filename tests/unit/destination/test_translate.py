"""Endpoints and profiles on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.destination.index import Endpoint, EndpointProfile, LogicalProfile, UndeclaredPort
from linkerd.destination.profiles import (
    Override,
    ServiceProfile,
    parse_service_profile,
    parse_thousandths,
    parse_traffic_split,
)
from linkerd.destination.translate import profile_message, updates, weighted_addr
from linkerd.proto import destination_pb2 as pb

SET = {"service": "web", "namespace": "shop"}


def said(before, now, *, exists=True):
    def by_address(endpoints):
        return None if endpoints is None else {e.address: e for e in endpoints}

    return list(updates(by_address(before), by_address(now), labels=SET, zone="", exists=exists))


def one(number: int, **labels: str) -> Endpoint:
    return Endpoint(f"10.0.0.{number}", 80, labels)


def test_the_first_message_has_all_endpoints_and_the_labels_of_the_set():
    (update,) = said(None, [one(1), one(2)])
    assert len(update.add.addrs) == 2
    assert dict(update.add.metric_labels) == SET


@pytest.mark.parametrize("exists", [True, False])
def test_a_first_message_comes_also_when_there_is_nothing(exists):
    (update,) = said(None, [], exists=exists)
    assert update.no_endpoints == pb.NoEndpoints(exists=exists)


def test_later_only_the_difference_is_told_the_removed_first():
    removed, added = said([one(1), one(2), one(3)], [one(2), one(3, pod="new"), one(4)])
    assert [a.ip.ipv4 for a in removed.remove.addrs] == [0x0A000001]
    assert [a.addr.ip.ipv4 for a in added.add.addrs] == [0x0A000003, 0x0A000004]


def test_the_last_one_leaving_is_told_as_none_left():
    (update,) = said([one(1)], [])
    assert update.no_endpoints.exists


def test_many_endpoints_go_in_several_messages():
    many = [Endpoint(f"10.0.{n // 256}.{n % 256}", 80) for n in range(2500)]
    assert [len(update.add.addrs) for update in said(None, many)] == [1000, 1000, 500]


endpoint_sets = st.dictionaries(st.integers(1, 9), st.integers(0, 2)).map(
    lambda found: [one(number, version=str(version)) for number, version in found.items()]
)


@given(st.lists(endpoint_sets, min_size=1, max_size=6))
def test_a_proxy_that_follows_the_messages_knows_what_is_there(states):
    """As a proxy reads them: the first add resets, later ones add or replace."""
    known: dict[int, str] = {}
    before = None
    for now in states:
        for update in said(before, now):
            if update.HasField("no_endpoints"):
                known = {}
            for address in update.remove.addrs:
                del known[address.ip.ipv4]
            known |= {a.addr.ip.ipv4: a.metric_labels["version"] for a in update.add.addrs}
        assert known == {0x0A000000 + int(e.ip.split(".")[3]): e.labels["version"] for e in now}
        before = now


def test_a_meshed_endpoint_has_all_that_mtls_and_http2_need():
    found = weighted_addr(Endpoint("10.0.0.1", 80, identity="x.y", meshed=True, h2=True, inbound_port=4143), "")
    assert found.tls_identity.dns_like_identity.name == "x.y"
    assert found.protocol_hint.WhichOneof("protocol") == "h2"
    assert found.protocol_hint.opaque_transport.inbound_port == 4143
    assert found.http2.keep_alive.while_idle
    assert found.weight == 10000


def test_a_spiffe_identity_goes_with_the_name_to_ask_for():
    found = weighted_addr(Endpoint("10.0.0.1", 80, identity="spiffe://a/b", server_name="vm.a", meshed=True), "")
    assert found.tls_identity.uri_like_identity.uri == "spiffe://a/b"
    assert found.tls_identity.server_name.name == "vm.a"


def test_an_opaque_endpoint_is_hinted_so():
    found = weighted_addr(Endpoint("10.0.0.1", 80, meshed=True, opaque=True, inbound_port=4143), "")
    assert found.protocol_hint.WhichOneof("protocol") == "opaque"


def test_a_plain_endpoint_has_no_hint_at_all():
    found = weighted_addr(Endpoint("10.0.0.1", 80), "")
    assert not found.HasField("protocol_hint")
    assert not found.HasField("tls_identity")


@pytest.mark.parametrize(
    ("zone", "client", "locality"),
    [("a", "a", "local"), ("a", "b", "remote"), ("", "a", "unknown"), ("a", "", "unknown")],
)
def test_locality_is_told_when_both_zones_are_known(zone, client, locality):
    assert weighted_addr(Endpoint("10.0.0.1", 80, zone=zone), client).metric_labels["zone_locality"] == locality


def test_ipv6_addresses_go_as_two_halves():
    found = weighted_addr(Endpoint("fd00::1", 80), "").addr.ip.ipv6
    assert (found.first, found.last) == (0xFD00 << 48, 1)


def message(profile):
    return profile_message(profile, zone="", cluster_domain="cluster.local")


def test_a_service_without_profile_has_its_name_and_the_default_budget():
    found = message(LogicalProfile("shop", "web", 80))
    assert found.fully_qualified_name == "web.shop.svc.cluster.local"
    assert found.retry_budget.retry_ratio == pytest.approx(0.2)
    assert (found.parent_ref.resource.group, found.parent_ref.resource.port) == ("core", 80)
    assert not found.HasField("profile_ref")


def test_an_undeclared_port_is_an_empty_profile():
    assert not message(UndeclaredPort()).fully_qualified_name


def test_a_pods_profile_is_its_endpoint_with_the_namespace():
    found = message(EndpointProfile(Endpoint("10.0.0.1", 80, {"pod": "web-1"}), "shop"))
    assert dict(found.endpoint.metric_labels) == {"pod": "web-1", "namespace": "shop", "zone_locality": "unknown"}


SPEC = {
    "routes": [
        {
            "name": "GET /books/{id}",
            "condition": {"method": "GET", "pathRegex": "/books/\\d+"},
            "timeout": "1.5s",
            "isRetryable": True,
            "responseClasses": [{"condition": {"status": {"min": 500}}, "isFailure": True}],
        },
        {"name": "rest", "condition": {"any": [{"method": "BREW"}, {"not": {"pathRegex": "/x"}}]}},
    ],
    "retryBudget": {"retryRatio": 0.5, "minRetriesPerSecond": 3, "ttl": "20s"},
    "dstOverrides": [{"authority": "a.b.svc.cluster.local", "weight": "500m"}, {"authority": "c:81", "weight": 2}],
}


def parsed(spec) -> ServiceProfile:
    return parse_service_profile({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec})


def test_a_service_profile_goes_over_as_it_is_written():
    profile = parsed(SPEC)
    found = message(LogicalProfile("shop", "web", 80, profile=profile, overrides=profile.overrides))
    first, second = found.routes
    assert first.metrics_labels["route"] == "GET /books/{id}"
    assert [m.WhichOneof("match") for m in first.condition.all.matches] == ["path", "method"]
    assert (first.timeout.seconds, first.timeout.nanos, first.is_retryable) == (1, 500_000_000, True)
    assert first.response_classes[0].condition.status == pb.HttpStatusRange(min=500, max=599)
    brew, other = second.condition.any.matches
    assert brew.method.unregistered == "BREW"
    assert getattr(other, "not").path.regex == "/x"
    assert (found.retry_budget.min_retries_per_second, found.retry_budget.ttl.seconds) == (3, 20)
    assert [(o.authority, o.weight) for o in found.dst_overrides] == [
        ("a.b.svc.cluster.local:80", 5000),
        ("c:81", 20000),
    ]
    assert found.profile_ref.resource.kind == "ServiceProfile"


@pytest.mark.parametrize(
    ("quantity", "thousandths"), [(1, 1000), ("500m", 500), ("1", 1000), ("1.5", 1500), ("1k", 1_000_000), (0, 0)]
)
def test_quantities_are_read(quantity, thousandths):
    assert parse_thousandths(quantity) == thousandths


@pytest.mark.parametrize("quantity", ["", "x", "-1", "1x", "m"])
def test_other_weights_are_refused(quantity):
    with pytest.raises(ValueError, match="weight"):
        parse_thousandths(quantity)


@pytest.mark.parametrize("weights", [(90, 10), ("900m", "100m")])
def test_both_forms_of_traffic_splits_keep_their_ratio(weights):
    backends = [{"service": name, "weight": w} for name, w in zip(("a", "b"), weights, strict=True)]
    split = parse_traffic_split(
        {"metadata": {"namespace": "n", "name": "s"}, "spec": {"service": "web", "backends": backends}}
    )
    assert split.backends[0][1] == 9 * split.backends[1][1]


def test_weights_too_large_for_the_wire_keep_their_ratio():
    huge = tuple(Override(name, weight) for name, weight in (("a", 3 * 10**9), ("b", 10**9)))
    first, second = message(LogicalProfile("n", "s", 80, overrides=huge)).dst_overrides
    assert first.weight == pytest.approx(3 * second.weight, rel=1e-6)
