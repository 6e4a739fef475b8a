"""What is refused at `kubectl apply`, and how it is said."""

from __future__ import annotations

import re

import pytest
from linkerd.policy.admission import Admission, Refused
from support.policy_objects import index_of, parsed, policy_object, server_ref

PODS = {"podSelector": {"matchLabels": {"app": "web"}}}
SERVICE = {"group": "", "kind": "Service", "name": "web"}


def check(kind, spec, *present, **metadata):
    Admission(index_of(*present)).check(policy_object(kind, "x", spec, **metadata))


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Server", {**PODS, "port": "http"}),
        ("ServerAuthorization", {"server": {"name": "a"}, "client": {"unauthenticated": True}}),
        ("AuthorizationPolicy", {"targetRef": server_ref(), "requiredAuthenticationRefs": []}),
        ("NetworkAuthentication", {"networks": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}]}),
        ("HTTPRoute", {"parentRefs": [SERVICE], "rules": [{"matches": [{"path": {"value": "/a"}}]}]}),
    ],
)
def test_what_can_work_is_let_through(kind, spec):
    check(kind, spec)


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("Server", {**PODS, "port": 0}, "spec.port: `0`: 1 to 65535"),
        ("Server", {**PODS, "port": 1, "proxyProtocol": "http"}, "spec.proxyProtocol: `http`: one of unknown, HTTP/1"),
        ("Server", {**PODS, "port": 1, "accessPolicy": "all"}, "spec.accessPolicy: `all`: one of all-authenticated"),
        ("Server", {"port": 1}, "exactly one of podSelector"),
        ("ServerAuthorization", {"server": {}, "client": {}}, "exactly one of name and selector"),
        ("ServerAuthorization", {"server": {"name": "a"}, "client": {}}, "exactly one of unauthenticated and meshTLS"),
        (
            "ServerAuthorization",
            {"server": {"name": "a"}, "client": {"unauthenticated": True, "networks": [{"cidr": "x"}]}},
            "spec.client.networks: `x` is not a network",
        ),
        (
            "AuthorizationPolicy",
            {"targetRef": {"kind": "Pod", "name": "p"}, "requiredAuthenticationRefs": []},
            "spec.targetRef: `Pod`: one of Server.policy.linkerd.io",
        ),
        (
            "AuthorizationPolicy",
            {"targetRef": {"kind": "Namespace", "name": "other"}, "requiredAuthenticationRefs": []},
            "only the policy's own namespace `shop` can be",
        ),
        (
            "AuthorizationPolicy",
            {"targetRef": server_ref(), "requiredAuthenticationRefs": [{"kind": "ServiceAccount", "name": "a"}] * 2},
            "at most one MeshTLSAuthentication or ServiceAccount",
        ),
        ("MeshTLSAuthentication", {"identities": ["*x"]}, "spec.identities[0]: `*x`"),
        ("MeshTLSAuthentication", {"identityRefs": [{"kind": "Pod", "name": "p"}]}, "identityRefs[0].kind: `Pod`"),
        ("NetworkAuthentication", {"networks": []}, "at least one network"),
        (
            "NetworkAuthentication",
            {"networks": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}]},
            "except `11.0.0.0/8` does not lie inside `10.0.0.0/8`",
        ),
        (
            "HTTPLocalRateLimitPolicy",
            {"targetRef": server_ref(), "total": {"requestsPerSecond": 5}, "identity": {"requestsPerSecond": 6}},
            "spec.identity.requestsPerSecond: `6` must not be larger than the total, 5",
        ),
        (
            "HTTPRoute",
            {"rules": [{"matches": [{"path": {"type": "RegularExpression", "value": "/("}}]}]},
            "spec.rules[0].matches[0].path.value: `/(` is not a regular expression",
        ),
        (
            "HTTPRoute",
            {"rules": [{"timeouts": {"request": "-1s"}}]},
            "spec.rules[0].timeouts.request: `-1s` is negative; 0s and above can be",
        ),
        (
            "HTTPRoute",
            {"rules": [{"timeouts": {"request": "1s", "backendRequest": "2s"}}]},
            "spec.rules[0].timeouts.backendRequest: `2s` must not be longer than request, `1s`",
        ),
        (
            "HTTPRoute",
            {"rules": [{"matches": [{"method": "FETCH"}]}]},
            "spec.rules[0].matches[0].method: `FETCH`: one of GET, HEAD",
        ),
        (
            "HTTPRoute",
            {"rules": [{"matches": [{"path": {"type": "Suffix", "value": "/a"}}]}]},
            "spec.rules[0].matches[0].path.type: `Suffix`: one of Exact, PathPrefix, RegularExpression",
        ),
        (
            "HTTPRoute",
            {"rules": [{"matches": [{"headers": [{"name": "a b", "value": "c"}]}]}]},
            "spec.rules[0].matches[0].headers[0].name: `a b` is not the name of a header",
        ),
        (
            "HTTPRoute",
            {"rules": [{"backendRefs": [{"name": "a", "port": 80, "weight": -1}]}]},
            "spec.rules[0].backendRefs[0].weight: `-1`: 0 to 1000000",
        ),
        (
            "HTTPRoute",
            {"rules": [{"backendRefs": [{"name": "a", "port": 70000}]}]},
            "spec.rules[0].backendRefs[0].port: `70000`: 1 to 65535",
        ),
        (
            "HTTPRoute",
            {"rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 200}}]}]},
            "spec.rules[0].filters[0].requestRedirect.statusCode: `200`: one of 301, 302",
        ),
        (
            "HTTPRoute",
            {"rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "ftp"}}]}]},
            "spec.rules[0].filters[0].requestRedirect.scheme: `ftp`: one of http, https",
        ),
        (
            "HTTPRoute",
            {"rules": [{"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["a:"]}}]}]},
            "spec.rules[0].filters[0].requestHeaderModifier.remove[0]: `a:` is not the name of a header",
        ),
        ("HTTPRoute", {"hostnames": ["a.*.b"]}, "spec.hostnames[0]: `a.*.b`: a DNS name"),
        ("HTTPRoute", {"hostnames": ["10.0.0.1"]}, "spec.hostnames[0]: `10.0.0.1`: a DNS name"),
        ("TCPRoute", {"rules": [{}, {}]}, "spec.rules: a TCPRoute can have one rule, not 2"),
        (
            "HTTPRoute",
            {"rules": [{"backendRefs": [{"name": "web"}]}]},
            "spec.rules[0].backendRefs[0].port must be given",
        ),
        (
            "HTTPRoute",
            {"rules": [{"filters": [{"type": "URLRewrite"}]}]},
            "spec.rules[0].filters[0].type: `URLRewrite` is not supported",
        ),
        (
            "HTTPRoute",
            {"parentRefs": [{"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "e"}]},
            "spec.parentRefs[0].port must be given",
        ),
        ("Gateway", {}, "Gateway is no resource"),
        ("Server", {**PODS}, "'port' is missing"),
    ],
)
def test_what_cannot_work_is_refused_with_field_and_value(kind, spec, message):
    with pytest.raises(Refused, match=re.escape(message)):
        check(kind, spec)


def test_a_server_must_not_overlap_another_one():
    other = parsed("Server", "other", {**PODS, "port": 80})
    with pytest.raises(Refused, match="Server `other` selects the same pods"):
        check("Server", {**PODS, "port": 80}, other)
    check("Server", {**PODS, "port": 81}, other)


def test_servers_that_say_the_same_in_another_order_overlap():
    labels = {"podSelector": {"matchLabels": {"app": "web", "tier": "front"}}, "port": 80}
    turned = {"podSelector": {"matchLabels": {"tier": "front", "app": "web"}}, "port": 80}
    with pytest.raises(Refused, match="Server `other` selects the same pods"):
        check("Server", turned, parsed("Server", "other", labels))


@pytest.mark.parametrize(
    ("name", "value"),
    [("retry.linkerd.io/http", "6xx"), ("timeout.linkerd.io/request", "1.5s"), ("retry.linkerd.io/grpc", "soon")],
)
def test_an_annotation_of_a_route_that_cannot_be_read_is_refused(name, value):
    with pytest.raises(Refused, match=re.escape(name)):
        check("HTTPRoute", {}, annotations={name: value})
