"""What routes and policies are told about themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from linkerd.policy.statuses import CONTROLLER, all_statuses, egress_network_status, rate_limit_status, route_status
from linkerd.policy.values import Reported
from support.policy_objects import NS, index_of, parsed, server_ref, web_service

NOW = "2026-01-02T00:00:00Z"
SERVICE = {"group": "", "kind": "Service", "name": "web", "namespace": NS}


def route(kind="HTTPRoute", name="r", parent=None, backends=(), **metadata):
    spec = {"parentRefs": [parent or SERVICE], "rules": [{"backendRefs": list(backends)}]}
    return parsed(kind, name, spec, group="gateway.networking.k8s.io", **metadata)


def reasons(index, of) -> dict[str, str]:
    (parent,) = route_status(index, of, NOW)["parents"]
    return {c["type"]: c["reason"] for c in parent["conditions"]}


@pytest.mark.parametrize(
    ("present", "parent", "reason"),
    [
        ([web_service()], SERVICE, "Accepted"),
        ([], SERVICE, "NoMatchingParent"),
        ([web_service()], SERVICE | {"port": 81}, "NoMatchingParent"),
        ([parsed("Server", "web", {"podSelector": {}, "port": 1})], server_ref(), "Accepted"),
        ([], server_ref(), "NoMatchingParent"),
    ],
)
def test_a_route_is_accepted_by_a_parent_that_exists(present, parent, reason):
    made = route(parent=parent)
    assert reasons(index_of(made, *present), made)["Accepted"] == reason


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ({"name": "web", "port": 80}, "ResolvedRefs"),
        ({"name": "nowhere", "port": 80}, "BackendNotFound"),
        ({"name": "x", "kind": "Bucket", "group": "x.y"}, "InvalidKind"),
    ],
)
def test_backends_must_exist_and_be_services(backend, reason):
    made = route(backends=[backend])
    assert reasons(index_of(made, web_service()), made)["ResolvedRefs"] == reason


def test_of_two_kinds_on_one_parent_the_weaker_is_in_conflict():
    http, grpc = route(), route("GRPCRoute", "g")
    index = index_of(http, grpc, web_service())
    assert reasons(index, http)["Accepted"] == "RouteReasonConflicted"
    assert reasons(index, grpc)["Accepted"] == "Accepted"


def test_what_others_wrote_stays_and_an_unchanged_condition_keeps_its_time():
    theirs = {"controllerName": "other", "parentRef": {"name": "gateway"}, "conditions": []}
    made = route()
    index = index_of(made, web_service())
    first = route_status(index, made, "2026-01-01T00:00:00Z")
    again = replace(made, reported=Reported(2, {"parents": [theirs, *first["parents"]]}))
    status = route_status(index, again, NOW)
    assert [p["controllerName"] for p in status["parents"]] == ["other", CONTROLLER]
    (accepted, _) = status["parents"][1]["conditions"]
    assert (accepted["lastTransitionTime"], accepted["observedGeneration"]) == ("2026-01-01T00:00:00Z", 2)


def limit(name: str, created: str):
    spec = {"targetRef": server_ref(), "total": {"requestsPerSecond": 1}}
    return parsed("HTTPLocalRateLimitPolicy", name, spec, creationTimestamp=created)


def test_one_rate_limit_per_server():
    server = parsed("Server", "web", {"podSelector": {}, "port": 1})
    old, young = limit("b", "2025"), limit("a", "2026")

    def reason(of, *present):
        return rate_limit_status(index_of(old, young, *present), of, NOW)["conditions"][0]["reason"]

    assert reason(old, server) == "Accepted"
    assert reason(young, server) == "RateLimitReasonAlreadyExists"
    assert reason(old) == "NoMatchingTarget"


@pytest.mark.parametrize(
    ("networks", "reason"),
    [
        ([], "Accepted"),
        ([{"cidr": "8.8.8.0/24"}], "Accepted"),
        ([{"cidr": "10.1.0.0/16"}], "EgressReasonNetworkOverlap"),
        ([{"cidr": "0.0.0.0/0"}], "EgressReasonNetworkOverlap"),
        ([{"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}], "Accepted"),
    ],
)
def test_an_egress_network_lies_outside_of_the_cluster(networks, reason):
    network = parsed("EgressNetwork", "out", {"trafficPolicy": "Allow", "networks": networks})
    assert egress_network_status(index_of(network), network, NOW)["conditions"][0]["reason"] == reason


def test_a_route_that_left_our_parents_loses_what_we_said_of_them():
    made = route(parent={"kind": "Gateway", "name": "edge"})
    ours = {"controllerName": CONTROLLER, "parentRef": SERVICE, "conditions": []}
    left = replace(made, reported=Reported(2, {"parents": [ours]}))
    ((_, _, wanted),) = all_statuses(index_of(left), NOW)
    assert wanted == {"parents": []}
    assert list(all_statuses(index_of(made), NOW)) == []
