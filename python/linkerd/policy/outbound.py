"""How a client's traffic to an address or a Service is to be treated. Pure: the index in, one value out."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TypeVar

from linkerd.core.authorities import AddressAuthority, ServiceAuthority
from linkerd.core.labels import OPAQUE_PORTS
from linkerd.core.networks import contains
from linkerd.core.ports import PortSet, parse_port_set_leniently
from linkerd.core.services import Service
from linkerd.kit.logging import fields
from linkerd.policy.annotations import (
    Accrual,
    GrpcRetry,
    HttpRetry,
    Penalty,
    Timeouts,
    parse_accrual,
    parse_grpc_retry,
    parse_http_retry,
    parse_penalty,
    parse_timeouts,
)
from linkerd.policy.inbound import Meta
from linkerd.policy.index import EGRESS, Index, Source
from linkerd.policy.values import (
    POLICY_GROUP,
    BackendRef,
    EgressNetwork,
    Filter,
    GrpcMatch,
    HttpMatch,
    InjectedFailure,
    PathMatch,
    Ref,
    Route,
    Rule,
)

log = logging.getLogger(__name__)
T = TypeVar("T")

CORE = "core"
"""How the empty API group is written in the metadata of outbound policies."""

ROUTE_KINDS = ("GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute")
"""By precedence: of routes of several kinds on one port only those of the first are in force (Gateway API)."""


@dataclass(frozen=True, slots=True)
class ToService:
    """The endpoints of a Service's port, balanced."""

    namespace: str
    name: str
    port: int
    penalty: Penalty | None = None


@dataclass(frozen=True, slots=True)
class ToAddress:
    """The very address the client asked for."""

    ip: str
    port: int
    meta: Meta


@dataclass(frozen=True, slots=True)
class Nowhere:
    """Something that is not there: answered with a failure."""

    message: str


@dataclass(frozen=True, slots=True)
class Backend:
    to: ToService | ToAddress | Nowhere
    weight: int = 1
    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class OutboundRule:
    matches: tuple[HttpMatch | GrpcMatch, ...] = ()
    filters: tuple[Filter, ...] = ()
    backends: tuple[Backend, ...] = ()
    split: bool = False  # by weight; else the first that is available
    timeouts: Timeouts = field(default_factory=Timeouts)
    retry: HttpRetry | GrpcRetry | None = None
    allow_request_headers: bool = False
    forbidden: bool = False  # TCP only


@dataclass(frozen=True, slots=True)
class OutboundRoute:
    meta: Meta
    rules: tuple[OutboundRule, ...]
    hostnames: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OutboundPolicy:
    """`kind`: detect, http1, http2, grpc, opaque or tls; the routes are those of that kind."""

    meta: Meta
    port: int
    kind: str
    routes: tuple[OutboundRoute, ...] = ()
    opaque_routes: tuple[OutboundRoute, ...] = ()
    accrual: Accrual | None = None


Target = AddressAuthority | ServiceAuthority


def outbound_policy(index: Index, target: Target, client_ns: str) -> tuple[OutboundPolicy | None, set[Source]]:
    """None when nothing is known: a pod's address, a name of no Service."""
    if isinstance(target, ServiceAuthority):
        key = target.namespace, target.service
        service = index.services.get(key)
        sources: set[Source] = {("service", *key)}
        if service is None or target.hostname:
            return None, sources
        policy, more = _of_service(index, service, target.port, client_ns)
        return policy, sources | more
    ip = str(target.ip)
    service = index.service_at(ip)
    if service is not None:
        policy, more = _of_service(index, service, target.port, client_ns)
        return policy, more | {("ip", ip)}
    policy, more = _of_egress(index, target, client_ns)
    return policy, more | {("ip", ip)}


# Services


def _of_service(index: Index, service: Service, port: int, client_ns: str) -> tuple[OutboundPolicy, set[Source]]:
    sources: set[Source] = {("service", *service.key), ("routes", *service.key), ("namespace", service.namespace)}
    meta = Meta(service.name, "Service", CORE, service.namespace)
    declared = service.port(port)
    if declared is None:
        return _undefined(meta, port), sources
    routes = _routes_in_force(index, Ref("", "Service", *service.key), port, client_ns)
    parent = _ServiceParent(index, meta, service, port)
    kind = _protocol(index, service, port, declared.app_protocol, routes[0].kind if routes else "")
    return parent.policy(kind, routes), sources | _backend_sources(routes)


def _protocol(index: Index, service: Service, port: int, app_protocol: str | None, kind: str) -> str:
    """What the port says it speaks comes first, then opaque-ports, then the kind of its routes."""
    if app_protocol:
        if app_protocol == "http":
            return "http1"
        if app_protocol == "kubernetes.io/h2c":
            return "grpc" if kind == "GRPCRoute" else "http2"
        return "opaque"
    if port in _opaque_ports(index, service.annotations, service.namespace):
        return "opaque"
    return {"GRPCRoute": "grpc", "TLSRoute": "tls", "TCPRoute": "opaque"}.get(kind, "detect")


def _routes_in_force(index: Index, ref: Ref, port: int, client_ns: str) -> list[Route]:
    """Those of the client's namespace if it has any, else those of the parent's own; of one kind only."""
    named_only = ref.kind == "EgressNetwork"  # whose parentRefs must name a port
    attached = [
        route
        for route, at in index.routes_of(ref)
        if (at == port or (at is None and not named_only)) and not route.problem
    ]
    for namespace in dict.fromkeys((client_ns, ref.namespace)):
        own = dict.fromkeys(route.id for route in attached if route.namespace == namespace)
        found = [index.routes[identity] for identity in own]
        for kind in ROUTE_KINDS:
            of_kind = [route for route in found if route.kind == kind]
            if of_kind:
                return of_kind
    return []


def _backend_sources(routes: list[Route]) -> set[Source]:
    return {("service", *b.ref.key) for route in routes for rule in route.rules for b in rule.backends}


# Parents and their routes


class _Parent(ABC):
    """What routes are attached to: what its annotations say, and how its routes are made from that."""

    def __init__(self, index: Index, meta: Meta, annotations: Mapping[str, str], port: int) -> None:
        self.meta = meta
        self.port = port
        self.index = index
        self.read = _Reader(meta.kind, meta.namespace, meta.name)
        self.accrual = self.read(parse_accrual, annotations, None)
        self.timeouts = self.read(parse_timeouts, annotations, Timeouts())
        self.http_retry = self.read(parse_http_retry, annotations, None)
        self.grpc_retry = self.read(parse_grpc_retry, annotations, None)

    def policy(self, kind: str, routes: list[Route]) -> OutboundPolicy:
        wanted = {"grpc": "GRPCRoute", "tls": "TLSRoute", "opaque": "TCPRoute"}.get(kind, "HTTPRoute")
        made = tuple(self._route(route) for route in routes if route.kind == wanted)
        if kind == "opaque":
            # Nothing tells one connection from another, so only the first route can be in force.
            return OutboundPolicy(self.meta, self.port, kind, (), made[:1] or (self.default_tcp("tcp"),))
        return OutboundPolicy(
            self.meta, self.port, kind, self.with_default(kind, made), (self.default_tcp("tcp"),), self.accrual
        )

    @abstractmethod
    def with_default(self, kind: str, routes: tuple[OutboundRoute, ...]) -> tuple[OutboundRoute, ...]: ...

    @abstractmethod
    def default_tcp(self, protocol: str) -> OutboundRoute: ...

    @abstractmethod
    def own_backend(self) -> Backend: ...

    @abstractmethod
    def network_backend(self, ref: BackendRef) -> Backend: ...

    def _route(self, route: Route) -> OutboundRoute:
        return OutboundRoute(_route_meta(route), tuple(self._rule(route, r) for r in route.rules), route.hostnames)

    def _rule(self, route: Route, rule: Rule) -> OutboundRule:
        read = _Reader(route.kind, route.namespace, route.name)
        timeouts = read(parse_timeouts, route.annotations, Timeouts()) or Timeouts(request=rule.timeout)
        grpc = route.kind == "GRPCRoute"
        own = read(parse_grpc_retry if grpc else parse_http_retry, route.annotations, None)
        backends = tuple(self._backend(ref) for ref in rule.backends)
        return OutboundRule(
            rule.matches,
            rule.filters,
            backends or (self.own_backend(),),
            split=bool(backends),
            timeouts=timeouts or self.timeouts,
            retry=own or (self.grpc_retry if grpc else self.http_retry),
            allow_request_headers=self.index.settings.allow_l5d_request_headers,
        )

    def _backend(self, ref: BackendRef) -> Backend:
        kind = ref.ref.group, ref.ref.kind
        if kind == (POLICY_GROUP, "EgressNetwork"):
            return self.network_backend(ref)
        if kind != ("", "Service"):
            return Backend(Nowhere(f"{ref.ref.kind} {ref.ref.name} is not supported as a backend"), ref.weight)
        service = self.index.services.get(ref.ref.key)
        if service is None:
            return Backend(Nowhere(f"Service not found {ref.ref.name}"), ref.weight, ref.filters)
        if ref.port is None:
            return Backend(Nowhere(f"no port given for Service {ref.ref.name}"), ref.weight, ref.filters)
        read = _Reader("Service", *ref.ref.key)
        penalty = read(parse_penalty, service.annotations, None)
        return Backend(ToService(*ref.ref.key, ref.port, penalty), ref.weight, ref.filters)


class _ServiceParent(_Parent):
    def __init__(self, index: Index, meta: Meta, service: Service, port: int) -> None:
        super().__init__(index, meta, service.annotations, port)
        penalty = self.read(parse_penalty, service.annotations, None)
        self._to = Backend(ToService(service.namespace, service.name, port, penalty))

    def with_default(self, kind: str, routes: tuple[OutboundRoute, ...]) -> tuple[OutboundRoute, ...]:
        """The default only where there is no route: what none matches is not let through."""
        if routes or kind == "tls":
            return routes
        matches = (HttpMatch(PathMatch("PathPrefix", "/")),)
        rule = OutboundRule(matches, backends=(self._to,), timeouts=self.timeouts, retry=self.http_retry)
        return (OutboundRoute(Meta("http"), (rule,)),)

    def default_tcp(self, protocol: str) -> OutboundRoute:
        return OutboundRoute(Meta("opaq"), (OutboundRule(backends=(self._to,)),))

    def own_backend(self) -> Backend:
        return self._to

    def network_backend(self, ref: BackendRef) -> Backend:
        return Backend(Nowhere("EgressNetwork backends attach to EgressNetwork parents only"), ref.weight, ref.filters)


class _EgressParent(_Parent):
    """Its verdict is for whatever none of its routes matches."""

    def __init__(self, index: Index, network: EgressNetwork, target: AddressAuthority) -> None:
        meta = Meta(network.name, "EgressNetwork", POLICY_GROUP, network.namespace)
        super().__init__(index, meta, network.annotations, target.port)
        self._network = network
        self._to = Backend(ToAddress(str(target.ip), target.port, meta))

    def with_default(self, kind: str, routes: tuple[OutboundRoute, ...]) -> tuple[OutboundRoute, ...]:
        return (*routes, self.default_tcp("tls") if kind == "tls" else self._default_http(grpc=kind == "grpc"))

    def default_tcp(self, protocol: str) -> OutboundRoute:
        rule = OutboundRule(backends=(self._to,), forbidden=not self._network.allow)
        return OutboundRoute(Meta(f"{protocol}-egress-{self._verdict}"), (rule,))

    def own_backend(self) -> Backend:
        return self._to

    def network_backend(self, ref: BackendRef) -> Backend:
        if ref.ref.key == self._network.key:
            return replace(self._to, weight=ref.weight, filters=ref.filters)
        if ref.ref.key not in self.index.egress_networks:
            return Backend(Nowhere(f"EgressNetwork not found {ref.ref.name}"), ref.weight, ref.filters)
        message = "Route with EgressNetwork backend needs to have the same EgressNetwork as a parent"
        return Backend(Nowhere(message), ref.weight, ref.filters)

    def _default_http(self, *, grpc: bool) -> OutboundRoute:
        match = GrpcMatch() if grpc else HttpMatch(PathMatch("PathPrefix", "/"))
        refusal = InjectedFailure(7 if grpc else 403, "traffic not allowed")
        filters = () if self._network.allow else (refusal,)
        retry = self.grpc_retry if grpc else self.http_retry
        rule = OutboundRule((match,), filters, (self._to,), timeouts=self.timeouts, retry=retry)
        return OutboundRoute(Meta(f"{'grpc' if grpc else 'http'}-egress-{self._verdict}"), (rule,))

    @property
    def _verdict(self) -> str:
        return "allow" if self._network.allow else "deny"


def _route_meta(route: Route) -> Meta:
    return Meta(route.name, route.kind, route.group, route.namespace)


class _Reader:
    """Reads annotations; one that cannot be read is logged and counts as absent."""

    def __init__(self, kind: str, namespace: str, name: str) -> None:
        self._fields = fields(kind=kind, resource=f"{namespace}/{name}")

    def __call__(self, parse: Callable[[Mapping[str, str]], T], annotations: Mapping[str, str], default: T) -> T:
        try:
            return parse(annotations)
        except ValueError as error:
            log.warning("annotation ignored: %s", error, extra=self._fields)
            return default


# Outside of the cluster


def _of_egress(index: Index, target: AddressAuthority, client_ns: str) -> tuple[OutboundPolicy | None, set[Source]]:
    sources: set[Source] = {EGRESS}
    network = _egress_network(index, target, client_ns)
    if network is None:
        inside = contains(index.settings.cluster_networks, target.ip)
        return None if inside else _fallback(target), sources
    sources |= {("routes", *network.key), ("namespace", network.namespace)}
    routes = _routes_in_force(index, Ref(POLICY_GROUP, "EgressNetwork", *network.key), target.port, client_ns)
    kind = {"GRPCRoute": "grpc", "TLSRoute": "tls", "TCPRoute": "opaque"}.get(
        routes[0].kind if routes else "", "detect"
    )
    if target.port in _opaque_ports(index, network.annotations, network.namespace):
        kind = "opaque"
    return _EgressParent(index, network, target).policy(kind, routes), sources | _backend_sources(routes)


def _egress_network(index: Index, target: AddressAuthority, client_ns: str) -> EgressNetwork | None:
    """Of the client's namespace if it has any, else the global ones; the narrowest that holds the address."""
    ip = ip_address(target.ip)
    for namespace in (client_ns, index.settings.egress_namespace):
        found = [network for network in index.egress_networks.values() if network.namespace == namespace]
        if found:
            matching = [(_width(index, network, ip), network.created, network.key, network) for network in found]
            chosen = min((m for m in matching if m[0] is not None), key=lambda m: m[:3], default=None)
            return chosen[3] if chosen else None
    return None


def _width(index: Index, network: EgressNetwork, ip: object) -> int | None:
    """How many bits of freedom its narrowest network that holds the address has; None when none holds it."""
    if not network.networks:
        return None if contains(index.settings.cluster_networks, ip) else 129  # type: ignore[arg-type]
    return min((n.net.max_prefixlen - n.net.prefixlen for n in network.networks if ip in n), default=None)  # type: ignore[operator]


def _fallback(target: AddressAuthority) -> OutboundPolicy:
    """The world outside, about which nobody said anything: pass it on as it is."""
    meta = Meta("egress-fallback")
    forward = Backend(ToAddress(str(target.ip), target.port, meta))
    route = OutboundRoute(meta, (OutboundRule(backends=(forward,)),))
    return OutboundPolicy(meta, target.port, "detect", (route,), (route,))


def _undefined(meta: Meta, port: int) -> OutboundPolicy:
    """A port that the Service does not have: nobody would answer."""
    route = OutboundRoute(Meta("undefined-port"), (OutboundRule(forbidden=True),))
    return OutboundPolicy(meta, port, "opaque", opaque_routes=(route,))


def _opaque_ports(index: Index, annotations: Mapping[str, str], namespace: str) -> PortSet:
    found = annotations.get(OPAQUE_PORTS)
    if found is None:
        found = index.namespace_annotations(namespace).get(OPAQUE_PORTS)
    if found is None:
        return index.settings.opaque_ports
    return parse_port_set_leniently(found)[0]
