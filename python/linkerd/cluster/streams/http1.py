"""HTTP/1.1 on one connection: requests in, responses, streamed bodies or an upgrade out. Knows no route."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import h11
from wsproto.utilities import generate_accept_token

from linkerd.cluster.streams.duplex import READ_SIZE, SocketDuplex

MAX_HEAD = 64 * 1024  # bytes of request line and headers; kubelet's megabyte serves nobody here
MAX_BODY = 1024 * 1024  # bytes that are read and dropped before an answer
_IDLE_SECONDS = 90.0  # between two requests, as kubelet
_HEAD_SECONDS = 30.0  # from the first byte of a request to the end of its head

Header = tuple[bytes, bytes]


class HttpError(Exception):
    """A request that is answered with this status and text."""

    def __init__(self, status: int, message: str, headers: Iterable[Header] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = list(headers)


class Disconnected(Exception):
    """The client closed the connection while its answer was still under way."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: tuple[Header, ...] = field(repr=False)  # may carry a bearer token

    def header(self, name: str) -> str:
        """The first value; empty without one."""
        return next(iter(self.header_values(name)), "")

    def header_values(self, name: str) -> list[str]:
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key == wanted]

    def header_list(self, name: str) -> list[str]:
        """A comma-separated header over all its lines."""
        return [part.strip() for value in self.header_values(name) for part in value.split(",") if part.strip()]

    def flag(self, name: str) -> bool:
        """A parameter that is `1` or `true`."""
        return self.parameter(name) in ("1", "true")

    def parameter(self, name: str) -> str:
        """The first value of a query parameter; empty without one."""
        return next(iter(self.query.get(name, ())), "")

    def upgrades_to(self, protocol: str) -> bool:
        offered = any(name.lower() == protocol for name in self.header_list("upgrade"))
        return offered and any(name.lower() == "upgrade" for name in self.header_list("connection"))


class Connection:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._head_only = False

    async def next_request(self) -> Request | None:
        """The next request with its body dropped; None when the connection is over or has nothing left to say.

        Raises HttpError for one that cannot be parsed; the connection must be closed after answering that.
        """
        try:
            event = await self._head()
            if not isinstance(event, h11.Request):
                return None
            self._head_only = event.method == b"HEAD"
            await self._drop_body()
        except h11.RemoteProtocolError as error:
            raise HttpError(error.error_status_hint, str(error)) from error
        except (TimeoutError, ConnectionError):
            return None
        return _request(event)

    async def respond(
        self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8", headers: Iterable[Header] = ()
    ) -> None:
        head = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode()), *headers]
        sent = [] if self._head_only else [h11.Data(data=body)]
        await self._send(_response(status, head), *sent, h11.EndOfMessage())

    async def respond_json(self, value: Any) -> None:
        await self.respond(200, json.dumps(value, separators=(",", ":")).encode(), "application/json")

    async def respond_error(self, error: HttpError) -> None:
        await self.respond(error.status, error.message.encode() + b"\n", headers=error.headers)

    async def start_stream(self, content_type: str) -> None:
        """The head of a chunked answer, sent at once: a follower waits for it even while there is nothing to read."""
        head = [(b"content-type", content_type.encode()), (b"transfer-encoding", b"chunked")]
        await self._send(_response(200, head))

    async def stream(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end_stream(self) -> None:
        await self._send(h11.EndOfMessage())

    async def wait_disconnect(self) -> None:
        """Raises Disconnected when the client goes away. What it sends meanwhile is kept for the next request."""
        kept = 0
        while kept <= MAX_HEAD:
            try:
                data = await self._reader.read(READ_SIZE)
            except OSError:
                data = b""
            if not data:
                raise Disconnected
            self._h11.receive_data(data)
            kept += len(data)
        raise Disconnected

    async def upgrade(self, headers: Iterable[Header]) -> SocketDuplex:
        """Leave HTTP: the rest of the connection as bytes."""
        head = [(b"connection", b"Upgrade"), *headers]
        await self._send(h11.InformationalResponse(status_code=101, headers=head, reason=b"Switching Protocols"))
        received, _ = self._h11.trailing_data
        return SocketDuplex(self._reader, self._writer, received)

    async def upgrade_websocket(self, request: Request, subprotocol: str) -> SocketDuplex:
        """The WebSocket handshake (RFC 6455, 4.2.2)."""
        key = request.header("sec-websocket-key")
        if request.header("sec-websocket-version") != "13" or not key:
            raise HttpError(400, "a WebSocket needs version 13 and a key", [(b"sec-websocket-version", b"13")])
        headers = [(b"upgrade", b"websocket"), (b"sec-websocket-accept", generate_accept_token(key.encode()))]
        if subprotocol:
            headers.append((b"sec-websocket-protocol", subprotocol.encode()))
        return await self.upgrade(headers)

    def reusable(self) -> bool:
        """Prepare for another request on this connection, if both sides allow it."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    @property
    def answering(self) -> bool:
        """An answer can still be started."""
        return self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    async def _head(self) -> h11.Request | h11.ConnectionClosed | None:
        idle = True
        while True:
            event = self._h11.next_event()
            if event is h11.PAUSED:
                return None
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]  # before a request nothing else can come
            async with asyncio.timeout(_IDLE_SECONDS if idle else _HEAD_SECONDS):
                self._h11.receive_data(await self._reader.read(READ_SIZE))
            idle = False

    async def _drop_body(self) -> None:
        dropped = 0
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    await self._send(h11.InformationalResponse(status_code=100, headers=[]))
                async with asyncio.timeout(_HEAD_SECONDS):
                    self._h11.receive_data(await self._reader.read(READ_SIZE))
            elif isinstance(event, h11.Data):
                dropped += len(event.data)
                if dropped > MAX_BODY:
                    raise HttpError(413, f"a body of more than {MAX_BODY} bytes")
            else:
                return

    async def _send(self, *events: h11.Event) -> None:
        for event in events:
            data = self._h11.send(event)
            if data:
                self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _response(status: int, headers: list[Header]) -> h11.Response:
    return h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())


def _request(event: h11.Request) -> Request:
    target = urlsplit(event.target.decode("latin-1"))
    return Request(
        method=event.method.decode(),
        path=unquote(target.path),
        query=parse_qs(target.query, keep_blank_values=True),
        headers=tuple(event.headers),
    )
