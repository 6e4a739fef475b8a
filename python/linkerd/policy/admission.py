"""Admission of policy resources: what cannot work is refused at `kubectl apply`, with field, value and what can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from linkerd.core.identities import TrustDomain
from linkerd.core.labels import Requirement
from linkerd.k8s.client import Object
from linkerd.policy.annotations import check_route_annotations
from linkerd.policy.index import Index
from linkerd.policy.parsing import (
    parse_authorization_policy,
    parse_egress_network,
    parse_mesh_tls_authentication,
    parse_network_authentication,
    parse_rate_limit,
    parse_route,
    parse_server,
    parse_server_authorization,
)
from linkerd.policy.values import Route, Server


class Refused(ValueError):
    """The resource cannot work; the message is for whoever applies it."""


class Admission:
    """Judges one object. `index` is what is there already."""

    def __init__(self, index: Index) -> None:
        self._index = index
        trust: TrustDomain = index.settings.trust_domain
        self._parsers: dict[str, Callable[[Object], Any]] = {
            "Server": parse_server,
            "ServerAuthorization": lambda obj: parse_server_authorization(obj, trust),
            "AuthorizationPolicy": parse_authorization_policy,
            "MeshTLSAuthentication": lambda obj: parse_mesh_tls_authentication(obj, trust),
            "NetworkAuthentication": parse_network_authentication,
            "HTTPLocalRateLimitPolicy": parse_rate_limit,
            "EgressNetwork": parse_egress_network,
            "HTTPRoute": parse_route,
            "GRPCRoute": parse_route,
            "TLSRoute": parse_route,
            "TCPRoute": parse_route,
        }

    def check(self, obj: Object) -> None:
        """Raises Refused."""
        kind = obj.get("kind", "")
        parse = self._parsers.get(kind)
        if parse is None:
            raise Refused(f"{kind} is no resource that is checked here")
        try:
            value = parse(obj)
            self._check_value(value)
        except KeyError as error:
            raise Refused(f"{kind}: {error} is missing") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise Refused(f"{kind} {obj['metadata'].get('name', '')}: {error}") from error

    def _check_value(self, value: Any) -> None:
        match value:
            case Server():
                self._check_overlap(value)
            case Route():
                self._check_route(value)

    def _check_overlap(self, server: Server) -> None:
        """Two Servers with one selector on one port of the same pods: only one of them could be in force."""
        for other in self._index.servers(server.namespace):
            same = _pods_of(other) == _pods_of(server)
            if other.name != server.name and other.port == server.port and same:
                raise Refused(f"spec: Server `{other.name}` selects the same pods and port `{server.port}` already")

    def _check_route(self, route: Route) -> None:
        if route.problem:
            raise Refused(route.problem)
        check_route_annotations(route.annotations)
        for position, parent in enumerate(route.parents):
            if parent.ref.kind == "EgressNetwork" and parent.port is None:
                raise Refused(f"spec.parentRefs[{position}].port must be given for an EgressNetwork")
            if parent.ref.kind == "Server" and parent.ref.namespace != route.namespace:
                raise Refused(
                    f"spec.parentRefs[{position}].namespace: `{parent.ref.namespace}`:"
                    f" a Server must be in the route's own namespace, `{route.namespace}`"
                )
        for number, rule in enumerate(route.rules):
            for position, backend in enumerate(rule.backends):
                if backend.ref.kind == "Service" and backend.port is None:
                    raise Refused(f"spec.rules[{number}].backendRefs[{position}].port must be given for a Service")


def _pods_of(server: Server) -> tuple[frozenset[Requirement] | None, ...]:
    """What it selects, however it is written: the order of requirements means nothing."""
    selectors = (server.selector, server.external_selector)
    return tuple(None if selector is None else frozenset(selector.requirements) for selector in selectors)
