"""A tap's events as lines and as JSON. Pure."""

from __future__ import annotations

import base64
import ipaddress
from typing import Any

from linkerd.cli.output.numbers import precise_milliseconds
from linkerd.proto import viz_net_pb2, viz_pb2
from linkerd.proto import viz_tap_pb2 as tap

GRPC_CODES = (
    "OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists",
    "PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented",
    "Internal", "Unavailable", "DataLoss", "Unauthenticated",
)  # fmt: skip

Stream = tuple[int, int]

_DIRECTIONS = {tap.TapEvent.INBOUND: "in ", tap.TapEvent.OUTBOUND: "out"}


def part_of(event: tap.TapEvent) -> str:
    """`request_init`, `response_init` or `response_end`; empty for something else."""
    return event.http.WhichOneof("event") or "" if event.WhichOneof("event") == "http" else ""


def stream_of(event: tap.TapEvent) -> Stream:
    stream_id = getattr(event.http, part_of(event)).id
    return stream_id.base, stream_id.stream


def line(event: tap.TapEvent, *, wide: bool = False) -> str:
    """One line, without its end."""
    words = [_head(event), *_own(event)]
    if event.cause_code:
        words.append(f"cause={event.cause_code}")
    if event.close_reason not in ("", "server"):
        words.append(f"close={event.close_reason}")
    return " ".join([*words, *(_labels(event) if wide else [])])


def _head(event: tap.TapEvent) -> str:
    part = part_of(event)
    names = {"request_init": "req", "response_init": "rsp", "response_end": "end"}
    flow = (
        f"proxy={_DIRECTIONS.get(event.proxy_direction, '???')} "
        f"src={address(event.source)} dst={address(event.destination)} tls={_tls(event)}"
    )
    if part not in names:
        return f"unknown {flow}"
    base, stream = stream_of(event)
    return f"{names[part]} id={base}:{stream} {flow}"


def _own(event: tap.TapEvent) -> list[str]:
    part = part_of(event)
    if part == "request_init":
        request = event.http.request_init
        return [f":method={method(request.method)}", f":authority={request.authority}", f":path={request.path}"]
    if part == "response_init":
        response = event.http.response_init
        return [f":status={response.http_status}", f"latency={_milliseconds(response.since_request_init)}"]
    if part == "response_end":
        end = event.http.response_end
        return [
            *_end_of_stream(end.eos),
            f"duration={_milliseconds(end.since_response_init)}",
            f"response-length={end.response_bytes}B",
        ]
    return []


def _end_of_stream(eos: viz_pb2.Eos) -> list[str]:
    kind = eos.WhichOneof("end")
    if kind == "grpc_status_code":
        return [f"grpc-status={grpc_code(eos.grpc_status_code)}"]
    return [f"reset-error={eos.reset_error_code}"] if kind == "reset_error_code" else []


def grpc_code(number: int) -> str:
    return GRPC_CODES[number] if number < len(GRPC_CODES) else f"Code({number})"


def _milliseconds(duration: Any) -> str:
    return precise_milliseconds(nanoseconds(duration))


def nanoseconds(duration: Any) -> int:
    return duration.seconds * 1_000_000_000 + duration.nanos


def _tls(event: tap.TapEvent) -> str:
    """As seen by the proxy that tells it: on its way in at the source, on its way out at the destination."""
    if event.proxy_direction == tap.TapEvent.INBOUND:
        return event.source_meta.labels.get("tls", "")
    if event.proxy_direction == tap.TapEvent.OUTBOUND:
        return event.destination_meta.labels.get("tls", "")
    return ""


def _labels(event: tap.TapEvent) -> list[str]:
    groups = (
        ("src", event.source_meta.labels),
        ("dst", event.destination_meta.labels),
        ("rt", event.route_meta.labels),
    )
    return [f"{prefix}_{name}={labels[name]}" for prefix, labels in groups for name in sorted(labels)]


def ip(address: viz_net_pb2.IPAddress) -> str:
    if address.WhichOneof("ip") == "ipv6":
        return str(ipaddress.IPv6Address(address.ipv6.first << 64 | address.ipv6.last))
    return str(ipaddress.IPv4Address(address.ipv4))


def address(tcp: viz_net_pb2.TcpAddress) -> str:
    text = ip(tcp.ip)
    return f"[{text}]:{tcp.port}" if ":" in text else f"{text}:{tcp.port}"


def method(value: viz_pb2.HttpMethod) -> str:
    if value.WhichOneof("type") == "unregistered":
        return value.unregistered
    return viz_pb2.HttpMethod.Registered.Name(value.registered)


def scheme(value: viz_pb2.Scheme) -> str:
    if value.WhichOneof("type") == "unregistered":
        return value.unregistered
    return viz_pb2.Scheme.Registered.Name(value.registered)


class JsonEvents:
    """Events as objects. It remembers the requests, because each event of a response carries its request too."""

    def __init__(self) -> None:
        self._requests: dict[Stream, dict[str, Any]] = {}

    def value(self, event: tap.TapEvent) -> dict[str, Any]:
        value: dict[str, Any] = {
            "source": _endpoint(event.source, event.source_meta.labels),
            "destination": _endpoint(event.destination, event.destination_meta.labels),
            "routeMeta": dict(event.route_meta.labels) or None,
            "proxyDirection": tap.TapEvent.ProxyDirection.Name(event.proxy_direction),
        }
        part = part_of(event)
        if part:
            value |= self._http(event, part)
        for name, content in (("causeCode", event.cause_code), ("closeReason", event.close_reason)):
            if content:
                value[name] = content
        return value

    def _http(self, event: tap.TapEvent, part: str) -> dict[str, Any]:
        stream = stream_of(event)
        if part == "request_init":
            self._requests[stream] = _request_init(event.http.request_init)
            return {"requestInit": self._requests[stream]}
        known = self._requests.pop(stream, None) if part == "response_end" else self._requests.get(stream)
        carried = {"requestInit": known} if known else {}
        if part == "response_init":
            return carried | {"responseInit": _response_init(event.http.response_init)}
        return carried | {"responseEnd": _response_end(event)}


def _request_init(request: tap.TapEvent.Http.RequestInit) -> dict[str, Any]:
    return {
        "id": _id(request.id),
        "method": {request.method.WhichOneof("type") or "registered": method(request.method)},
        "scheme": {request.scheme.WhichOneof("type") or "registered": scheme(request.scheme)},
        "authority": request.authority,
        "path": request.path,
        "headers": _headers(request.headers),
    }


def _response_init(response: tap.TapEvent.Http.ResponseInit) -> dict[str, Any]:
    return {
        "id": _id(response.id),
        "sinceRequestInit": _duration(response.since_request_init),
        "httpStatus": response.http_status,
        "headers": _headers(response.headers),
    }


def _response_end(event: tap.TapEvent) -> dict[str, Any]:
    end = event.http.response_end
    value = {
        "id": _id(end.id),
        "sinceRequestInit": _duration(end.since_request_init),
        "sinceResponseInit": _duration(end.since_response_init),
        "responseBytes": end.response_bytes,
        "requestBytes": event.request_bytes,
        "trailers": _headers(end.trailers),
    }
    kind = end.eos.WhichOneof("end")
    if kind == "grpc_status_code":
        value["grpcStatusCode"] = end.eos.grpc_status_code
    if kind == "reset_error_code":
        value["resetErrorCode"] = end.eos.reset_error_code
    return value


def _duration(duration: Any) -> dict[str, int]:
    """The whole time in nanoseconds, so that a filter need not add up two fields."""
    return {"nanos": nanoseconds(duration)}


def _id(stream_id: tap.TapEvent.Http.StreamId) -> dict[str, int]:
    return {"base": stream_id.base, "stream": stream_id.stream}


def _endpoint(tcp: viz_net_pb2.TcpAddress, labels: Any) -> dict[str, Any]:
    return {"ip": ip(tcp.ip), "port": tcp.port, "metadata": dict(sorted(labels.items())) or None}


def _headers(headers: viz_pb2.Headers) -> list[dict[str, str]] | None:
    return [_header(header) for header in headers.headers] or None


def _header(header: viz_pb2.Headers.Header) -> dict[str, str]:
    if header.WhichOneof("value") == "value_bin":
        return {"name": header.name, "valueBin": base64.b64encode(header.value_bin).decode()}
    return {"name": header.name, "valueStr": header.value_str}
