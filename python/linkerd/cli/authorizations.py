"""Which policies bear on the pods of a workload. Pure: Kubernetes objects in, rows out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from linkerd.core.labels import parse_selector
from linkerd.core.workloads import Pod

Object = dict[str, Any]

_GROUP = "policy.linkerd.io"
ANY_ROUTE = "*"


@dataclass(frozen=True, slots=True)
class Row:
    """`policy` is an AuthorizationPolicy or a ServerAuthorization; the other one is empty."""

    route: str
    server: str
    policy: str = ""
    server_authorization: str = ""


@dataclass(frozen=True, slots=True)
class Policies:
    """The objects of one namespace."""

    servers: Sequence[Object]
    server_authorizations: Sequence[Object] = ()
    authorization_policies: Sequence[Object] = ()
    routes: Sequence[Object] = ()


@dataclass(slots=True)
class Found:
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """References that lead nowhere."""


def authorizations(pods: Iterable[Pod], policies: Policies) -> Found:
    """ServerAuthorizations first, then AuthorizationPolicies, both in the order of their names."""
    pods = list(pods)
    bearing = {_name(server): server for server in policies.servers if any(_selects(server, pod) for pod in pods)}
    found = Found()
    for authorization in sorted(policies.server_authorizations, key=_name):
        for server in _servers_of(authorization, policies, found):
            if server in bearing:
                found.rows.append(Row(ANY_ROUTE, server, server_authorization=_name(authorization)))
    for policy in sorted(policies.authorization_policies, key=_name):
        rows = _policy_rows(policy, policies, found)
        found.rows += [row for row in rows if row.server in bearing]
    return found


def _selects(server: Object, pod: Pod) -> bool:
    """A port by number is one whether the container declares it or not."""
    spec = server.get("spec") or {}
    if "podSelector" not in spec:
        return False
    port = spec.get("port")
    named = isinstance(port, int) or str(port).isdigit() or port in pod.port_names()
    return named and parse_selector(spec["podSelector"] or {}).matches(pod.labels)


def _servers_of(authorization: Object, policies: Policies, found: Found) -> list[str]:
    wanted = (authorization.get("spec") or {}).get("server") or {}
    if name := wanted.get("name"):
        if name not in map(_name, policies.servers):
            found.problems.append(
                f"ServerAuthorization/{_name(authorization)} names Server/{name}, which does not exist"
            )
        return [name]
    selector = parse_selector(wanted.get("selector") or {})
    return sorted(
        _name(server) for server in policies.servers if selector.matches(server["metadata"].get("labels") or {})
    )


def _policy_rows(policy: Object, policies: Policies, found: Found) -> Iterator[Row]:
    target = (policy.get("spec") or {}).get("targetRef") or {}
    kind, name, own = target.get("kind"), target.get("name", ""), _name(policy)
    if kind == "Namespace":
        yield from (Row(ANY_ROUTE, server, policy=own) for server in sorted(map(_name, policies.servers)))
        return
    known = {"Server": policies.servers, "HTTPRoute": policies.routes, "GRPCRoute": policies.routes}.get(kind, ())
    obj = next((item for item in known if _name(item) == name and item.get("kind", kind) == kind), None)
    if obj is None:
        found.problems.append(f"AuthorizationPolicy/{own} targets {kind}/{name}, which does not exist")
    elif kind == "Server":
        yield Row(ANY_ROUTE, name, policy=own)
    else:
        yield from (Row(name, server, policy=own) for server in _parents(obj))


def _parents(route: Object) -> list[str]:
    """The Servers that a route hangs at; its parents of other kinds are for clients."""
    references = (route.get("spec") or {}).get("parentRefs") or []
    return [ref["name"] for ref in references if ref.get("kind") == "Server" and ref.get("group", _GROUP) == _GROUP]


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])
