"""What we make of routes and policies, as the conditions of their status. Pure: the index in, statuses out.

A policy is in force by what the index knows, not by what its status says: the status only tells its owner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from linkerd.policy.index import Index
from linkerd.policy.outbound import ROUTE_KINDS
from linkerd.policy.values import (
    POLICY_GROUP,
    BackendRef,
    EgressNetwork,
    ParentRef,
    RateLimit,
    Ref,
    Route,
)

CONTROLLER = "linkerd.io/policy-controller"

Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    type: str
    reason: str
    holds: bool = True
    message: str = ""


def route_status(index: Index, route: Route, now: str) -> Status:
    """Its `status`: what others wrote stays, ours is renewed; a condition that did not change keeps its time."""
    before = route.reported.status.get("parents") or []
    parents = [entry for entry in before if entry.get("controllerName") != CONTROLLER]
    for parent in route.parents:
        if not _is_ours(parent.ref):
            continue
        shown = _shown(parent)
        old = next((e for e in before if e.get("controllerName") == CONTROLLER and e.get("parentRef") == shown), {})
        conditions = [_accepted(index, route, parent), _resolved(index, route)]
        merged = _merged(conditions, old.get("conditions") or [], route.reported.generation, now)
        parents.append({"parentRef": shown, "controllerName": CONTROLLER, "conditions": merged})
    return {"parents": parents}


def rate_limit_status(index: Index, limit: RateLimit, now: str) -> Status:
    old = limit.reported.status.get("conditions") or []
    conditions = _merged([_accepted_limit(index, limit)], old, limit.reported.generation, now)
    ref = {"group": limit.target.group, "kind": limit.target.kind, "name": limit.target.name}
    return {"conditions": conditions, "targetRef": ref}


def egress_network_status(index: Index, network: EgressNetwork, now: str) -> Status:
    old = network.reported.status.get("conditions") or []
    return {"conditions": _merged([_accepted_network(index, network)], old, network.reported.generation, now)}


def all_statuses(index: Index, now: str) -> Iterator[tuple[Ref, Mapping[str, Any], Status]]:
    """Each resource that has a status, with the one it has and the one it should have."""
    for route in index.routes.values():
        if any(_is_ours(parent.ref) for parent in route.parents) or _was_ours(route):
            yield route.ref, route.reported.status, route_status(index, route, now)
    for limit in index.all_rate_limits():
        ref = Ref(POLICY_GROUP, "HTTPLocalRateLimitPolicy", *limit.key)
        yield ref, limit.reported.status, rate_limit_status(index, limit, now)
    for network in index.egress_networks.values():
        ref = Ref(POLICY_GROUP, "EgressNetwork", *network.key)
        yield ref, network.reported.status, egress_network_status(index, network, now)


def _was_ours(route: Route) -> bool:
    """Whether its status still tells of a parent that it does not have any more."""
    return any(entry.get("controllerName") == CONTROLLER for entry in route.reported.status.get("parents") or [])


def _is_ours(ref: Ref) -> bool:
    return (ref.group, ref.kind) in ((POLICY_GROUP, "Server"), ("", "Service"), (POLICY_GROUP, "EgressNetwork"))


def _accepted(index: Index, route: Route, parent: ParentRef) -> Condition:
    if route.problem:
        return Condition("Accepted", "UnsupportedValue", False, route.problem)
    if not _parent_exists(index, route, parent):
        name = f"{parent.ref.kind} {parent.ref.namespace}/{parent.ref.name}"
        return Condition("Accepted", "NoMatchingParent", False, f"{name} does not exist")
    winner = _winner(index, route, parent)
    if winner is not None:
        message = f"{winner.kind} {winner.namespace}/{winner.name} has precedence on this parent"
        return Condition("Accepted", "RouteReasonConflicted", False, message)
    return Condition("Accepted", "Accepted")


def _parent_exists(index: Index, route: Route, parent: ParentRef) -> bool:
    ref = parent.ref
    if ref.kind == "Server":
        return ref.namespace == route.namespace and any(s.name == ref.name for s in index.servers(ref.namespace))
    if ref.kind == "EgressNetwork":
        return ref.key in index.egress_networks
    service = index.services.get(ref.key)
    return (
        service is not None
        and bool(service.cluster_ips)
        and (parent.port is None or service.port(parent.port) is not None)
    )


def _winner(index: Index, route: Route, parent: ParentRef) -> Route | None:
    """A route of a kind with precedence on the same parent and port, which keeps this one out."""
    if parent.ref.kind == "Server":
        return None
    rank = ROUTE_KINDS.index(route.kind)
    for other, port in index.routes_of(parent.ref):
        same_port = port == parent.port or None in (port, parent.port)
        if ROUTE_KINDS.index(other.kind) < rank and same_port and other.namespace == route.namespace:
            return other
    return None


def _resolved(index: Index, route: Route) -> Condition:
    for rule in route.rules:
        for backend in rule.backends:
            problem = _backend_problem(index, backend)
            if problem is not None:
                return problem
    return Condition("ResolvedRefs", "ResolvedRefs")


def _backend_problem(index: Index, backend: BackendRef) -> Condition | None:
    ref = backend.ref
    name = f"{ref.kind} {ref.namespace}/{ref.name}"
    if (ref.group, ref.kind) == (POLICY_GROUP, "EgressNetwork"):
        known = ref.key in index.egress_networks
    elif (ref.group, ref.kind) == ("", "Service"):
        known = ref.key in index.services
    else:
        return Condition("ResolvedRefs", "InvalidKind", False, f"{name} cannot be a backend")
    return None if known else Condition("ResolvedRefs", "BackendNotFound", False, f"{name} does not exist")


def _accepted_limit(index: Index, limit: RateLimit) -> Condition:
    if not any(server.name == limit.target.name for server in index.servers(limit.namespace)):
        return Condition("Accepted", "NoMatchingTarget", False, f"Server {limit.target.name} does not exist")
    meant = [other for other in index.rate_limits(limit.namespace) if other.target == limit.target]
    first = min(meant, key=lambda other: (other.created, other.name))
    if first.name != limit.name:
        message = f"HTTPLocalRateLimitPolicy {first.name} targets the same Server and is older"
        return Condition("Accepted", "RateLimitReasonAlreadyExists", False, message)
    return Condition("Accepted", "Accepted")


def _accepted_network(index: Index, network: EgressNetwork) -> Condition:
    for wanted in network.networks:
        for cluster in index.settings.cluster_networks:
            if wanted.overlaps(cluster):
                message = f"{wanted.net} overlaps the cluster's network {cluster.net}"
                return Condition("Accepted", "EgressReasonNetworkOverlap", False, message)
    return Condition("Accepted", "Accepted")


def _shown(parent: ParentRef) -> dict[str, Any]:
    ref = parent.ref
    shown = {"group": ref.group, "kind": ref.kind, "namespace": ref.namespace, "name": ref.name}
    if parent.port is not None:
        shown["port"] = parent.port  # type: ignore[assignment]
    if parent.section:
        shown["sectionName"] = parent.section
    return shown


def _merged(conditions: list[Condition], old: list[Mapping[str, Any]], generation: int, now: str) -> list[Status]:
    made = []
    for condition in conditions:
        state = "True" if condition.holds else "False"
        same = next((c for c in old if c.get("type") == condition.type and c.get("status") == state), None)
        made.append(
            {
                "type": condition.type,
                "status": state,
                "reason": condition.reason,
                "message": condition.message,
                "observedGeneration": generation,
                "lastTransitionTime": same["lastTransitionTime"] if same else now,
            }
        )
    return made
