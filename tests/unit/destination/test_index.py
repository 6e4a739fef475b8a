"""From the cluster's objects to endpoints and profiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linkerd.core.authorities import AddressAuthority, ServiceAuthority, parse_authority
from linkerd.core.labels import CONTROL_PLANE_NS, OPAQUE_PORTS, SKIP_INBOUND_PORTS, parse_selector
from linkerd.core.ports import parse_port_set
from linkerd.core.services import EndpointSlice, Service, ServicePort, SliceEndpoint
from linkerd.core.workloads import ContainerPort, ExternalWorkload, Namespace, Node, Pod, parse_external_workload
from linkerd.destination.index import (
    Ambiguous,
    EndpointProfile,
    Index,
    LogicalProfile,
    ServerPort,
    Settings,
    UndeclaredPort,
)
from linkerd.destination.profiles import Override, Path, Route, ServiceProfile, TrafficSplit

WEB = ServiceAuthority("shop", "web", 80)
SERVICE = Service("shop", "web", "2026", cluster_ips=("10.96.0.5",), ports=(ServicePort(80, "http", target=8080),))


def pod(number: int = 1, **changes) -> Pod:
    base = Pod(
        "shop",
        f"web-{number}",
        ips=(f"10.1.0.{number}",),
        node="node-1",
        service_account="web",
        owner_kind="deployment",
        owner_name="web",
        labels={CONTROL_PLANE_NS: "linkerd", "app": "web"},
        ports=(ContainerPort(8080, "http"),),
        ready=True,
    )
    return replace(base, **changes)


def slice_of(*pods: Pod, **changes) -> EndpointSlice:
    endpoints = tuple(SliceEndpoint(p.ips, node=p.node, target_kind="Pod", target=p.key) for p in pods)
    return replace(EndpointSlice("shop", "web-1", "web", ports=(("http", 8080),), endpoints=endpoints), **changes)


def index_of(*values, **options) -> Index:
    index = Index(Settings(opaque_ports=parse_port_set("3306"), **options))
    for value in values:
        index.apply(value)
    return index


def addresses(index: Index, authority: ServiceAuthority = WEB, zone: str = "", node: str = "") -> list[str]:
    table, _ = index.table(authority)
    return sorted(f"{ip}:{port}" for ip, port in table.view(zone, node))


def endpoint(index: Index):
    table, _ = index.table(WEB)
    return table.candidates[0].endpoint


def test_a_ready_pod_in_a_slice_is_an_endpoint_on_the_target_port():
    assert addresses(index_of(SERVICE, pod(), slice_of(pod()))) == ["10.1.0.1:8080"]


@pytest.mark.parametrize("changes", [{"ready": False}, {"terminating": True}, {"finished": True}])
def test_a_pod_that_takes_no_traffic_is_none_whatever_its_slice_says(changes):
    assert addresses(index_of(SERVICE, pod(**changes), slice_of(pod()))) == []


def test_a_pod_that_was_not_seen_yet_is_none():
    assert addresses(index_of(SERVICE, slice_of(pod()))) == []


def test_a_deleted_pod_leaves_before_its_slice_says_so():
    index = index_of(SERVICE, pod(), slice_of(pod()))
    assert ("service", "shop", "web") in index.remove(pod())
    assert addresses(index) == []


def test_pods_that_are_not_ready_count_where_the_service_publishes_them():
    service = replace(SERVICE, publish_not_ready=True)
    assert addresses(index_of(service, pod(ready=False), slice_of(pod()))) == ["10.1.0.1:8080"]


def test_an_endpoint_without_pod_counts_if_it_is_ready():
    outside = EndpointSlice("shop", "x", "web", ports=(("http", 9000),), endpoints=(SliceEndpoint(("192.0.2.1",)),))
    assert addresses(index_of(SERVICE, outside)) == ["192.0.2.1:9000"]


def test_a_port_that_the_service_does_not_declare_is_the_pods_own():
    assert addresses(index_of(SERVICE, pod(), slice_of(pod())), replace(WEB, port=9090)) == ["10.1.0.1:9090"]


def test_a_hostname_names_one_pod():
    endpoints = (
        SliceEndpoint(("10.1.0.1",), hostname="web-0", target_kind="Pod", target=("shop", "web-1")),
        SliceEndpoint(("10.1.0.2",), hostname="web-1", target_kind="Pod", target=("shop", "web-2")),
    )
    index = index_of(SERVICE, pod(1), pod(2), slice_of(endpoints=endpoints))
    assert addresses(index, replace(WEB, hostname="web-1")) == ["10.1.0.2:8080"]


def test_a_meshed_pod_has_an_identity_and_takes_http2():
    found = endpoint(index_of(SERVICE, pod(), slice_of(pod())))
    assert found.identity == "web.shop.serviceaccount.identity.linkerd.cluster.local"
    assert (found.meshed, found.h2, found.opaque, found.inbound_port) == (True, True, False, 4143)
    assert found.labels["deployment"] == "web"


def test_an_unmeshed_pod_has_neither():
    plain = pod(labels={"app": "web"})
    found = endpoint(index_of(SERVICE, plain, slice_of(plain)))
    assert (found.identity, found.meshed, found.h2, found.inbound_port) == ("", False, False, 0)


def test_a_pod_of_another_control_plane_is_meshed_without_an_identity_of_ours():
    other = pod(labels={CONTROL_PLANE_NS: "elsewhere"})
    found = endpoint(index_of(SERVICE, other, slice_of(other)))
    assert (found.identity, found.meshed) == ("", True)


def test_a_port_that_skips_the_proxy_is_plain():
    skipping = pod(annotations={SKIP_INBOUND_PORTS: "8080"})
    assert not endpoint(index_of(SERVICE, skipping, slice_of(skipping))).meshed


@pytest.mark.parametrize(
    ("annotations", "namespace", "server", "opaque"),
    [
        ({}, {}, None, False),
        ({OPAQUE_PORTS: "8080"}, {}, None, True),
        ({OPAQUE_PORTS: "http"}, {}, None, True),
        ({OPAQUE_PORTS: "9000"}, {OPAQUE_PORTS: "8080"}, None, False),
        ({}, {OPAQUE_PORTS: "8000-8100"}, None, True),
        ({}, {}, ServerPort("shop", "s", parse_selector({"matchLabels": {"app": "web"}}), 8080), True),
        ({}, {}, ServerPort("shop", "s", parse_selector({"matchLabels": {"app": "web"}}), "http"), True),
        ({}, {}, ServerPort("shop", "s", parse_selector({"matchLabels": {"app": "other"}}), 8080), False),
        ({}, {}, ServerPort("shop", "s", parse_selector({}), 8080, opaque=False), False),
    ],
)
def test_opaque_by_pod_else_namespace_else_cluster_or_by_server(annotations, namespace, server, opaque):
    marked = pod(annotations=annotations)
    values = [SERVICE, marked, slice_of(marked), Namespace("shop", namespace)] + ([server] if server else [])
    found = endpoint(index_of(*values))
    assert (found.opaque, found.h2) == (opaque, not opaque)


def test_hints_keep_traffic_in_the_zone_unless_an_endpoint_has_none():
    def hinted(number: int, *zones: str) -> SliceEndpoint:
        return SliceEndpoint((f"10.1.0.{number}",), zones=zones, target_kind="Pod", target=("shop", f"web-{number}"))

    both = slice_of(endpoints=(hinted(1, "a"), hinted(2, "b")))
    index = index_of(SERVICE, pod(1), pod(2), both)
    assert addresses(index, zone="a") == ["10.1.0.1:8080"]
    assert addresses(index, zone="c") == ["10.1.0.1:8080", "10.1.0.2:8080"]
    index.apply(slice_of(endpoints=(hinted(1, "a"), hinted(2))))
    assert addresses(index, zone="a") == ["10.1.0.1:8080", "10.1.0.2:8080"]


def test_internal_traffic_policy_local_keeps_traffic_on_the_node():
    here, there = pod(1), pod(2, node="node-2")
    index = index_of(replace(SERVICE, local_only=True), here, there, slice_of(here, there))
    assert addresses(index, node="node-1") == ["10.1.0.1:8080"]
    assert addresses(index, node="node-3") == []


def test_ipv6_slices_count_only_where_ipv6_is_on():
    six = EndpointSlice("shop", "six", "web", "IPv6", (("http", 8080),), (SliceEndpoint(("fd00::1",), target_kind=""),))
    assert addresses(index_of(SERVICE, six)) == []
    assert addresses(index_of(SERVICE, six, ipv6=True)) == ["fd00::1:8080"]


def profile_of(index: Index, target: str, client: str = "client"):
    return index.profile(parse_authority(target, "cluster.local"), client)[0]


def test_a_cluster_ip_is_its_service():
    assert profile_of(index_of(SERVICE), "10.96.0.5:80") == LogicalProfile("shop", "web", 80)


def test_a_port_that_a_cluster_ip_does_not_have_is_said_so():
    assert isinstance(profile_of(index_of(SERVICE), "10.96.0.5:81"), UndeclaredPort)


def test_two_services_with_one_address_are_ambiguous():
    with pytest.raises(Ambiguous, match="shop/other, shop/web"):
        profile_of(index_of(SERVICE, replace(SERVICE, name="other")), "10.96.0.5:80")


def test_a_pods_address_is_that_pod():
    found = profile_of(index_of(pod()), "10.1.0.1:8080")
    assert isinstance(found, EndpointProfile)
    assert (found.namespace, found.endpoint.pod) == ("shop", ("shop", "web-1"))


def test_an_address_that_was_handed_on_is_the_pod_that_lives():
    old, new = pod(1, terminating=True), pod(2, ips=("10.1.0.1",))
    found = profile_of(index_of(old, new), "10.1.0.1:8080")
    assert found.endpoint.pod == ("shop", "web-2")


def test_a_host_port_is_the_pod_behind_it():
    hosted = pod(host_ip="192.168.0.1", ports=(ContainerPort(8080, "http", host_port=18080),))
    found = profile_of(index_of(hosted), "192.168.0.1:18080")
    assert found.endpoint.address == ("10.1.0.1", 8080)


def test_an_unknown_address_is_passed_on_as_it_is():
    found = profile_of(index_of(), "198.51.100.1:443")
    assert isinstance(found, EndpointProfile)
    assert (found.endpoint.address, found.endpoint.meshed) == (("198.51.100.1", 443), False)


FQN = "web.shop.svc.cluster.local"


def route(name: str) -> tuple[Route, ...]:
    return (Route(name, Path("/")),)


def test_the_clients_own_profile_comes_before_the_services():
    theirs, own = ServiceProfile("shop", FQN, route("theirs")), ServiceProfile("client", FQN, route("own"))
    index = index_of(SERVICE, theirs, own)
    assert profile_of(index, f"{FQN}:80", "client").profile == own
    assert profile_of(index, f"{FQN}:80", "third").profile == theirs
    index.remove(own)
    assert profile_of(index, f"{FQN}:80", "client").profile == theirs


def test_the_oldest_split_overrides_unless_a_profile_does():
    old = TrafficSplit("shop", "b", "2025", "web", (("stable", 900), ("canary", 100)))
    young = TrafficSplit("shop", "a", "2026", "web", (("other", 1000),))
    index = index_of(SERVICE, young, old)
    expected = (
        Override("stable.shop.svc.cluster.local:80", 900),
        Override("canary.shop.svc.cluster.local:80", 100),
    )
    assert profile_of(index, f"{FQN}:80").overrides == expected
    index.apply(ServiceProfile("shop", FQN, overrides=(Override("x", 1000),)))
    assert profile_of(index, f"{FQN}:80").overrides == (Override("x", 1000),)


def test_a_service_is_opaque_by_its_own_annotation():
    index = index_of(replace(SERVICE, annotations={OPAQUE_PORTS: "80"}))
    assert profile_of(index, f"{FQN}:80").opaque


MACHINE = ExternalWorkload(
    "shop",
    "vm",
    ips=("192.0.2.7",),
    identity="spiffe://mesh/vm",
    server_name="vm.mesh",
    labels={"app": "web"},
    ports=(ContainerPort(9000, "http"), ContainerPort(5143, "linkerd-proxy")),
    ready=True,
)
SELECTING = replace(SERVICE, selector=(("app", "web"),), ports=(ServicePort(80, "http", target="http"),))


def test_an_external_workload_is_an_endpoint_of_the_services_that_select_it():
    found = endpoint(index_of(SELECTING, MACHINE))
    assert (found.address, found.identity, found.server_name) == (("192.0.2.7", 9000), "spiffe://mesh/vm", "vm.mesh")
    assert (found.meshed, found.h2, found.inbound_port) == (True, True, 5143)
    assert found.labels == {"external_workload": "vm"}


@pytest.mark.parametrize(
    ("service", "machine"),
    [
        (SELECTING, replace(MACHINE, ready=False)),
        (SELECTING, replace(MACHINE, labels={"app": "other"})),
        (SELECTING, replace(MACHINE, namespace="elsewhere")),
        (SELECTING, replace(MACHINE, ports=())),
        (SERVICE, MACHINE),
    ],
)
def test_an_external_workload_that_is_not_ready_or_not_selected_is_none(service, machine):
    assert addresses(index_of(service, machine)) == []


def test_slices_of_external_workloads_add_nothing_to_what_they_say_themselves():
    listed = SliceEndpoint(("192.0.2.7",), target_kind="ExternalWorkload", target=("shop", "vm"))
    index = index_of(SELECTING, MACHINE, slice_of(endpoints=(listed,)))
    assert addresses(index) == ["192.0.2.7:9000"]
    index.remove(MACHINE)
    assert addresses(index) == []


def test_the_address_of_an_external_workload_is_that_workload():
    found = profile_of(index_of(MACHINE), "192.0.2.7:9000")
    assert (found.namespace, found.endpoint.identity) == ("shop", "spiffe://mesh/vm")


def test_a_server_for_external_workloads_says_that_theirs_is_opaque_and_not_the_pods():
    server = ServerPort("shop", "s", parse_selector({}), 9000, external=True)
    marked = pod(ports=(ContainerPort(9000, "http"),))
    assert endpoint(index_of(SELECTING, MACHINE, server)).opaque
    assert not endpoint(index_of(SERVICE, marked, slice_of(marked, ports=(("http", 9000),)), server)).opaque


def test_both_forms_of_external_workloads_are_read():
    tls = {"identity": "a.b", "serverName": "a.b"}
    old, new = (
        parse_external_workload({"metadata": {"namespace": "n", "name": "vm"}, "spec": {name: tls}})
        for name in ("meshTls", "meshTLS")
    )
    assert old == new
    assert old.identity == "a.b"


EVERYTHING = [
    SELECTING,
    MACHINE,
    replace(SERVICE, name="other", cluster_ips=("10.96.0.6",)),
    *(pod(number) for number in range(1, 5)),
    slice_of(pod(1), pod(2)),
    slice_of(pod(2), pod(3), name="web-2"),
    slice_of(pod(4), name="other-1", service="other"),
    Node("node-1", "a"),
    Namespace("shop", {OPAQUE_PORTS: "8080"}),
    ServiceProfile("shop", FQN, route("x")),
    TrafficSplit("shop", "s", "2026", "web", (("other", 1000),)),
]


def answers(index: Index):
    targets = ["10.96.0.5:80", "10.96.0.6:80", "192.0.2.7:9000", "10.1.0.1:8080", "10.1.0.4:8080", f"{FQN}:80"]
    tables = [sorted(index.table(ServiceAuthority("shop", n, 80))[0].view("a", "node-1")) for n in ("web", "other")]
    return tables, [profile_of(index, target) for target in targets]


@settings(max_examples=60, deadline=None)
@given(st.permutations(EVERYTHING), st.lists(st.sampled_from(EVERYTHING), max_size=8))
def test_the_order_of_events_does_not_change_the_answers(order, gone):
    """Nor does it matter that things were there, went away and came back."""
    index = index_of(*order)
    for value in gone:
        index.remove(value)
    for value in gone:
        index.apply(value)
    assert answers(index) == answers(index_of(*EVERYTHING))


@settings(max_examples=60, deadline=None)
@given(st.permutations(EVERYTHING), st.integers(1, len(EVERYTHING)))
def test_whatever_changes_an_answer_touches_one_of_its_sources(order, kept):
    index = index_of(*order[:kept])
    for value in order[kept:]:
        before = {target: index.profile(target, "") for target in TARGETS}, index.table(WEB)
        touched = index.apply(value)
        for target, (profile, sources) in before[0].items():
            assert index.profile(target, "")[0] == profile or touched & sources
        assert index.table(WEB)[0] == before[1][0] or touched & before[1][1]


TARGETS = [
    AddressAuthority(parse_authority("10.96.0.5:80", "x").ip, 80),
    AddressAuthority(parse_authority("10.1.0.4:8080", "x").ip, 8080),
    AddressAuthority(parse_authority("192.0.2.7:9000", "x").ip, 9000),
    ServiceAuthority("shop", "web", 80),
]
