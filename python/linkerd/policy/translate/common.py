"""Parts that inbound and outbound policies share on the wire."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from google.protobuf.duration_pb2 import Duration

from linkerd.core.networks import IPNetwork
from linkerd.policy.inbound import Meta
from linkerd.policy.values import GrpcMatch, HeaderModifier, HttpMatch, InjectedFailure, PathMatch, Redirect, Text
from linkerd.proto import grpc_route_pb2 as grpc_route
from linkerd.proto import http_route_pb2 as http_route
from linkerd.proto.http_types_pb2 import Headers, HttpMethod, Scheme
from linkerd.proto.meta_pb2 import Metadata, Resource
from linkerd.proto.net_pb2 import IPAddress, IPv6
from linkerd.proto.net_pb2 import IPNetwork as WireNetwork


def metadata(meta: Meta, *, port: int = 0) -> Metadata:
    if meta.kind == "default":
        return Metadata(default=meta.name)
    resource = Resource(group=meta.group, kind=meta.kind, name=meta.name, namespace=meta.namespace, port=port)
    return Metadata(resource=resource)


def duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 10**9))
    return message


@lru_cache(maxsize=4096)
def address(ip: str | IPv4Address | IPv6Address) -> IPAddress:
    parsed = ip_address(ip)
    if parsed.version == 4:
        return IPAddress(ipv4=int(parsed))
    return IPAddress(ipv6=IPv6(first=int(parsed) >> 64, last=int(parsed) & (2**64 - 1)))


def network(net: IPNetwork) -> WireNetwork:
    return WireNetwork(ip=address(net.network_address), prefix_len=net.prefixlen)


def hosts(hostnames: Iterable[str]) -> Iterator[http_route.HostMatch]:
    for name in hostnames:
        if name.startswith("*."):
            reversed_labels = name[2:].split(".")[::-1]
            yield http_route.HostMatch(suffix=http_route.HostMatch.Suffix(reverse_labels=reversed_labels))
        else:
            yield http_route.HostMatch(exact=name)


def http_match(match: HttpMatch) -> http_route.HttpRouteMatch:
    message = http_route.HttpRouteMatch(
        headers=[_header(name, text) for name, text in match.headers],
        query_params=[_param(name, text) for name, text in match.params],
    )
    if match.path is not None:
        message.path.CopyFrom(_path(match.path))
    if match.method:
        message.method.CopyFrom(method(match.method))
    return message


def grpc_match(match: GrpcMatch) -> grpc_route.GrpcRouteMatch:
    message = grpc_route.GrpcRouteMatch(headers=[_header(name, text) for name, text in match.headers])
    if match.service or match.method:
        message.rpc.CopyFrom(grpc_route.GrpcRpcMatch(service=match.service, method=match.method))
    return message


def method(name: str) -> HttpMethod:
    if name in HttpMethod.Registered.keys():  # noqa: SIM118 - an enum wrapper, not a dict
        return HttpMethod(registered=HttpMethod.Registered.Value(name))
    return HttpMethod(unregistered=name)


def request_header_modifier(modifier: HeaderModifier) -> http_route.RequestHeaderModifier:
    added, put = _headers(modifier.add), _headers(modifier.set)
    return http_route.RequestHeaderModifier(add=added, set=put, remove=modifier.remove)


def response_header_modifier(modifier: HeaderModifier) -> http_route.ResponseHeaderModifier:
    added, put = _headers(modifier.add), _headers(modifier.set)
    return http_route.ResponseHeaderModifier(add=added, set=put, remove=modifier.remove)


def redirect(redirect: Redirect) -> http_route.RequestRedirect:
    message = http_route.RequestRedirect(host=redirect.host, port=redirect.port, status=redirect.status)
    if redirect.scheme:
        message.scheme.CopyFrom(Scheme(registered=Scheme.Registered.Value(redirect.scheme.upper())))
    if redirect.full_path is not None:
        message.path.full = redirect.full_path
    elif redirect.prefix is not None:
        message.path.prefix = redirect.prefix
    return message


def http_failure(failure: InjectedFailure) -> http_route.HttpFailureInjector:
    return http_route.HttpFailureInjector(status=failure.status, message=failure.message)


def grpc_failure(failure: InjectedFailure) -> grpc_route.GrpcFailureInjector:
    return grpc_route.GrpcFailureInjector(code=failure.status, message=failure.message)


def _headers(pairs: Iterable[tuple[str, str]]) -> Headers:
    return Headers(headers=[Headers.Header(name=name, value=value.encode()) for name, value in pairs])


def _path(path: PathMatch) -> http_route.PathMatch:
    if path.kind == "Exact":
        return http_route.PathMatch(exact=path.value)
    if path.kind == "RegularExpression":
        return http_route.PathMatch(regex=path.value)
    return http_route.PathMatch(prefix=path.value)


def _header(name: str, text: Text) -> http_route.HeaderMatch:
    if text.regex:
        return http_route.HeaderMatch(name=name, regex=text.value)
    return http_route.HeaderMatch(name=name, exact=text.value.encode())


def _param(name: str, text: Text) -> http_route.QueryParamMatch:
    if text.regex:
        return http_route.QueryParamMatch(name=name, regex=text.value)
    return http_route.QueryParamMatch(name=name, exact=text.value)
