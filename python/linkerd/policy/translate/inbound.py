"""An inbound policy as `io.linkerd.proxy.inbound.Server`."""

from __future__ import annotations

from linkerd.core.identities import TrustDomain
from linkerd.core.networks import Network
from linkerd.policy.inbound import Authorization, InboundPolicy, InboundRoute
from linkerd.policy.translate import common
from linkerd.policy.values import (
    AnyTls,
    Authentication,
    Filter,
    HeaderModifier,
    Identities,
    InjectedFailure,
    RateLimit,
    Redirect,
    Rule,
    Unauthenticated,
)
from linkerd.proto import inbound_pb2 as pb

_DETECT_TIMEOUT = 10.0  # seconds


def server_message(policy: InboundPolicy, trust: TrustDomain) -> pb.Server:
    return pb.Server(
        protocol=_protocol(policy, trust),
        authorizations=[_authz(authorization) for authorization in policy.authorizations],
        labels={"group": policy.meta.group, "kind": policy.meta.kind, "name": policy.meta.name},
    )


def _protocol(policy: InboundPolicy, trust: TrustDomain) -> pb.ProxyProtocol:
    routes = [_http_route(route) for route in policy.http_routes]
    limit = _rate_limit(policy.rate_limit, trust) if policy.rate_limit else None
    match policy.protocol:
        case "HTTP/1":
            return pb.ProxyProtocol(http1=pb.ProxyProtocol.Http1(routes=routes, local_rate_limit=limit))
        case "HTTP/2":
            return pb.ProxyProtocol(http2=pb.ProxyProtocol.Http2(routes=routes, local_rate_limit=limit))
        case "gRPC":
            grpc = [_grpc_route(route) for route in policy.grpc_routes] or [_default_grpc_route()]
            return pb.ProxyProtocol(grpc=pb.ProxyProtocol.Grpc(routes=grpc, local_rate_limit=limit))
        case "opaque":
            return pb.ProxyProtocol(opaque=pb.ProxyProtocol.Opaque())
        case "TLS":
            return pb.ProxyProtocol(tls=pb.ProxyProtocol.Tls())
        case _:
            detect = pb.ProxyProtocol.Detect(
                timeout=common.duration(_DETECT_TIMEOUT), http_routes=routes, http_local_rate_limit=limit
            )
            return pb.ProxyProtocol(detect=detect)


def _authz(authorization: Authorization) -> pb.Authz:
    meta = authorization.meta
    return pb.Authz(
        networks=[_network(network) for network in authorization.networks],
        authentication=_authn(authorization.authentication),
        labels={"group": meta.group, "kind": meta.kind, "name": meta.name},
        metadata=common.metadata(meta),
    )


def _network(network: Network) -> pb.Network:
    return pb.Network(net=common.network(network.net), **{"except": [common.network(n) for n in network.excepted]})


def _authn(authentication: Authentication) -> pb.Authn:
    match authentication:
        case Unauthenticated():
            return pb.Authn(unauthenticated=pb.Authn.PermitUnauthenticated())
        case AnyTls():
            anyone = pb.Authn.PermitUnauthenticated()
            return pb.Authn(meshTLS=pb.Authn.PermitMeshTLS(unauthenticated=anyone))
        case Identities(names, suffixes):
            clients = pb.Authn.PermitMeshTLS.PermitClientIdentities(
                identities=[pb.Identity(name=name) for name in names],
                suffixes=[pb.IdentitySuffix(parts=parts) for parts in suffixes],
            )
            return pb.Authn(meshTLS=pb.Authn.PermitMeshTLS(identities=clients))


def _http_route(route: InboundRoute) -> pb.HttpRoute:
    return pb.HttpRoute(
        metadata=common.metadata(route.meta),
        hosts=common.hosts(route.hostnames),
        authorizations=[_authz(a) for a in route.authorizations],
        rules=[_http_rule(rule) for rule in route.rules],
    )


def _http_rule(rule: Rule) -> pb.HttpRoute.Rule:
    filters = [f for f in (_http_filter(f) for f in rule.filters) if f is not None]
    message = pb.HttpRoute.Rule(matches=[common.http_match(m) for m in rule.matches], filters=filters)  # type: ignore[arg-type]
    for found in rule.filters:
        if isinstance(found, HeaderModifier) and found.response:
            message.response_header_modifier.MergeFrom(common.response_header_modifier(found))
    return message


def _http_filter(found: Filter) -> pb.HttpRoute.Filter | None:
    """None for what is no filter on this side: changes of the response, which the rule itself has."""
    match found:
        case HeaderModifier(response=True):
            return None
        case HeaderModifier():
            return pb.HttpRoute.Filter(request_header_modifier=common.request_header_modifier(found))
        case Redirect():
            return pb.HttpRoute.Filter(redirect=common.redirect(found))
        case InjectedFailure():
            return pb.HttpRoute.Filter(failure_injector=common.http_failure(found))


def _grpc_route(route: InboundRoute) -> pb.GrpcRoute:
    rules = []
    for rule in route.rules:
        filters = [
            pb.GrpcRoute.Filter(request_header_modifier=common.request_header_modifier(f))
            for f in rule.filters
            if isinstance(f, HeaderModifier) and not f.response
        ]
        matches = [common.grpc_match(m) for m in rule.matches]  # type: ignore[arg-type]
        rules.append(pb.GrpcRoute.Rule(matches=matches, filters=filters))
    return pb.GrpcRoute(
        metadata=common.metadata(route.meta),
        hosts=common.hosts(route.hostnames),
        authorizations=[_authz(a) for a in route.authorizations],
        rules=rules,
    )


def _default_grpc_route() -> pb.GrpcRoute:
    """Matches any call."""
    return pb.GrpcRoute(
        metadata=common.Metadata(default="default"),
        rules=[pb.GrpcRoute.Rule(matches=[common.grpc_route.GrpcRouteMatch()])],
    )


def _rate_limit(limit: RateLimit, trust: TrustDomain) -> pb.HttpLocalRateLimit:
    message = pb.HttpLocalRateLimit(
        metadata=common.Metadata(
            resource=common.Resource(
                group="policy.linkerd.io",
                kind="HTTPLocalRateLimitPolicy",
                name=limit.name,
                namespace=limit.namespace,
            )
        ),
        overrides=[
            pb.HttpLocalRateLimit.Override(
                limit=pb.HttpLocalRateLimit.Limit(requestsPerSecond=override.per_second),
                clients=pb.HttpLocalRateLimit.Override.ClientIdentities(
                    identities=[pb.Identity(name=trust.service_account(*c.key)) for c in override.clients]
                ),
            )
            for override in limit.overrides
        ],
    )
    if limit.total is not None:
        message.total.requestsPerSecond = limit.total
    if limit.identity is not None:
        message.identity.requestsPerSecond = limit.identity
    return message
