"""An outbound policy as `io.linkerd.proxy.outbound.OutboundPolicy`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from linkerd.core.authorities import service_name
from linkerd.policy.annotations import Accrual, Backoff, GrpcRetry, HttpRetry, Timeouts, Unified
from linkerd.policy.inbound import Meta
from linkerd.policy.outbound import (
    Backend,
    Nowhere,
    OutboundPolicy,
    OutboundRoute,
    OutboundRule,
    ToAddress,
    ToService,
)
from linkerd.policy.translate import common
from linkerd.policy.values import Filter, HeaderModifier, HttpMatch, InjectedFailure, Redirect
from linkerd.proto import opaque_route_pb2 as opaque_route
from linkerd.proto import outbound_pb2 as pb
from linkerd.proto import tls_route_pb2 as tls_route
from linkerd.proto.destination_pb2 import WeightedAddr
from linkerd.proto.http_route_pb2 import Timeouts as WireTimeouts
from linkerd.proto.net_pb2 import TcpAddress

_DETECT_TIMEOUT = 10.0  # seconds
_QUEUE = 100, 3.0  # requests, seconds until it fails fast
_DEFAULT_RTT, _DECAY = 0.03, 10.0  # seconds
_MAX_REQUEST_BYTES = 64 * 1024  # what may be kept of a request to send it again
_RETRY_BACKOFF = Backoff(0.025, 0.25, 1.0)


class Translator:
    """Knows the name of the cluster, which balancers' addresses end in."""

    def __init__(self, cluster_domain: str) -> None:
        self._domain = cluster_domain

    def policy_message(self, policy: OutboundPolicy) -> pb.OutboundPolicy:
        return pb.OutboundPolicy(
            metadata=common.metadata(policy.meta, port=policy.port), protocol=self._protocol(policy)
        )

    def _protocol(self, policy: OutboundPolicy) -> pb.ProxyProtocol:
        accrual = _accrual(policy.accrual) if policy.accrual else None
        opaque = pb.ProxyProtocol.Opaque(routes=[self._opaque_route(r) for r in policy.opaque_routes])
        match policy.kind:
            case "opaque":
                return pb.ProxyProtocol(opaque=opaque)
            case "tls":
                routes = [self._tls_route(r) for r in policy.routes]
                return pb.ProxyProtocol(tls=pb.ProxyProtocol.Tls(routes=routes))
            case "grpc":
                calls = [self._grpc_route(r) for r in policy.routes]
                return pb.ProxyProtocol(grpc=pb.ProxyProtocol.Grpc(routes=calls, failure_accrual=accrual))
        routes = [self._http_route(r) for r in policy.routes]
        http1 = pb.ProxyProtocol.Http1(routes=routes, failure_accrual=accrual)
        http2 = pb.ProxyProtocol.Http2(routes=routes, failure_accrual=accrual)
        if policy.kind == "http1":
            return pb.ProxyProtocol(http1=http1)
        if policy.kind == "http2":
            return pb.ProxyProtocol(http2=http2)
        timeout = common.duration(_DETECT_TIMEOUT)
        return pb.ProxyProtocol(
            detect=pb.ProxyProtocol.Detect(timeout=timeout, opaque=opaque, http1=http1, http2=http2)
        )

    # HTTP

    def _http_route(self, route: OutboundRoute) -> pb.HttpRoute:
        return pb.HttpRoute(
            metadata=common.metadata(route.meta),
            hosts=common.hosts(route.hostnames),
            rules=[self._http_rule(rule) for rule in route.rules],
        )

    def _http_rule(self, rule: OutboundRule) -> pb.HttpRoute.Rule:
        message = pb.HttpRoute.Rule(
            matches=[common.http_match(m) for m in rule.matches if isinstance(m, HttpMatch)],
            filters=[_http_filter(f) for f in rule.filters],
            backends=self._http_distribution(rule),
            allow_l5d_request_headers=rule.allow_request_headers,
        )
        _set_timeouts(message, rule.timeouts)
        if isinstance(rule.retry, HttpRetry):
            message.retry.CopyFrom(_http_retry(rule.retry))
        return message

    def _http_distribution(self, rule: OutboundRule) -> pb.HttpRoute.Distribution:
        kind = pb.HttpRoute
        if not rule.split:
            found = kind.Distribution.FirstAvailable(backends=[self._http_backend(b) for b in rule.backends])
            return kind.Distribution(first_available=found)
        weighted = [b for b in rule.backends if b.weight]
        if not weighted:
            return kind.Distribution(empty=kind.Distribution.Empty())
        chosen = [kind.WeightedRouteBackend(weight=b.weight, backend=self._http_backend(b)) for b in weighted]
        return kind.Distribution(random_available=kind.Distribution.RandomAvailable(backends=chosen))

    def _http_backend(self, backend: Backend) -> pb.HttpRoute.RouteBackend:
        filters = [_http_filter(f) for f in backend.filters]
        if isinstance(backend.to, Nowhere):
            filters = [_http_filter(InjectedFailure(500, backend.to.message))]
        return pb.HttpRoute.RouteBackend(backend=self._backend(backend), filters=filters)

    # gRPC

    def _grpc_route(self, route: OutboundRoute) -> pb.GrpcRoute:
        return pb.GrpcRoute(
            metadata=common.metadata(route.meta),
            hosts=common.hosts(route.hostnames),
            rules=[self._grpc_rule(rule) for rule in route.rules],
        )

    def _grpc_rule(self, rule: OutboundRule) -> pb.GrpcRoute.Rule:
        message = pb.GrpcRoute.Rule(
            matches=[common.grpc_match(m) for m in rule.matches if not isinstance(m, HttpMatch)],
            filters=_grpc_filters(rule.filters),
            backends=self._grpc_distribution(rule),
            allow_l5d_request_headers=rule.allow_request_headers,
        )
        _set_timeouts(message, rule.timeouts)
        if isinstance(rule.retry, GrpcRetry):
            message.retry.CopyFrom(_grpc_retry(rule.retry))
        return message

    def _grpc_distribution(self, rule: OutboundRule) -> pb.GrpcRoute.Distribution:
        kind = pb.GrpcRoute
        if not rule.split:
            found = kind.Distribution.FirstAvailable(backends=[self._grpc_backend(b) for b in rule.backends])
            return kind.Distribution(first_available=found)
        weighted = [b for b in rule.backends if b.weight]
        if not weighted:
            return kind.Distribution(empty=kind.Distribution.Empty())
        chosen = [kind.WeightedRouteBackend(weight=b.weight, backend=self._grpc_backend(b)) for b in weighted]
        return kind.Distribution(random_available=kind.Distribution.RandomAvailable(backends=chosen))

    def _grpc_backend(self, backend: Backend) -> pb.GrpcRoute.RouteBackend:
        filters = _grpc_filters(backend.filters)
        if isinstance(backend.to, Nowhere):
            # gRPC's UNIMPLEMENTED says that nobody is there to serve it, as HTTP's 500 does above.
            filters = _grpc_filters([InjectedFailure(12, backend.to.message)])
        return pb.GrpcRoute.RouteBackend(backend=self._backend(backend), filters=filters)

    # TCP

    def _opaque_route(self, route: OutboundRoute) -> pb.OpaqueRoute:
        rules = [self._connection_rule(rule, pb.OpaqueRoute) for rule in route.rules]
        return pb.OpaqueRoute(metadata=common.metadata(route.meta), rules=rules)

    def _tls_route(self, route: OutboundRoute) -> pb.TlsRoute:
        rules = [self._connection_rule(rule, pb.TlsRoute) for rule in route.rules]
        return pb.TlsRoute(metadata=common.metadata(route.meta), snis=_snis(route.hostnames), rules=rules)

    def _connection_rule(self, rule: OutboundRule, kind: Any) -> Any:
        """Of an OpaqueRoute or a TlsRoute, whose messages are alike."""
        filters = [kind.Filter(forbidden=opaque_route.Forbidden())] if rule.forbidden else []
        return kind.Rule(backends=self._connection_distribution(rule, kind), filters=filters)

    def _connection_distribution(self, rule: OutboundRule, kind: Any) -> Any:
        backends = [(b.weight, self._connection_backend(b, kind)) for b in rule.backends if b.weight]
        if not backends:
            return kind.Distribution(empty=kind.Distribution.Empty())
        if not rule.split:
            found = kind.Distribution.FirstAvailable(backends=[backend for _, backend in backends])
            return kind.Distribution(first_available=found)
        chosen = [kind.WeightedRouteBackend(weight=weight, backend=backend) for weight, backend in backends]
        return kind.Distribution(random_available=kind.Distribution.RandomAvailable(backends=chosen))

    def _connection_backend(self, backend: Backend, kind: Any) -> Any:
        filters = []
        if isinstance(backend.to, Nowhere):
            filters = [kind.Filter(invalid=opaque_route.Invalid(message=backend.to.message))]
        return kind.RouteBackend(backend=self._backend(backend), filters=filters)

    # Backends

    def _backend(self, backend: Backend) -> pb.Backend:
        capacity, failfast = _QUEUE
        queue = pb.Queue(capacity=capacity, failfast_timeout=common.duration(failfast))
        match backend.to:
            case ToService():
                meta = Meta(backend.to.name, "Service", "core", backend.to.namespace)
                balancer = self._balancer(backend.to)
                return pb.Backend(metadata=common.metadata(meta, port=backend.to.port), queue=queue, balancer=balancer)
            case ToAddress(ip, port, meta):
                forward = WeightedAddr(addr=TcpAddress(ip=common.address(ip), port=port), weight=1)
                return pb.Backend(metadata=common.metadata(meta, port=port), queue=queue, forward=forward)
            case Nowhere():
                return pb.Backend(metadata=common.Metadata(default="invalid"), queue=queue)

    def _balancer(self, to: ToService) -> pb.Backend.BalanceP2c:
        name = service_name(to.namespace, to.name, self._domain)
        target = pb.Backend.EndpointDiscovery.DestinationGet(path=f"{name}:{to.port}")
        balancer = pb.Backend.BalanceP2c(discovery=pb.Backend.EndpointDiscovery(dst=target))
        rtt, decay = common.duration(_DEFAULT_RTT), common.duration(_DECAY)
        if to.penalty is None:
            balancer.peak_ewma.CopyFrom(pb.Backend.BalanceP2c.PeakEwma(default_rtt=rtt, decay=decay))
            return balancer
        balancer.penalty_peak_ewma.CopyFrom(
            pb.Backend.BalanceP2c.PenaltyPeakEwma(
                default_rtt=rtt,
                decay=decay,
                penalty=common.duration(to.penalty.penalty),
                max_retry_after=common.duration(to.penalty.max_retry_after),
                penalty_decay=decay,
            )
        )
        return balancer


def _set_timeouts(message: pb.HttpRoute.Rule | pb.GrpcRoute.Rule, timeouts: Timeouts) -> None:
    if not timeouts:
        return
    wire = WireTimeouts()
    for name in ("request", "response", "idle"):
        value = getattr(timeouts, name)
        if value is not None:
            getattr(wire, name).CopyFrom(common.duration(value))
    message.timeouts.CopyFrom(wire)
    if timeouts.request is not None:
        message.requestTimeout.CopyFrom(common.duration(timeouts.request))  # what older proxies read


def _http_filter(found: Filter) -> pb.HttpRoute.Filter:
    match found:
        case HeaderModifier(response=True):
            return pb.HttpRoute.Filter(response_header_modifier=common.response_header_modifier(found))
        case HeaderModifier():
            return pb.HttpRoute.Filter(request_header_modifier=common.request_header_modifier(found))
        case Redirect():
            return pb.HttpRoute.Filter(redirect=common.redirect(found))
        case InjectedFailure():
            return pb.HttpRoute.Filter(failure_injector=common.http_failure(found))


def _grpc_filters(filters: Iterable[Filter]) -> list[pb.GrpcRoute.Filter]:
    """What gRPC routes can carry on the wire."""
    made = []
    for found in filters:
        if isinstance(found, HeaderModifier) and not found.response:
            made.append(pb.GrpcRoute.Filter(request_header_modifier=common.request_header_modifier(found)))
        elif isinstance(found, InjectedFailure):
            made.append(pb.GrpcRoute.Filter(failure_injector=common.grpc_failure(found)))
    return made


def _snis(hostnames: tuple[str, ...]) -> list[tls_route.SniMatch]:
    found = []
    for name in hostnames:
        if name.startswith("*."):
            suffix = tls_route.SniMatch.Suffix(reverse_labels=name[2:].split(".")[::-1])
            found.append(tls_route.SniMatch(suffix=suffix))
        else:
            found.append(tls_route.SniMatch(exact=name))
    return found


def _http_retry(retry: HttpRetry) -> pb.HttpRoute.Retry:
    kind = pb.HttpRoute.Retry
    ranges = [kind.Conditions.StatusRange(start=low, end=high) for low, high in retry.statuses]
    message = kind(
        max_retries=retry.limit,
        max_request_bytes=_MAX_REQUEST_BYTES,
        conditions=kind.Conditions(status_ranges=ranges),
        backoff=_backoff(_RETRY_BACKOFF),
    )
    if retry.timeout is not None:
        message.timeout.CopyFrom(common.duration(retry.timeout))
    return message


def _grpc_retry(retry: GrpcRetry) -> pb.GrpcRoute.Retry:
    kind = pb.GrpcRoute.Retry
    # The schema has one of them misspelled.
    names = {c: "deadine_exceeded" if c == "deadline-exceeded" else c.replace("-", "_") for c in retry.conditions}
    message = kind(
        max_retries=retry.limit,
        max_request_bytes=_MAX_REQUEST_BYTES,
        conditions=kind.Conditions(**dict.fromkeys(names.values(), True)),
        backoff=_backoff(_RETRY_BACKOFF),
    )
    if retry.timeout is not None:
        message.timeout.CopyFrom(common.duration(retry.timeout))
    return message


def _accrual(accrual: Accrual) -> pb.FailureAccrual:
    backoff = _backoff(accrual.backoff)
    if isinstance(accrual, Unified):
        backoff.respect_retry_after_hint = accrual.honor_retry_after
        unified = pb.FailureAccrual.Unified(
            success_rate_threshold=accrual.success_rate,
            decay=common.duration(accrual.window),
            min_requests=accrual.requests,
            max_consecutive_failures=accrual.failures,
            backoff=backoff,
        )
        return pb.FailureAccrual(unified=unified)
    consecutive = pb.FailureAccrual.ConsecutiveFailures(max_failures=accrual.failures, backoff=backoff)
    return pb.FailureAccrual(consecutive_failures=consecutive)


def _backoff(backoff: Backoff) -> pb.ExponentialBackoff:
    return pb.ExponentialBackoff(
        min_backoff=common.duration(backoff.low),
        max_backoff=common.duration(backoff.high),
        jitter_ratio=backoff.jitter,
    )
