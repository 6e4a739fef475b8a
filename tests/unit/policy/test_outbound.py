"""How a client's traffic is to be treated."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linkerd.core.authorities import parse_authority
from linkerd.core.services import ServicePort
from linkerd.core.workloads import Namespace
from linkerd.policy.outbound import outbound_policy
from linkerd.policy.translate.outbound import Translator
from support.policy_objects import NS, index_of, parsed, web_service

TRANSLATOR = Translator("cluster.local")
WEB = "10.96.0.5:80"


def policy_of(*values, target: str = WEB, client: str = "client", **options):
    return outbound_policy(index_of(*values, **options), parse_authority(target, "cluster.local"), client)[0]


def message_of(*values, **options):
    return TRANSLATOR.policy_message(policy_of(*values, **options))


def http(message):
    return message.protocol.detect.http1


def route(kind="HTTPRoute", name="r", group="gateway.networking.k8s.io", **spec):
    metadata = {key: spec.pop(key) for key in ("namespace", "annotations", "creationTimestamp") if key in spec}
    parent = {"group": "", "kind": "Service", "name": "web", "namespace": NS}
    return parsed(kind, name, {"parentRefs": [parent], "rules": [{}], **spec}, group=group, **metadata)


def test_a_service_is_detected_and_balanced():
    message = message_of(web_service())
    assert message.metadata.resource.kind == "Service"
    (found,) = http(message).routes
    assert found.metadata.default == "http"
    (backend,) = found.rules[0].backends.first_available.backends
    assert backend.backend.balancer.discovery.dst.path == "web.shop.svc.cluster.local:80"
    assert backend.backend.balancer.peak_ewma.decay.seconds == 10


def test_a_name_is_its_service_too():
    assert policy_of(web_service(), target="web.shop.svc.cluster.local:80") == policy_of(web_service())


@pytest.mark.parametrize(
    ("port", "annotations", "namespace", "kind"),
    [
        (ServicePort(80), {}, {}, "detect"),
        (ServicePort(80, app_protocol="http"), {}, {}, "http1"),
        (ServicePort(80, app_protocol="kubernetes.io/h2c"), {}, {}, "http2"),
        (ServicePort(80, app_protocol="linkerd.io/opaque"), {}, {}, "opaque"),
        (ServicePort(80, app_protocol="redis"), {}, {}, "opaque"),
        (ServicePort(80), {"config.linkerd.io/opaque-ports": "80"}, {}, "opaque"),
        (ServicePort(80), {}, {"config.linkerd.io/opaque-ports": "80"}, "opaque"),
        (ServicePort(80, app_protocol="http"), {"config.linkerd.io/opaque-ports": "80"}, {}, "http1"),
    ],
)
def test_the_protocol_comes_from_the_port_then_from_opaque_ports(port, annotations, namespace, kind):
    values = [web_service(ports=(port,), annotations=annotations), Namespace(NS, namespace)]
    assert message_of(*values).protocol.WhichOneof("kind") == kind


def test_the_clusters_opaque_ports_count():
    assert message_of(web_service(), target="10.96.0.5:3306").protocol.WhichOneof("kind") == "opaque"


def test_an_undeclared_port_is_forbidden():
    message = message_of(web_service(), target="10.96.0.5:81")
    assert (message.metadata.resource.name, message.metadata.resource.port) == ("web", 81)
    (found,) = message.protocol.opaque.routes
    assert found.metadata.default == "undefined-port"
    assert found.rules[0].filters[0].HasField("forbidden")
    assert found.rules[0].backends.HasField("empty")


def test_a_pods_address_has_no_policy():
    assert policy_of(web_service(), target="10.1.2.3:80") is None


def test_the_world_outside_is_passed_on():
    message = message_of(target="93.184.216.34:443")
    assert message.metadata.default == "egress-fallback"
    (backend,) = http(message).routes[0].rules[0].backends.first_available.backends
    assert backend.backend.forward.addr.port == 443


def test_annotations_of_the_service_apply_to_the_default_route():
    service = web_service(
        annotations={
            "retry.linkerd.io/http": "5xx,429,gateway-error",
            "retry.linkerd.io/limit": "3",
            "retry.linkerd.io/timeout": "200ms",
            "timeout.linkerd.io/request": "2s",
            "timeout.linkerd.io/idle": "1m",
            "balancer.linkerd.io/failure-accrual": "consecutive",
            "balancer.linkerd.io/failure-accrual-consecutive-max-failures": "3",
            "balancer.linkerd.io/failure-accrual-consecutive-min-penalty": "2s",
        }
    )
    message = http(message_of(service))
    rule = message.routes[0].rules[0]
    assert (rule.retry.max_retries, rule.retry.timeout.nanos) == (3, 200_000_000)
    assert [(r.start, r.end) for r in rule.retry.conditions.status_ranges] == [(500, 599), (429, 429), (502, 504)]
    assert (rule.timeouts.request.seconds, rule.timeouts.idle.seconds) == (2, 60)
    assert not rule.timeouts.HasField("response")
    accrual = message.failure_accrual.consecutive_failures
    assert (accrual.max_failures, accrual.backoff.min_backoff.seconds, accrual.backoff.max_backoff.seconds) == (
        3,
        2,
        60,
    )


def test_a_malformed_annotation_of_a_service_switches_its_feature_off_only():
    service = web_service(
        annotations={"timeout.linkerd.io/request": "soon", "balancer.linkerd.io/failure-accrual": "consecutive"}
    )
    message = http(message_of(service))
    assert not message.routes[0].rules[0].HasField("timeouts")
    assert message.HasField("failure_accrual")


def test_penalties_and_unified_accrual():
    service = web_service(
        annotations={
            "balancer.alpha.linkerd.io/penalize-failures": "true",
            "balancer.linkerd.io/failure-accrual": "unified",
            "balancer.alpha.linkerd.io/failure-accrual-window": "500ms",
        }
    )
    message = http(message_of(service))
    (backend,) = message.routes[0].rules[0].backends.first_available.backends
    assert backend.backend.balancer.penalty_peak_ewma.penalty.seconds == 5
    assert message.failure_accrual.unified.decay.nanos == 500_000_000


def test_a_route_splits_by_weight_and_a_missing_backend_fails_for_its_share():
    backends = [{"name": "web", "port": 80, "weight": 9}, {"name": "nowhere", "port": 80}]
    (found,) = http(message_of(web_service(), route(rules=[{"backendRefs": backends}]))).routes
    good, bad = found.rules[0].backends.random_available.backends
    assert (good.weight, bad.weight) == (9, 1)
    assert bad.backend.backend.metadata.default == "invalid"
    failure = bad.backend.filters[0].failure_injector
    assert (failure.status, failure.message) == (500, "Service not found nowhere")


def test_a_backend_that_appears_touches_the_policy():
    index = index_of(web_service(), route(rules=[{"backendRefs": [{"name": "late", "port": 80}]}]))
    _, sources = outbound_policy(index, parse_authority(WEB, "cluster.local"), "client")
    assert index.apply(web_service("late")) & sources


def test_a_route_without_backends_goes_to_its_service():
    (found,) = http(message_of(web_service(), route())).routes
    assert found.rules[0].backends.first_available.backends[0].backend.balancer.discovery.dst.path.startswith("web.")


def test_a_route_for_another_port_does_not_apply():
    other = {"group": "", "kind": "Service", "name": "web", "namespace": NS, "port": 3306}
    assert http(message_of(web_service(), route(parentRefs=[other]))).routes[0].metadata.default == "http"


def test_a_clients_own_routes_replace_the_services():
    own, theirs = route(name="own", namespace="client"), route(name="theirs")
    names = {
        client: http(message_of(web_service(), own, theirs, client=client)).routes[0].metadata.resource.name
        for client in ("client", "third")
    }
    assert names == {"client": "own", "third": "theirs"}


def test_routes_come_by_age():
    young, old = route(name="a", creationTimestamp="2027"), route(name="b", creationTimestamp="2025")
    found = http(message_of(web_service(), young, old)).routes
    assert [r.metadata.resource.name for r in found] == ["b", "a"]


def test_a_grpc_route_beats_an_http_route():
    grpc = route("GRPCRoute", "calls", rules=[{"matches": [{"method": {"service": "a.B", "method": "C"}}]}])
    message = message_of(web_service(), route(), grpc)
    (found,) = message.protocol.grpc.routes
    assert (found.rules[0].matches[0].rpc.service, found.rules[0].matches[0].rpc.method) == ("a.B", "C")


def test_what_a_route_says_about_timeouts_and_retries_comes_before_the_service():
    service = web_service(annotations={"timeout.linkerd.io/request": "9s", "retry.linkerd.io/http": "5xx"})
    by_spec = route(name="spec", rules=[{"timeouts": {"request": "3s"}}])
    rule = http(message_of(service, by_spec)).routes[0].rules[0]
    assert (rule.timeouts.request.seconds, rule.retry.max_retries) == (3, 1)
    by_annotation = route(annotations={"timeout.linkerd.io/request": "1s"}, rules=[{"timeouts": {"request": "3s"}}])
    assert http(message_of(service, by_annotation)).routes[0].rules[0].timeouts.request.seconds == 1


def test_matches_and_filters_go_over_as_they_are_written():
    rule = {
        "matches": [
            {
                "path": {"type": "RegularExpression", "value": "/a.*"},
                "headers": [{"name": "X-A", "value": "b"}, {"name": "x-c", "value": "d+", "type": "RegularExpression"}],
                "queryParams": [{"name": "q", "value": "1"}],
                "method": "POST",
            }
        ],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]}},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["server"]}},
            {
                "type": "RequestRedirect",
                "requestRedirect": {
                    "scheme": "https",
                    "statusCode": 301,
                    "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/z"},
                },
            },
        ],
    }
    (found,) = http(message_of(web_service(), route(rules=[rule], hostnames=["A.example", "*.b.example"]))).routes
    assert [h.WhichOneof("match") for h in found.hosts] == ["exact", "suffix"]
    assert list(found.hosts[1].suffix.reverse_labels) == ["example", "b"]
    match = found.rules[0].matches[0]
    assert (match.path.regex, match.query_params[0].exact, match.method.registered) == ("/a.*", "1", 1)
    assert (match.headers[0].name, match.headers[0].exact, match.headers[1].regex) == ("x-a", b"b", "d+")
    request, response, redirect = found.rules[0].filters
    assert request.request_header_modifier.set.headers[0].value == b"b"
    assert list(response.response_header_modifier.remove) == ["server"]
    assert (redirect.redirect.status, redirect.redirect.path.prefix) == (301, "/z")


def test_a_route_with_what_is_not_supported_is_not_served():
    mirrored = route(rules=[{"filters": [{"type": "RequestMirror", "requestMirror": {}}]}])
    assert http(message_of(web_service(), mirrored)).routes[0].metadata.default == "http"


def egress(name="out", *, allow=True, namespace="client", **spec):
    policy = "Allow" if allow else "Deny"
    return parsed("EgressNetwork", name, {"trafficPolicy": policy, **spec}, namespace=namespace)


def test_an_egress_network_decides_about_the_world_outside():
    message = message_of(egress(allow=False), target="8.8.8.8:443")
    assert message.metadata.resource.kind == "EgressNetwork"
    (found,) = http(message).routes
    assert found.metadata.default == "http-egress-deny"
    assert found.rules[0].filters[0].failure_injector.status == 403
    assert message.protocol.detect.opaque.routes[0].rules[0].filters[0].HasField("forbidden")
    allowed = message_of(egress(), target="8.8.8.8:443")
    assert http(allowed).routes[0].metadata.default == "http-egress-allow"
    assert not http(allowed).routes[0].rules[0].filters


def test_the_narrowest_network_holds_then_the_global_ones():
    narrow = egress("narrow", networks=[{"cidr": "8.8.8.0/24"}])
    wide = egress("wide", networks=[{"cidr": "8.0.0.0/8", "except": ["8.9.0.0/16"]}])
    everywhere = egress("everywhere", namespace="linkerd-egress")
    values = [wide, narrow, everywhere]
    assert policy_of(*values, target="8.8.8.8:1").meta.name == "narrow"
    assert policy_of(*values, target="8.1.1.1:1").meta.name == "wide"
    assert policy_of(*values, target="8.9.1.1:1").meta.name == "egress-fallback"
    assert policy_of(*values, target="8.9.1.1:1", client="third").meta.name == "everywhere"


def test_a_route_of_an_egress_network_comes_before_its_verdict():
    parent = {"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "namespace": "client", "port": 443}
    allowed = route(parentRefs=[parent], namespace="client", rules=[{"matches": [{"path": {"value": "/ok"}}]}])
    message = message_of(egress(allow=False), allowed, target="8.8.8.8:443")
    first, last = http(message).routes
    assert (first.metadata.resource.name, last.metadata.default) == ("r", "http-egress-deny")


OUT = {"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "namespace": "client"}


def egress_route(kind="HTTPRoute", *backends, **more):
    rules = [{"backendRefs": list(backends)}]
    return route(kind, parentRefs=[OUT | {"port": 443}], namespace="client", **({"rules": rules} | more))


def test_a_route_of_an_egress_network_may_send_a_share_to_a_service():
    shares = [OUT | {"weight": 3}, {"name": "web", "namespace": NS, "port": 80}]
    message = message_of(egress(), web_service(), egress_route("HTTPRoute", *shares), target="8.8.8.8:443")
    out, inside = http(message).routes[0].rules[0].backends.random_available.backends
    assert (out.weight, out.backend.backend.forward.addr.port) == (3, 443)
    assert inside.backend.backend.balancer.discovery.dst.path == "web.shop.svc.cluster.local:80"


@pytest.mark.parametrize(
    ("name", "problem"),
    [("other", "the same EgressNetwork as a parent"), ("missing", "EgressNetwork not found missing")],
)
def test_traffic_leaves_through_the_egress_network_that_it_came_to_only(name, problem):
    wrong = egress_route("HTTPRoute", OUT | {"name": name})
    others = [egress(), egress("other", networks=[{"cidr": "9.0.0.0/8"}])]
    (share,) = (
        http(message_of(*others, wrong, target="8.8.8.8:443")).routes[0].rules[0].backends.random_available.backends
    )
    assert problem in share.backend.filters[0].failure_injector.message


def test_a_service_is_no_way_out():
    rules = [{"backendRefs": [OUT]}]
    (found,) = http(message_of(web_service(), egress(), route(rules=rules))).routes
    (share,) = found.rules[0].backends.random_available.backends
    assert "attach to EgressNetwork parents only" in share.backend.filters[0].failure_injector.message


def test_annotations_of_an_egress_network_hold_where_its_routes_say_nothing():
    annotations = {"timeout.linkerd.io/request": "9s", "retry.linkerd.io/http": "5xx"}
    network = parsed("EgressNetwork", "out", {"trafficPolicy": "Allow"}, namespace="client", annotations=annotations)
    for found in http(message_of(network, egress_route(), target="8.8.8.8:443")).routes:
        assert (found.rules[0].timeouts.request.seconds, found.rules[0].retry.max_retries) == (9, 1)


@pytest.mark.parametrize(("allow", "verdict"), [(True, "allow"), (False, "deny")])
def test_tls_that_no_route_knows_meets_the_verdict(allow, verdict):
    known = egress_route("TLSRoute", OUT, hostnames=["*.example.com"])
    message = message_of(egress(allow=allow), known, target="8.8.8.8:443")
    first, last = message.protocol.tls.routes
    assert list(first.snis[0].suffix.reverse_labels) == ["com", "example"]
    assert first.rules[0].backends.random_available.backends[0].backend.backend.forward.addr.port == 443
    assert last.metadata.default == f"tls-egress-{verdict}"
    assert bool(last.rules[0].filters) != allow


def test_a_tcp_route_lets_through_what_is_denied_otherwise():
    message = message_of(egress(allow=False), egress_route("TCPRoute", OUT), target="8.8.8.8:443")
    (found,) = message.protocol.opaque.routes
    assert found.metadata.resource.kind == "TCPRoute"
    assert not found.rules[0].filters


def test_opaque_ports_of_an_egress_network_come_before_its_http_routes():
    annotations = {"config.linkerd.io/opaque-ports": "443"}
    network = parsed("EgressNetwork", "out", {"trafficPolicy": "Deny"}, namespace="client", annotations=annotations)
    message = message_of(network, egress_route(), target="8.8.8.8:443")
    (found,) = message.protocol.opaque.routes
    assert found.metadata.default == "tcp-egress-deny"


def test_calls_that_no_route_knows_meet_the_verdict_as_calls():
    calls = egress_route("GRPCRoute", rules=[{"matches": [{"method": {"service": "a.B"}}]}])
    message = message_of(egress(allow=False), calls, target="8.8.8.8:443")
    _, last = message.protocol.grpc.routes
    assert last.metadata.default == "grpc-egress-deny"
    assert last.rules[0].filters[0].failure_injector.code == 7


def test_a_tls_route_of_a_service_balances_over_its_backends():
    tls = route("TLSRoute", hostnames=["web.example"], rules=[{"backendRefs": [{"name": "web", "port": 80}]}])
    (found,) = message_of(web_service(), tls).protocol.tls.routes
    assert found.snis[0].exact == "web.example"
    assert found.rules[0].backends.random_available.backends[0].backend.backend.balancer.discovery.dst.path


EVERYTHING = [
    web_service(),
    web_service("canary"),
    route(rules=[{"backendRefs": [{"name": "canary", "port": 80}]}]),
    route(name="own", namespace="client"),
    Namespace(NS, {"config.linkerd.io/opaque-ports": "81"}),
    egress(),
    egress("narrow", allow=False, networks=[{"cidr": "8.8.8.0/24"}]),
    egress_route("TLSRoute", OUT, hostnames=["a.example"], name="tls"),
    egress_route("HTTPRoute", {"name": "canary", "namespace": NS, "port": 80}, name="moved"),
    route("GRPCRoute", "calls", parentRefs=[{"group": "", "kind": "Service", "name": "web", "namespace": NS}]),
]
TARGETS = [parse_authority(t, "cluster.local") for t in (WEB, "8.8.8.8:443", "10.1.1.1:80")]


@settings(max_examples=60, deadline=None)
@given(st.permutations(EVERYTHING), st.integers(0, len(EVERYTHING)))
def test_order_does_not_matter_and_each_change_touches_a_source(order, kept):
    index = index_of(*order[:kept])
    for value in order[kept:]:
        before = {target: outbound_policy(index, target, "client") for target in TARGETS}
        touched = index.apply(value)
        for target, (policy, sources) in before.items():
            assert outbound_policy(index, target, "client")[0] == policy or touched & sources
    final = index_of(*EVERYTHING)
    for target in TARGETS:
        assert outbound_policy(index, target, "client")[0] == outbound_policy(final, target, "client")[0]
