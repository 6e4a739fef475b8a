"""Made-up proxies that can be tapped, and the events they tell."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from linkerd.proto import http_types_pb2, net_pb2
from linkerd.proto import tap_pb2 as tap
from linkerd.proto.tap_pb2_grpc import TapServicer, add_TapServicer_to_server


def address(text: str) -> net_pb2.TcpAddress:
    ip, _, port = text.rpartition(":")
    return net_pb2.TcpAddress(ip=net_pb2.IPAddress(ipv4=int(ipaddress.IPv4Address(ip))), port=int(port))


@dataclass
class Request:
    """One request as a proxy sees it."""

    stream: int = 0
    method: str = "GET"
    path: str = "/"
    authority: str = "web.shop.svc.cluster.local"
    status: int = 200
    milliseconds: float = 12.0
    source: str = "127.0.0.9:51000"
    destination: str = "127.0.0.2:8080"
    direction: str = "INBOUND"
    headers: dict[str, bytes] = field(default_factory=dict)

    def events(self) -> list[tap.TapEvent]:
        """Its beginning, its response, its end."""
        stream_id = tap.TapEvent.Http.StreamId(base=0, stream=self.stream)
        init = tap.TapEvent.Http.RequestInit(
            id=stream_id,
            method=http_types_pb2.HttpMethod(registered=self.method),
            scheme=http_types_pb2.Scheme(registered="HTTP"),
            authority=self.authority,
            path=self.path,
        )
        for name, value in self.headers.items():
            init.headers.headers.add(name=name, value=value)
        response = tap.TapEvent.Http.ResponseInit(id=stream_id, http_status=self.status)
        response.since_request_init.FromNanoseconds(round(self.milliseconds * 1e6))
        end = tap.TapEvent.Http.ResponseEnd(id=stream_id, response_bytes=5)
        end.since_request_init.FromNanoseconds(round(self.milliseconds * 1e6) + 100_000)
        end.since_response_init.FromNanoseconds(100_000)
        return [self._event(request_init=init), self._event(response_init=response), self._event(response_end=end)]

    def _event(self, **http) -> tap.TapEvent:
        return tap.TapEvent(
            source=address(self.source),
            source_meta=tap.TapEvent.EndpointMeta(labels={"tls": "true"}),
            destination=address(self.destination),
            proxy_direction=self.direction,
            http=tap.TapEvent.Http(**http),
        )


class TappedProxy(TapServicer):
    """Tells what is put into it, to whoever observes."""

    def __init__(self) -> None:
        self.asked: list[tap.ObserveRequest] = []
        self.identities: list[str] = []
        self.observed = asyncio.Event()
        self._events: asyncio.Queue[tap.TapEvent | str | None] = asyncio.Queue()

    def see(self, request: Request) -> None:
        for event in request.events():
            self._events.put_nowait(event)

    def tell(self, event: tap.TapEvent) -> None:
        self._events.put_nowait(event)

    def refuse(self, message: str) -> None:
        """The request is not valid."""
        self._events.put_nowait(message)

    def end_stream(self) -> None:
        """As when the limit of requests was reached."""
        self._events.put_nowait(None)

    async def Observe(self, request: tap.ObserveRequest, context) -> AsyncIterator[tap.TapEvent]:
        self.asked.append(request)
        self.identities += [value for key, value in context.invocation_metadata() if key == "l5d-require-id"]
        self.observed.set()
        while (event := await self._events.get()) is not None:
            if isinstance(event, str):
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, event)
            yield event


@asynccontextmanager
async def serving_proxy(proxy: TappedProxy, ip: str, port: int = 0) -> AsyncIterator[int]:
    server = grpc.aio.server()
    add_TapServicer_to_server(proxy, server)
    bound = server.add_insecure_port(f"{ip}:{port}")
    await server.start()
    try:
        yield bound
    finally:
        await server.stop(0)
