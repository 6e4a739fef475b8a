"""Who may come to a pod's port."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linkerd.core.networks import contains
from linkerd.core.workloads import Namespace, parse_external_workload
from linkerd.policy.inbound import WorkloadRef, inbound_policy
from linkerd.policy.translate.inbound import server_message
from linkerd.policy.values import AnyTls, Identities, Unauthenticated
from support.policy_objects import NS, TRUST, index_of, parsed, server_ref, web_pod

PODS = {"podSelector": {"matchLabels": {"app": "web"}}}
ANY = Identities(suffixes=((),))
POLICY = "config.linkerd.io/default-inbound-policy"
REQUIRE = "config.linkerd.io/proxy-require-identity-inbound-ports"
OPAQUE = "config.linkerd.io/opaque-ports"


def server(name: str = "web", **spec):
    created = spec.pop("created", "2026")
    return parsed("Server", name, {**PODS, "port": 8080, **spec}, creationTimestamp=created)


def policy_of(*values, port: int = 8080, pod=None, **options):
    pod = pod or web_pod()
    return inbound_policy(index_of(pod, *values, **options), WorkloadRef("pod", *pod.key), port)[0]


def test_an_unknown_pod_has_none():
    assert inbound_policy(index_of(), WorkloadRef("pod", NS, "web-1"), 80)[0] is None


@pytest.mark.parametrize(
    ("default", "name", "from_outside", "authentication"),
    [
        ("all-unauthenticated", "all-unauthenticated", True, Unauthenticated()),
        ("all-authenticated", "all-authenticated", True, ANY),
        ("cluster-unauthenticated", "cluster-unauthenticated", False, Unauthenticated()),
        ("cluster-authenticated", "cluster-authenticated", False, ANY),
        ("audit", "audit", True, Unauthenticated()),
    ],
)
def test_the_default_policies(default, name, from_outside, authentication):
    found = policy_of(default_policy=default)
    (authorization,) = found.authorizations
    assert (found.meta.name, authorization.authentication) == (name, authentication)
    assert contains(authorization.networks, ip_address("8.8.8.8")) == from_outside
    assert contains(authorization.networks, ip_address("10.1.2.3"))


def test_deny_lets_nobody_in():
    assert policy_of(default_policy="deny").authorizations == ()


@pytest.mark.parametrize(
    ("pod", "namespace", "name"),
    [
        ({}, {}, "all-unauthenticated"),
        ({}, {POLICY: "deny"}, "deny"),
        ({POLICY: "all-authenticated"}, {POLICY: "deny"}, "all-authenticated"),
        ({POLICY: "nonsense"}, {}, "all-unauthenticated"),
        ({REQUIRE: "8080"}, {}, "all-authenticated"),
        ({REQUIRE: "9090"}, {}, "all-unauthenticated"),
        ({REQUIRE: "http", POLICY: "cluster-unauthenticated"}, {}, "cluster-authenticated"),
    ],
)
def test_annotations_choose_the_default(pod, namespace, name):
    assert policy_of(Namespace(NS, namespace), pod=web_pod(annotations=pod)).meta.name == name


def test_an_annotated_port_is_opaque_but_the_clusters_list_is_not_applied_here():
    assert policy_of(pod=web_pod(annotations={OPAQUE: "8080"})).protocol == "opaque"
    assert policy_of(port=3306).protocol == "unknown"


def test_a_server_applies_by_number_or_name_to_the_pods_it_selects():
    assert policy_of(server()).meta.name == "web"
    assert policy_of(server(port="http")).meta.name == "web"
    assert policy_of(server(port=9090)).meta.kind == "default"
    assert policy_of(server(podSelector={"matchLabels": {"app": "other"}})).meta.kind == "default"


def test_of_several_servers_the_oldest_is_in_force_then_the_first_by_name():
    assert policy_of(server("b", created="2025"), server("a")).meta.name == "b"
    assert policy_of(server("b"), server("a")).meta.name == "a"


def test_a_server_lets_nobody_in_by_itself_unless_its_access_policy_does():
    assert policy_of(server()).authorizations == ()
    (authorization,) = policy_of(server(accessPolicy="all-unauthenticated")).authorizations
    assert (authorization.meta.kind, authorization.meta.name) == ("default", "all-unauthenticated")


@pytest.mark.parametrize(
    ("client", "authentication"),
    [
        ({"unauthenticated": True}, Unauthenticated()),
        ({"meshTLS": {"unauthenticatedTLS": True}}, AnyTls()),
        ({"meshTLS": {"identities": ["*"]}}, ANY),
        ({"meshTLS": {"identities": ["*.x.y", "a.b"]}}, Identities(("a.b",), (("x", "y"),))),
        (
            {"meshTLS": {"serviceAccounts": [{"name": "cli"}, {"name": "cli", "namespace": "other"}]}},
            Identities(
                (
                    "cli.shop.serviceaccount.identity.linkerd.cluster.local",
                    "cli.other.serviceaccount.identity.linkerd.cluster.local",
                )
            ),
        ),
    ],
)
def test_server_authorizations_name_their_clients(client, authentication):
    spec = {"server": {"name": "web"}, "client": client}
    (found,) = policy_of(server(), parsed("ServerAuthorization", "friends", spec)).authorizations
    assert found.authentication == authentication
    assert contains(found.networks, ip_address("10.1.1.1"))
    assert not contains(found.networks, ip_address("8.8.8.8"))


def test_a_server_authorization_selects_servers_by_label():
    spec = {"server": {"selector": {"matchLabels": {"x": "y"}}}, "client": {"unauthenticated": True}}
    labelled = parsed("Server", "web", {**PODS, "port": 8080}, labels={"x": "y"})
    assert policy_of(labelled, parsed("ServerAuthorization", "a", spec)).authorizations
    assert not policy_of(server(), parsed("ServerAuthorization", "a", spec)).authorizations


MESH = {"group": "policy.linkerd.io", "kind": "MeshTLSAuthentication", "name": "friends"}
NET = {"group": "policy.linkerd.io", "kind": "NetworkAuthentication", "name": "office"}
AUTHENTICATIONS = [
    parsed("MeshTLSAuthentication", "friends", {"identities": ["a.b"]}),
    parsed("NetworkAuthentication", "office", {"networks": [{"cidr": "10.1.0.0/16", "except": ["10.1.9.0/24"]}]}),
]


def authorization_policy(target, *refs):
    return parsed("AuthorizationPolicy", "p", {"targetRef": target, "requiredAuthenticationRefs": list(refs)})


@pytest.mark.parametrize(
    ("refs", "authentication", "inside", "outside"),
    [
        ([], Unauthenticated(), "8.8.8.8", None),
        ([MESH], Identities(("a.b",)), "8.8.8.8", None),
        ([NET], Unauthenticated(), "10.1.2.3", "10.1.9.1"),
        ([MESH, NET], Identities(("a.b",)), "10.1.2.3", "10.2.0.1"),
    ],
)
def test_authorization_policies_require_all_they_refer_to(refs, authentication, inside, outside):
    (found,) = policy_of(server(), *AUTHENTICATIONS, authorization_policy(server_ref(), *refs)).authorizations
    assert found.authentication == authentication
    assert contains(found.networks, ip_address(inside))
    assert outside is None or not contains(found.networks, ip_address(outside))


def test_a_missing_reference_lets_nobody_in():
    assert policy_of(server(), authorization_policy(server_ref(), MESH)).authorizations == ()


def test_a_policy_for_the_namespace_applies_to_servers_but_not_to_defaults():
    policy = authorization_policy({"kind": "Namespace", "name": NS})
    assert policy_of(server(), policy).authorizations[0].meta.kind == "authorizationpolicy"
    assert policy_of(policy).authorizations[0].meta.kind == "default"


def test_identities_of_a_namespace_are_a_suffix():
    found = parsed("MeshTLSAuthentication", "n", {"identityRefs": [{"kind": "Namespace", "name": "x"}]})
    assert found.identities.suffixes == (("x", "serviceaccount", "identity", "linkerd", "cluster", "local"),)


PROBED = web_pod(probes=((8080, "/health"), (8080, "/ready"), (9090, "/other")))


def test_probes_stay_reachable_on_ports_without_routes():
    default, probe = policy_of(server(), pod=PROBED).http_routes
    assert default.meta.name == "default"
    assert [m.path.value for m in probe.rules[0].matches] == ["/health", "/ready"]
    assert contains(probe.authorizations[0].networks, ip_address("192.168.1.1"))
    assert not contains(probe.authorizations[0].networks, ip_address("8.8.8.8"))


def http_route(name="r", **spec):
    matches = [{"path": {"type": "Exact", "value": "/x"}, "method": "GET"}]
    return parsed("HTTPRoute", name, {"parentRefs": [server_ref()], "rules": [{"matches": matches}], **spec})


def test_routes_replace_the_default_route_and_have_authorizations_of_their_own():
    target = {"group": "policy.linkerd.io", "kind": "HTTPRoute", "name": "r"}
    (route,) = policy_of(server(), http_route(), authorization_policy(target), pod=PROBED).http_routes
    assert (route.meta.name, len(route.authorizations)) == ("r", 1)


def test_a_route_of_another_namespace_does_not_attach():
    ref = server_ref() | {"namespace": NS}
    elsewhere = parsed("HTTPRoute", "r", {"parentRefs": [ref], "rules": []}, namespace="elsewhere")
    assert policy_of(server(), elsewhere).http_routes[0].meta.name == "default"


def test_the_oldest_rate_limit_is_in_force():
    def limit(name, rate, created):
        return parsed(
            "HTTPLocalRateLimitPolicy",
            name,
            {"targetRef": server_ref(), "total": {"requestsPerSecond": rate}},
            creationTimestamp=created,
        )

    limits = limit("a", 10, "2026"), limit("b", 20, "2025")
    message = server_message(policy_of(server(), *limits), TRUST)
    assert message.protocol.detect.http_local_rate_limit.total.requestsPerSecond == 20
    message = server_message(policy_of(server(proxyProtocol="gRPC"), *limits), TRUST)
    assert message.protocol.grpc.local_rate_limit.total.requestsPerSecond == 20


def test_changes_of_the_response_are_no_filter():
    filters = [
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["server"]}},
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}},
    ]
    route = parsed("HTTPRoute", "r", {"parentRefs": [server_ref()], "rules": [{"filters": filters}]})
    (rule,) = server_message(policy_of(server(), route), TRUST).protocol.detect.http_routes[0].rules
    assert list(rule.response_header_modifier.remove) == ["server"]
    assert [f.WhichOneof("kind") for f in rule.filters] == ["request_header_modifier"]


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        ("unknown", "detect"),
        ("HTTP/1", "http1"),
        ("HTTP/2", "http2"),
        ("gRPC", "grpc"),
        ("opaque", "opaque"),
        ("TLS", "tls"),
    ],
)
def test_each_protocol_has_its_message(protocol, kind):
    message = server_message(policy_of(server(proxyProtocol=protocol)), TRUST)
    assert message.protocol.WhichOneof("kind") == kind
    assert dict(message.labels) == {"group": "policy.linkerd.io", "kind": "server", "name": "web"}


def test_what_a_proxy_cannot_do_without_is_always_there():
    """A proxy takes a policy without networks or authentication for a broken one and answers 500."""
    spec = {"server": {"name": "web"}, "client": {"meshTLS": {"identities": ["a.b"]}}}
    values = [server(accessPolicy="audit"), parsed("ServerAuthorization", "a", spec), *AUTHENTICATIONS]
    message = server_message(policy_of(*values, authorization_policy(server_ref(), MESH, NET), pod=PROBED), TRUST)
    authorizations = [*message.authorizations, *message.protocol.detect.http_routes[1].authorizations]
    assert len(authorizations) == 4
    for authz in authorizations:
        assert authz.networks
        assert authz.authentication.WhichOneof("permit")
        assert authz.metadata.WhichOneof("kind")


MACHINE = parse_external_workload(
    {
        "metadata": {"namespace": NS, "name": "vm", "labels": {"app": "web"}},
        "spec": {
            "meshTLS": {"identity": "spiffe://mesh/vm", "serverName": "vm.mesh"},
            "workloadIPs": [{"ip": "192.0.2.7"}],
            "ports": [{"name": "http", "port": 8080}],
        },
    }
)


def test_an_external_workload_has_the_servers_that_select_such():
    def named(*values):
        return inbound_policy(index_of(MACHINE, *values), WorkloadRef("external", NS, "vm"), 8080)[0].meta.name

    for_machines = parsed(
        "Server", "vms", {"externalWorkloadSelector": {"matchLabels": {"app": "web"}}, "port": "http"}
    )
    assert named() == "all-unauthenticated"
    assert named(server()) == "all-unauthenticated"
    assert named(for_machines) == "vms"
    assert policy_of(for_machines).meta.kind == "default"


def test_an_unknown_external_workload_has_none_until_it_comes():
    index, ref = index_of(), WorkloadRef("external", NS, "vm")
    policy, sources = inbound_policy(index, ref, 8080)
    assert policy is None
    assert index.apply(MACHINE) & sources


ROUTE = {"group": "policy.linkerd.io", "kind": "HTTPRoute", "name": "r"}
EVERYTHING = [
    web_pod(),
    server(),
    server("older", created="2025", accessPolicy="audit"),
    authorization_policy(server_ref("older"), MESH),
    *AUTHENTICATIONS,
    http_route(),
    Namespace(NS, {POLICY: "deny"}),
    parsed("ServerAuthorization", "friends", {"server": {"name": "older"}, "client": {"unauthenticated": True}}),
    parsed("HTTPLocalRateLimitPolicy", "limit", {"targetRef": server_ref("older"), "total": {"requestsPerSecond": 9}}),
    parsed("AuthorizationPolicy", "for-r", {"targetRef": ROUTE, "requiredAuthenticationRefs": [NET]}),
]


@settings(max_examples=60, deadline=None)
@given(st.permutations(EVERYTHING), st.integers(0, len(EVERYTHING)))
def test_order_does_not_matter_and_each_change_touches_a_source(order, kept):
    index = index_of(*order[:kept])
    for value in order[kept:]:
        before, sources = inbound_policy(index, WorkloadRef("pod", NS, "web-1"), 8080)
        touched = index.apply(value)
        assert inbound_policy(index, WorkloadRef("pod", NS, "web-1"), 8080)[0] == before or touched & sources
    assert inbound_policy(index, WorkloadRef("pod", NS, "web-1"), 8080)[0] == policy_of(*EVERYTHING)
