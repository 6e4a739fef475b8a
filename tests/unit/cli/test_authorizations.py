"""Which policies bear on a workload."""

from __future__ import annotations

import pytest
from linkerd.cli.authorizations import Policies, Row, authorizations
from linkerd.cli.commands.authz import render
from linkerd.core.workloads import parse_pod


def pod(labels=None, ports=()):
    spec = {"containers": [{"name": "app", "image": "app", "ports": list(ports)}]}
    return parse_pod({"metadata": {"name": "p", "namespace": "ns", "labels": labels or {}}, "spec": spec})


def obj(kind, name, labels=None, **spec):
    return {"kind": kind, "metadata": {"name": name, "labels": labels or {}}, "spec": spec}


def server(name, port=8080, labels=None, selector=None):
    return obj("Server", name, labels, podSelector=selector or {}, port=port)


def policy(name, kind, target):
    return obj("AuthorizationPolicy", name, targetRef={"kind": kind, "name": target})


WEB = pod({"app": "web"}, [{"name": "http", "containerPort": 8080}])


@pytest.mark.parametrize(
    ("one", "bears"),
    [
        (server("s", selector={"matchLabels": {"app": "web"}}), True),
        (server("s", selector={"matchLabels": {"app": "api"}}), False),
        (server("s", port="http"), True),
        (server("s", port="grpc"), False),
        (server("s", port=9999), True),
        (obj("Server", "s", externalWorkloadSelector={}, port=8080), False),
    ],
)
def test_a_server_bears_on_the_pods_that_it_selects_and_whose_port_it_names(one, bears):
    found = authorizations([WEB], Policies([one], authorization_policies=[policy("p", "Server", "s")]))
    assert bool(found.rows) is bears


def test_what_a_server_authorization_names_or_selects():
    servers = [server("a", labels={"tier": "1"}), server("b", labels={"tier": "2"})]
    by_name = obj("ServerAuthorization", "named", server={"name": "b"})
    by_label = obj("ServerAuthorization", "labelled", server={"selector": {"matchLabels": {"tier": "1"}}})
    found = authorizations([WEB], Policies(servers, [by_name, by_label]))
    assert found.rows == [Row("*", "a", server_authorization="labelled"), Row("*", "b", server_authorization="named")]


def test_the_targets_of_an_authorization_policy():
    route = obj("HTTPRoute", "r", parentRefs=[{"kind": "Server", "name": "b", "group": "policy.linkerd.io"}])
    targets = [policy("1", "Namespace", "ns"), policy("2", "Server", "a"), policy("3", "HTTPRoute", "r")]
    found = authorizations([WEB], Policies([server("a"), server("b")], [], targets, [route]))
    rows = [(row.policy, row.route, row.server) for row in found.rows]
    assert rows == [("1", "*", "a"), ("1", "*", "b"), ("2", "*", "a"), ("3", "r", "b")]


def test_references_that_lead_nowhere_are_named():
    policies = Policies([], [obj("ServerAuthorization", "x", server={"name": "gone"})], [policy("y", "Server", "gone")])
    assert authorizations([WEB], policies).problems == [
        "ServerAuthorization/x names Server/gone, which does not exist",
        "AuthorizationPolicy/y targets Server/gone, which does not exist",
    ]


def test_the_table_of_linkerds_command():
    assert render([Row("*", "web-http", "frontend-only"), Row("*", "web-http", server_authorization="all")]) == (
        "ROUTE   SERVER    AUTHORIZATION_POLICY   SERVER_AUTHORIZATION   \n"
        "*       web-http  frontend-only                                 \n"
        "*       web-http                         all                    \n"
    )
    assert render([]).split() == ["ROUTE", "SERVER", "AUTHORIZATION_POLICY", "SERVER_AUTHORIZATION"]
