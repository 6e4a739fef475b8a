"""Between the tap API's messages and those of the proxies. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from google.protobuf.message import DecodeError

from linkerd.core import kinds
from linkerd.core.kinds import Target, UnknownKind, parse_kind, target_of
from linkerd.core.label_selectors import parse_label_selector
from linkerd.core.labels import Selector
from linkerd.proto import http_types_pb2, net_pb2, viz_net_pb2, viz_pb2
from linkerd.proto import tap_pb2 as proxy
from linkerd.proto import viz_tap_pb2 as tap
from linkerd.viz.index import Pod, PodIndex

ENDLESS = 2**32 - 1
"""An ObserveRequest's limit that is never reached: `max_rps` bounds the stream instead."""

DEFAULT_MAX_RPS = 100.0

_METHODS = frozenset(http_types_pb2.HttpMethod.Registered.keys())
_SCHEMES = frozenset(http_types_pb2.Scheme.Registered.keys())


class InvalidTap(ValueError):
    """The request cannot be carried out; the text is for the person who made it."""


def selection_from(selection: viz_pb2.ResourceSelection) -> tuple[Target, Selector]:
    """Raises InvalidTap."""
    try:
        kind = parse_kind(selection.resource.type)
        selector = parse_label_selector(selection.label_selector)
    except (UnknownKind, ValueError) as error:
        raise InvalidTap(str(error)) from error
    return target_of(kind, selection.resource.name, selection.resource.namespace), selector


def max_rps_of(request: tap.TapByResourceRequest) -> float:
    return request.maxRps if request.maxRps > 0 else DEFAULT_MAX_RPS


def observe_request(request: tap.TapByResourceRequest, source_ips: Iterable[str] | None = None) -> proxy.ObserveRequest:
    """What each proxy is asked. `source_ips` are the addresses requests may come from; None for any.

    Each proxy may send as many as the whole tap shows: traffic is seldom even over the pods, and what is too much for
    all together is left out where they meet. Raises InvalidTap.
    """
    observe = proxy.ObserveRequest(limit=ENDLESS)
    observe.match.all.SetInParent()
    if request.HasField("match"):
        observe.match.all.matches.append(_match(request.match))
    if source_ips is not None:
        observe.match.all.matches.append(_any_source(source_ips))
    if request.extract.http.HasField("headers"):
        observe.extract.http.headers.SetInParent()
    observe.filter.CopyFrom(request.filter)
    observe.filter.max_rps = max(1, round(max_rps_of(request)))
    return observe


def _match(match: tap.TapByResourceRequest.Match) -> proxy.ObserveRequest.Match:
    kind = match.WhichOneof("match")
    translated = proxy.ObserveRequest.Match()
    if kind in ("all", "any"):
        sequence = getattr(translated, kind)
        sequence.SetInParent()
        sequence.matches.extend(_match(one) for one in getattr(match, kind).matches)
    elif kind == "not":
        getattr(translated, "not").CopyFrom(_match(getattr(match, "not")))
    elif kind == "destinations":
        translated.all.matches.extend(_destinations(match.destinations))
    elif kind == "http":
        translated.http.CopyFrom(_http(match.http))
    else:
        translated.all.SetInParent()
    return translated


def _destinations(selection: viz_pb2.ResourceSelection) -> list[proxy.ObserveRequest.Match]:
    """By the labels that the destination service gave the endpoint."""
    target, _ = selection_from(selection)
    if target.kind not in (*kinds.TAP_KINDS, kinds.SERVICE):
        raise InvalidTap(f"unsupported resource type [{target.kind}]")
    labels = {target.kind.label: target.name, "namespace": target.namespace}
    if target.kind is kinds.NAMESPACE:
        labels = {"namespace": target.name}
    return [
        proxy.ObserveRequest.Match(destination_label=proxy.ObserveRequest.Match.Label(key=key, value=value))
        for key, value in labels.items()
        if value
    ]


def _http(http: tap.TapByResourceRequest.Match.Http) -> proxy.ObserveRequest.Match.Http:
    kind = http.WhichOneof("match")
    match = proxy.ObserveRequest.Match.Http()
    if kind == "method":
        match.method.CopyFrom(_method(http.method))
    elif kind == "scheme":
        match.scheme.CopyFrom(_scheme(http.scheme))
    elif kind == "authority":
        match.authority.exact = http.authority
    elif kind == "path":
        match.path.prefix = http.path
    return match


def _method(text: str) -> http_types_pb2.HttpMethod:
    if text.upper() in _METHODS:
        return http_types_pb2.HttpMethod(registered=text.upper())
    return http_types_pb2.HttpMethod(unregistered=text.upper())


def _scheme(text: str) -> http_types_pb2.Scheme:
    if text.upper() in _SCHEMES:
        return http_types_pb2.Scheme(registered=text.upper())
    return http_types_pb2.Scheme(unregistered=text)


def _any_source(addresses: Iterable[str]) -> proxy.ObserveRequest.Match:
    """Nothing matches when there are no addresses."""
    match = proxy.ObserveRequest.Match()
    match.any.SetInParent()
    for address in addresses:
        parsed = ipaddress.ip_address(address)
        netmask = match.any.matches.add().source.netmask
        netmask.mask = parsed.max_prefixlen
        netmask.ip.CopyFrom(_ip_message(parsed))
    return match


def _ip_message(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> net_pb2.IPAddress:
    value = int(address)
    if address.version == 4:
        return net_pb2.IPAddress(ipv4=value)
    return net_pb2.IPAddress(ipv6=net_pb2.IPv6(first=value >> 64, last=value & (2**64 - 1)))


# Events


def parse_event(data: bytes) -> tap.TapEvent:
    """A proxy's event as the tap API tells it.

    The two messages have the same numbers and the same wire types, so the bytes of one are the other; only header
    values differ, which are bytes in the proxy's and text in ours. A value that is no text makes the parser refuse, and
    then the headers are carried over one by one.
    """
    try:
        return tap.TapEvent.FromString(data)
    except DecodeError:
        return _event_with_binary_headers(data)


def _event_with_binary_headers(data: bytes) -> tap.TapEvent:
    event = proxy.TapEvent.FromString(data)
    part = event.http.WhichOneof("event") or "request_init"
    field = "trailers" if part == "response_end" else "headers"
    headers = http_types_pb2.Headers()
    headers.CopyFrom(getattr(getattr(event.http, part), field))
    getattr(event.http, part).ClearField(field)
    translated = tap.TapEvent.FromString(event.SerializeToString())
    target = getattr(getattr(translated.http, part), field)
    for header in headers.headers:
        one = target.headers.add(name=header.name)
        try:
            one.value_str = header.value.decode()
        except UnicodeDecodeError:
            one.value_bin = header.value
    return translated


def ip_text(address: viz_net_pb2.IPAddress) -> str:
    """Empty when there is none."""
    kind = address.WhichOneof("ip")
    if kind == "ipv4":
        return str(ipaddress.IPv4Address(address.ipv4))
    if kind == "ipv6":
        return str(ipaddress.IPv6Address(address.ipv6.first << 64 | address.ipv6.last))
    return ""


def add_labels(event: tap.TapEvent, index: PodIndex) -> None:
    """Names the pods behind the addresses. An outbound event's destination has its labels from the endpoint already."""
    _label(event.source_meta.labels, event.source, index)
    if event.proxy_direction == tap.TapEvent.INBOUND:
        _label(event.destination_meta.labels, event.destination, index)


def _label(labels: dict[str, str], address: viz_net_pb2.TcpAddress, index: PodIndex) -> None:
    ip = ip_text(address.ip)
    pod = index.by_ip(ip)
    if pod is not None:
        labels.update(pod_labels(pod, index))
        return
    node = index.node_by_ip(ip)
    if node:
        labels["node"] = node


def pod_labels(pod: Pod, index: PodIndex) -> dict[str, str]:
    labels = {"pod": pod.name, "namespace": pod.namespace, "serviceaccount": pod.service_account}
    owner = index.root(pod)
    if owner is not None:
        labels["k8s_job" if owner.kind == "job" else owner.kind] = owner.name
    optional = {"control_plane_ns": pod.control_plane, "pod_template_hash": pod.labels.get("pod-template-hash", "")}
    return labels | {name: value for name, value in optional.items() if value}


def drop_headers(event: tap.TapEvent, ignored: frozenset[str]) -> None:
    """Removes the headers of these (lower-case) names."""
    if not ignored or event.WhichOneof("event") != "http":
        return
    part = event.http.WhichOneof("event")
    if part is None:
        return
    headers = getattr(event.http, part).trailers if part == "response_end" else getattr(event.http, part).headers
    kept = [header for header in headers.headers if header.name.lower() not in ignored]
    if len(kept) != len(headers.headers):
        del headers.headers[:]
        headers.headers.extend(kept)
