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
            "spec.rules[0].timeouts.request: `-1s` is negative",
        ),
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


@pytest.mark.parametrize(
    ("name", "value"),
    [("retry.linkerd.io/http", "6xx"), ("timeout.linkerd.io/request", "1.5s"), ("retry.linkerd.io/grpc", "soon")],
)
def test_an_annotation_of_a_route_that_cannot_be_read_is_refused(name, value):
    with pytest.raises(Refused, match=re.escape(name)):
        check("HTTPRoute", {}, annotations={name: value})
