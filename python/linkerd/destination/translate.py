"""Endpoints and profiles as Linkerd's messages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import ip_address

from google.protobuf.duration_pb2 import Duration

from linkerd.core.authorities import service_name
from linkerd.destination.index import (
    Address,
    Endpoint,
    EndpointProfile,
    LogicalProfile,
    Profile,
    UndeclaredPort,
)
from linkerd.destination.profiles import (
    All,
    Method,
    Not,
    Override,
    Path,
    RequestMatch,
    ResponseMatch,
    RetryBudget,
    Route,
    ServiceProfile,
    Some,
    Status,
)
from linkerd.proto import destination_pb2 as pb
from linkerd.proto.http_types_pb2 import HttpMethod
from linkerd.proto.meta_pb2 import Metadata, Resource
from linkerd.proto.net_pb2 import IPAddress, IPv6, TcpAddress

_WHOLE = 10000  # the weight that stands for 1
_IN_ONE_MESSAGE = 1000
"""Endpoints in one message: a client may refuse one of more than 4 MiB."""

_LARGEST_WEIGHT = 2**32 - 1


def updates(
    before: Mapping[Address, Endpoint] | None,
    now: Mapping[Address, Endpoint],
    *,
    labels: Mapping[str, str],
    zone: str,
    exists: bool,
) -> Iterator[pb.Update]:
    """What to say to somebody who was told `before` (None: nothing yet). A first message always comes.

    The first `add` of a stream resets what the client had; so does `no_endpoints`, which must come when there is none.
    """
    if before is None:
        if not now:
            yield pb.Update(no_endpoints=pb.NoEndpoints(exists=exists))
        yield from _adds(now.values(), labels, zone)
        return
    if not now:
        yield pb.Update(no_endpoints=pb.NoEndpoints(exists=exists))
        return
    gone = [address for address in before if address not in now]
    if gone:
        yield pb.Update(remove=pb.AddrSet(addrs=[_address(ip, port) for ip, port in gone]))
    yield from _adds((e for address, e in now.items() if before.get(address) != e), labels, zone)


def profile_message(profile: Profile, *, zone: str, cluster_domain: str) -> pb.DestinationProfile:
    match profile:
        case LogicalProfile():
            return _logical(profile, cluster_domain)
        case EndpointProfile():
            return _endpoint_profile(profile, zone)
        case UndeclaredPort():
            return pb.DestinationProfile(retry_budget=_budget(RetryBudget()))


def _adds(endpoints: Iterable[Endpoint], labels: Mapping[str, str], zone: str) -> Iterator[pb.Update]:
    rest = list(endpoints)
    for start in range(0, len(rest), _IN_ONE_MESSAGE):
        chunk = rest[start : start + _IN_ONE_MESSAGE]
        added = pb.WeightedAddrSet(addrs=[weighted_addr(e, zone) for e in chunk], metric_labels=labels)
        yield pb.Update(add=added)


def weighted_addr(endpoint: Endpoint, zone: str, more_labels: Mapping[str, str] | None = None) -> pb.WeightedAddr:
    """`zone` is the client's."""
    labels = {**endpoint.labels, "zone_locality": _locality(endpoint.zone, zone), **(more_labels or {})}
    message = pb.WeightedAddr(addr=_address(*endpoint.address), weight=_WHOLE, metric_labels=labels)
    if endpoint.pod is not None:
        message.resource_ref.CopyFrom(_resource("core", "Pod", *endpoint.pod, port=endpoint.port))
    if not endpoint.meshed:
        return message
    message.http2.CopyFrom(_keep_alive())
    if endpoint.identity:
        _set_identity(message.tls_identity, endpoint)
    if endpoint.opaque:
        message.protocol_hint.opaque.SetInParent()
    elif endpoint.h2:
        message.protocol_hint.h2.SetInParent()
    if endpoint.inbound_port:
        message.protocol_hint.opaque_transport.inbound_port = endpoint.inbound_port
    return message


def _set_identity(message: pb.TlsIdentity, endpoint: Endpoint) -> None:
    if endpoint.identity.startswith("spiffe://"):
        message.uri_like_identity.uri = endpoint.identity
    else:
        message.dns_like_identity.name = endpoint.identity
    message.server_name.name = endpoint.server_name or endpoint.identity


def _logical(profile: LogicalProfile, cluster_domain: str) -> pb.DestinationProfile:
    found = profile.profile or ServiceProfile(profile.namespace, "")
    message = pb.DestinationProfile(
        fully_qualified_name=service_name(profile.namespace, profile.service, cluster_domain),
        opaque_protocol=profile.opaque,
        routes=[_route(route) for route in found.routes],
        retry_budget=_budget(found.budget),
        dst_overrides=_overrides(profile.overrides, profile.port),
        parent_ref=_resource("core", "Service", profile.namespace, profile.service, port=profile.port),
    )
    if profile.profile is not None:
        message.profile_ref.CopyFrom(_resource("linkerd.io", "ServiceProfile", *profile.profile.key))
    return message


def _endpoint_profile(profile: EndpointProfile, zone: str) -> pb.DestinationProfile:
    more = {"namespace": profile.namespace} if profile.namespace else {}
    endpoint = weighted_addr(profile.endpoint, zone, more)
    return pb.DestinationProfile(
        endpoint=endpoint, opaque_protocol=profile.endpoint.opaque, retry_budget=_budget(RetryBudget())
    )


def _overrides(overrides: tuple[Override, ...], port: int) -> Iterator[pb.WeightedDst]:
    """Weights go over the wire as ten times the thousandths, scaled down together if one would not fit."""
    largest = max((override.weight for override in overrides), default=0) * 10
    scale = -(-largest // _LARGEST_WEIGHT) or 1
    for override in overrides:
        authority = override.authority if ":" in override.authority else f"{override.authority}:{port}"
        weight = override.weight * 10 // scale
        yield pb.WeightedDst(
            authority=authority,
            weight=max(weight, 1) if override.weight else 0,
            backend_ref=_backend(authority),
        )


def _backend(authority: str) -> Metadata | None:
    host, _, port = authority.partition(":")
    service, _, rest = host.partition(".")
    namespace, _, rest = rest.partition(".")
    if not rest.startswith("svc") or not port.isdigit():
        return None
    return _resource("core", "Service", namespace, service, port=int(port))


def _route(route: Route) -> pb.Route:
    message = pb.Route(
        condition=request_match(route.condition),
        response_classes=[
            pb.ResponseClass(condition=response_match(r.condition), is_failure=r.is_failure) for r in route.responses
        ],
        metrics_labels={"route": route.name},
        is_retryable=route.is_retryable,
    )
    if route.timeout > 0:
        message.timeout.CopyFrom(_duration(route.timeout))
    return message


def request_match(match: RequestMatch) -> pb.RequestMatch:
    match match:
        case All(matches):
            return pb.RequestMatch(all=pb.RequestMatch.Seq(matches=[request_match(m) for m in matches]))
        case Some(matches):
            return pb.RequestMatch(any=pb.RequestMatch.Seq(matches=[request_match(m) for m in matches]))
        case Not(inner):
            return pb.RequestMatch(**{"not": request_match(inner)})
        case Path(regex):
            return pb.RequestMatch(path=pb.PathMatch(regex=regex))
        case Method(name):
            return pb.RequestMatch(method=_method(name))


def response_match(match: ResponseMatch) -> pb.ResponseMatch:
    match match:
        case All(matches):
            return pb.ResponseMatch(all=pb.ResponseMatch.Seq(matches=[response_match(m) for m in matches]))
        case Some(matches):
            return pb.ResponseMatch(any=pb.ResponseMatch.Seq(matches=[response_match(m) for m in matches]))
        case Not(inner):
            return pb.ResponseMatch(**{"not": response_match(inner)})
        case Status(low, high):
            return pb.ResponseMatch(status=pb.HttpStatusRange(min=low, max=high))


def _method(name: str) -> HttpMethod:
    if name in HttpMethod.Registered.keys():  # noqa: SIM118 - an enum wrapper, not a dict
        return HttpMethod(registered=HttpMethod.Registered.Value(name))
    return HttpMethod(unregistered=name)


def _budget(budget: RetryBudget) -> pb.RetryBudget:
    return pb.RetryBudget(retry_ratio=budget.ratio, min_retries_per_second=budget.per_second, ttl=_duration(budget.ttl))


@lru_cache(maxsize=1)
def _keep_alive() -> pb.Http2ClientParams:
    """What Linkerd's chart gives clients of meshed endpoints: a dead peer is noticed within 13 s."""
    return pb.Http2ClientParams(
        keep_alive=pb.Http2ClientParams.KeepAlive(interval=_duration(10), timeout=_duration(3), while_idle=True)
    )


def _locality(zone: str, client_zone: str) -> str:
    if not zone or not client_zone:
        return "unknown"
    return "local" if zone == client_zone else "remote"


def _resource(group: str, kind: str, namespace: str, name: str, *, port: int = 0) -> Metadata:
    return Metadata(resource=Resource(group=group, kind=kind, namespace=namespace, name=name, port=port))


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 10**9))
    return message


@lru_cache(maxsize=8192)
def _ip(text: str) -> IPAddress:
    ip = ip_address(text)
    if ip.version == 4:
        return IPAddress(ipv4=int(ip))
    return IPAddress(ipv6=IPv6(first=int(ip) >> 64, last=int(ip) & (2**64 - 1)))


def _address(ip: str, port: int) -> TcpAddress:
    return TcpAddress(ip=_ip(ip), port=port)
