"""How a client's traffic to an address or a Service is to be treated. Pure: the index in, one value out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    declared = service.port(port)
    if declared is None:
        return _undefined(port), sources
    settings = _ServiceSettings(index, service, port)
    routes = _routes_in_force(index, service, port, client_ns)
    sources |= {("service", *b.ref.key) for route in routes for rule in route.rules for b in rule.backends}
    kind = _protocol(index, service, port, declared.app_protocol, routes[0].kind if routes else "")
    wanted = {"grpc": "GRPCRoute", "tls": "TLSRoute", "opaque": "TCPRoute"}.get(kind, "HTTPRoute")
    made = tuple(settings.route(route) for route in routes if route.kind == wanted and kind != "opaque")
    policy = OutboundPolicy(
        settings.meta,
        port,
        kind,
        made or ((settings.default_route(),) if kind not in ("opaque", "tls") else ()),
        (settings.opaque_route([r for r in routes if r.kind in ("TCPRoute", "TLSRoute")]),),
        settings.accrual,
    )
    return policy, sources


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


def _routes_in_force(index: Index, service: Service, port: int, client_ns: str) -> list[Route]:
    """Those of the client's namespace if it has any, else those of the Service's own; of one kind only."""
    ref = Ref("", "Service", service.namespace, service.name)
    attached = [route for route, at in index.routes_of(ref) if at in (None, port) and not route.problem]
    for namespace in dict.fromkeys((client_ns, service.namespace)):
        own = dict.fromkeys(r.id for r in attached if r.namespace == namespace)
        found = [index.routes[identity] for identity in own]
        for kind in ROUTE_KINDS:
            of_kind = [route for route in found if route.kind == kind]
            if of_kind:
                return of_kind
    return []


class _ServiceSettings:
    """What a Service's annotations say, and how its routes are made from that."""

    def __init__(self, index: Index, service: Service, port: int) -> None:
        self._index = index
        self._service = service
        self._port = port
        read = _Reader("Service", service.namespace, service.name)
        annotations = service.annotations
        self.meta = Meta(service.name, "Service", CORE, service.namespace)
        self.accrual = read(parse_accrual, annotations, None)
        self._timeouts = read(parse_timeouts, annotations, Timeouts())
        self._http_retry = read(parse_http_retry, annotations, None)
        self._grpc_retry = read(parse_grpc_retry, annotations, None)
        penalty = read(parse_penalty, annotations, None)
        self._backend = Backend(ToService(service.namespace, service.name, port, penalty))

    def default_route(self) -> OutboundRoute:
        matches = (HttpMatch(PathMatch("PathPrefix", "/")),)
        rule = OutboundRule(matches, backends=(self._backend,), timeouts=self._timeouts, retry=self._http_retry)
        return OutboundRoute(Meta("http"), (rule,))

    def opaque_route(self, routes: list[Route]) -> OutboundRoute:
        tcp = next((route for route in routes if route.kind == "TCPRoute" and route.rules), None)
        if tcp is None:
            return OutboundRoute(Meta("opaq"), (OutboundRule(backends=(self._backend,)),))
        return OutboundRoute(_route_meta(tcp), (self._rule(tcp, tcp.rules[0]),))

    def route(self, route: Route) -> OutboundRoute:
        return OutboundRoute(_route_meta(route), tuple(self._rule(route, r) for r in route.rules), route.hostnames)

    def _rule(self, route: Route, rule: Rule) -> OutboundRule:
        read = _Reader(route.kind, route.namespace, route.name)
        timeouts = read(parse_timeouts, route.annotations, Timeouts()) or Timeouts(request=rule.timeout)
        grpc = route.kind == "GRPCRoute"
        own = read(parse_grpc_retry if grpc else parse_http_retry, route.annotations, None)
        backends = tuple(_backend(self._index, ref) for ref in rule.backends)
        return OutboundRule(
            rule.matches,
            rule.filters,
            backends or (self._backend,),
            split=bool(backends),
            timeouts=timeouts or self._timeouts,
            retry=own or (self._grpc_retry if grpc else self._http_retry),
            allow_request_headers=self._index.settings.allow_l5d_request_headers,
        )


def _route_meta(route: Route) -> Meta:
    return Meta(route.name, route.kind, route.group, route.namespace)


def _backend(index: Index, ref: BackendRef) -> Backend:
    if (ref.ref.group, ref.ref.kind) != ("", "Service"):
        return Backend(Nowhere(f"{ref.ref.kind} {ref.ref.name} is not supported as a backend"), ref.weight)
    service = index.services.get(ref.ref.key)
    if service is None:
        return Backend(Nowhere(f"Service not found {ref.ref.name}"), ref.weight, ref.filters)
    if ref.port is None:
        return Backend(Nowhere(f"no port given for Service {ref.ref.name}"), ref.weight, ref.filters)
    read = _Reader("Service", *ref.ref.key)
    penalty = read(parse_penalty, service.annotations, None)
    return Backend(ToService(*ref.ref.key, ref.port, penalty), ref.weight, ref.filters)


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
    if network is not None:
        sources |= {("routes", *network.key), ("namespace", network.namespace)}
        return _of_egress_network(index, network, target, client_ns), sources
    if contains(index.settings.cluster_networks, target.ip):
        return None, sources
    return _fallback(target), sources


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


def _of_egress_network(
    index: Index, network: EgressNetwork, target: AddressAuthority, client_ns: str
) -> OutboundPolicy:
    read = _Reader("EgressNetwork", network.namespace, network.name)
    meta = Meta(network.name, "EgressNetwork", POLICY_GROUP, network.namespace)
    forward = Backend(ToAddress(str(target.ip), target.port, meta))
    timeouts = read(parse_timeouts, network.annotations, Timeouts())
    attached = _egress_routes(index, network, target.port, client_ns)
    kind = {"GRPCRoute": "grpc", "TLSRoute": "tls", "TCPRoute": "opaque"}.get(attached[0].kind if attached else "")
    if kind is None:
        opaque = target.port in _opaque_ports(index, network.annotations, network.namespace)
        kind = "opaque" if opaque else "detect"
    routes = tuple(_egress_route(route, forward, network, read) for route in attached if kind != "opaque")
    default = _egress_default(network, forward, timeouts, grpc=kind == "grpc")
    prefix = "tls" if kind == "tls" else "tcp"
    tcp = OutboundRoute(
        Meta(f"{prefix}-egress-{_verdict(network)}"),
        (OutboundRule(backends=(forward,), forbidden=not network.allow),),
    )
    accrual = read(parse_accrual, network.annotations, None)
    made = (*routes, default) if kind in ("detect", "grpc") else routes
    return OutboundPolicy(meta, target.port, kind, made, (tcp,), accrual)


def _egress_routes(index: Index, network: EgressNetwork, port: int, client_ns: str) -> list[Route]:
    ref = Ref(POLICY_GROUP, "EgressNetwork", network.namespace, network.name)
    attached = [route for route, at in index.routes_of(ref) if at == port and not route.problem]
    for namespace in dict.fromkeys((client_ns, network.namespace)):
        own = [route for route in attached if route.namespace == namespace]
        for kind in ROUTE_KINDS:
            of_kind = [route for route in own if route.kind == kind]
            if of_kind:
                return of_kind
    return []


def _egress_route(route: Route, forward: Backend, network: EgressNetwork, read: _Reader) -> OutboundRoute:
    parse_retry = parse_grpc_retry if route.kind == "GRPCRoute" else parse_http_retry
    timeouts = read(parse_timeouts, route.annotations, Timeouts())
    retry = read(parse_retry, route.annotations, None) or read(parse_retry, network.annotations, None)
    rules = tuple(
        OutboundRule(
            rule.matches,
            rule.filters,
            (forward,),
            timeouts=timeouts or Timeouts(request=rule.timeout),
            retry=retry,
        )
        for rule in route.rules
    )
    return OutboundRoute(_route_meta(route), rules, route.hostnames)


def _egress_default(network: EgressNetwork, forward: Backend, timeouts: Timeouts, *, grpc: bool) -> OutboundRoute:
    match = GrpcMatch() if grpc else HttpMatch(PathMatch("PathPrefix", "/"))
    refusal = InjectedFailure(7 if grpc else 403, "traffic not allowed")
    filters = () if network.allow else (refusal,)
    name = f"{'grpc' if grpc else 'http'}-egress-{_verdict(network)}"
    return OutboundRoute(Meta(name), (OutboundRule((match,), filters, (forward,), timeouts=timeouts),))


def _verdict(network: EgressNetwork) -> str:
    return "allow" if network.allow else "deny"


def _fallback(target: AddressAuthority) -> OutboundPolicy:
    """The world outside, about which nobody said anything: pass it on as it is."""
    meta = Meta("egress-fallback")
    forward = Backend(ToAddress(str(target.ip), target.port, meta))
    route = OutboundRoute(meta, (OutboundRule(backends=(forward,)),))
    return OutboundPolicy(meta, target.port, "detect", (route,), (route,))


def _undefined(port: int) -> OutboundPolicy:
    """A port that the Service does not have: nobody would answer."""
    meta = Meta("undefined-port")
    route = OutboundRoute(meta, (OutboundRule(forbidden=True),))
    return OutboundPolicy(meta, port, "opaque", opaque_routes=(route,))


def _opaque_ports(index: Index, annotations: Mapping[str, str], namespace: str) -> PortSet:
    found = annotations.get(OPAQUE_PORTS)
    if found is None:
        found = index.namespace_annotations(namespace).get(OPAQUE_PORTS)
    if found is None:
        return index.settings.opaque_ports
    return parse_port_set_leniently(found)[0]
