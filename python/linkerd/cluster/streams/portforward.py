"""Port-forward: TCP connections to a pod's ports, over whichever protocol the client came with.

A forwarded connection ends when the pod's side has ended its half; a client that ends only its own half still gets
the rest of the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable

from linkerd.cluster.streams.channels import PORT_FORWARD_PROTOCOLS, SPDY_TUNNEL, choose_protocol
from linkerd.cluster.streams.duplex import READ_SIZE, Duplex
from linkerd.cluster.streams.http1 import Connection, HttpError, Request
from linkerd.cluster.streams.multiplexing import Session, Stream
from linkerd.cluster.streams.remotecommand import Sink, Source
from linkerd.cluster.streams.upgrading import negotiate_spdy
from linkerd.cluster.streams.websocket import Channels, TunnelDuplex, WebSocket

log = logging.getLogger(__name__)

PROTOCOL = "portforward.k8s.io"

_PAIR_SECONDS = 30.0  # for the second stream of a pair
_LINGER_SECONDS = 5.0
_MAX_PORTS = 64  # of one WebSocket; the channel's number is one byte, and each port has two

Dial = Callable[[int], Awaitable[socket.socket]]
"""A connection to a port of the pod; raises OSError, NotFound or NotRunning."""


class ForwardError(Exception):
    """The port could not be reached; the message is for the client."""


async def serve_port_forward(connection: Connection, request: Request, pod: str, dial: Dial) -> None:
    """Upgrades the connection and forwards until the client leaves. Raises HttpError before the upgrade."""
    if not request.upgrades_to("websocket"):
        _, headers = negotiate_spdy(request, (PROTOCOL,))
        await _serve_streams(await connection.upgrade(headers), pod, dial)
        return
    offered = request.header_list("sec-websocket-protocol")
    if SPDY_TUNNEL in offered:
        websocket = WebSocket(await connection.upgrade_websocket(request, SPDY_TUNNEL))
        await _serve_streams(TunnelDuplex(websocket), pod, dial)
    else:
        await _serve_channels(connection, request, offered, pod, dial)


# Streams of SPDY, in pairs of data and error


async def _serve_streams(duplex: Duplex, pod: str, dial: Dial) -> None:
    session = Session(duplex)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(session.run())
        pairs = _Pairs(session, pod, dial, tasks)
        async for stream in session.streams():
            await pairs.add(stream)
        pairs.cancel()
        await session.close()
        await duplex.close()


class _Pairs:
    """The forwarded connections of one session, by the client's request id."""

    def __init__(self, session: Session, pod: str, dial: Dial, tasks: asyncio.TaskGroup) -> None:
        self._session = session
        self._pod = pod
        self._dial = dial
        self._tasks = tasks
        self._waiting: dict[str, tuple[Stream, asyncio.Task[None]]] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def add(self, stream: Stream) -> None:
        kind, port = stream.headers.get("streamtype", ""), _parse_port(stream.headers.get("port", ""))
        if kind not in ("data", "error") or port is None:
            log.warning("a port-forward stream was rejected: type %r, port %r", kind, stream.headers.get("port"))
            await stream.reset()
            return
        request_id = stream.headers.get("requestid") or _guessed_request_id(kind, stream.id)
        if request_id not in self._waiting:
            self._waiting[request_id] = stream, self._start(self._expire(request_id, stream))
            return
        other, expiry = self._waiting.pop(request_id)
        expiry.cancel()
        if other.headers.get("streamtype") == kind:
            log.warning("two %s streams of the port-forward request %r", kind, request_id)
            await stream.reset()
            await other.reset()
            return
        data, error = (stream, other) if kind == "data" else (other, stream)
        self._start(self._forward(data, error, port))

    def cancel(self) -> None:
        for task in self._running:
            task.cancel()

    def _start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(work)  # type: ignore[arg-type]  # always one of the coroutines below
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _expire(self, request_id: str, stream: Stream) -> None:
        await asyncio.sleep(_PAIR_SECONDS)
        del self._waiting[request_id]
        with contextlib.suppress(OSError):
            await stream.reset()

    async def _forward(self, data: Stream, error: Stream, port: int) -> None:
        try:
            await _forward(data, data, port, self._dial)
        except ForwardError as failure:
            log.info("port-forward to port %d of pod %s: %s", port, self._pod, failure)
            # Resetting both, as kubelet does, lets the client make new streams instead of waiting on these.
            with contextlib.suppress(OSError):
                await error.write(_failure_text(port, self._pod, failure))
                await data.reset()
                await error.reset()
        else:
            with contextlib.suppress(OSError):
                await data.finish()
                await error.finish()
        finally:
            await data.inbox.discard()
            self._session.release(data, error)


def _guessed_request_id(kind: str, stream_id: int) -> str:
    """For clients older than the header: they open the error stream and right after it the data stream."""
    return str(stream_id if kind == "error" else stream_id - 2)


# Channels of a WebSocket, in pairs of data and error


async def _serve_channels(connection: Connection, request: Request, offered: list[str], pod: str, dial: Dial) -> None:
    ports = parse_ports(request)
    protocol = choose_protocol(offered, PORT_FORWARD_PROTOCOLS)
    if protocol is None:
        supported = [SPDY_TUNNEL, *(known.name for known in PORT_FORWARD_PROTOCOLS)]
        raise HttpError(403, f"requested protocol(s) are not supported: {offered}; supports {supported}")
    channels = Channels(WebSocket(await connection.upgrade_websocket(request, protocol.name)), protocol)
    async with asyncio.TaskGroup() as tasks:
        sources = [channels.source(2 * index) for index in range(len(ports))]
        reading = tasks.create_task(channels.run())
        forwards = [
            tasks.create_task(_forward_channel(channels, 2 * index, sources[index], port, pod, dial))
            for index, port in enumerate(ports)
        ]
        await asyncio.wait([reading, tasks.create_task(_all_done(forwards))], return_when=asyncio.FIRST_COMPLETED)
        await channels.close()
        await asyncio.wait([reading], timeout=_LINGER_SECONDS)
        for task in (reading, *forwards):
            task.cancel()


async def _all_done(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _forward_channel(channels: Channels, number: int, source: Source, port: int, pod: str, dial: Dial) -> None:
    data, error = channels.sink(number), channels.sink(number + 1)
    with contextlib.suppress(OSError):
        # The first message of each channel is the port, by which the client knows which channel is which.
        await data.write(port.to_bytes(2, "little"))
        await error.write(port.to_bytes(2, "little"))
        try:
            await _forward(source, data, port, dial)
        except ForwardError as failure:
            log.info("port-forward to port %d of pod %s: %s", port, pod, failure)
            await error.write(_failure_text(port, pod, failure))
    await source.inbox.discard()


def parse_ports(request: Request) -> list[int]:
    """The ports of a WebSocket's URL. Raises HttpError."""
    values = [part for value in request.query.get("port", ()) for part in value.split(",")]
    ports = [port for value in values if (port := _parse_port(value)) is not None]
    if not ports:
        raise HttpError(400, 'query parameter "port" is required')
    if len(ports) != len(values) or len(ports) > _MAX_PORTS:
        raise HttpError(400, f"unable to parse {','.join(values)!r} as ports, at most {_MAX_PORTS} of 1 to 65535")
    return ports


def _parse_port(text: str) -> int | None:
    if not text.isascii() or not text.isdigit():
        return None
    return int(text) if 0 < int(text[:6]) < 65536 and len(text) < 6 else None


# One connection


async def _forward(source: Source, sink: Sink, port: int, dial: Dial) -> None:
    """Until the pod's side has ended, or the client is gone. Raises ForwardError."""
    try:
        peer = await dial(port)
    except (OSError, LookupError, RuntimeError) as error:
        raise ForwardError(f"failed to connect to localhost:{port} inside the pod: {_reason(error)}") from error
    with peer:
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(_send(source, peer))
            failure = await _receive(peer, sink)
            sending.cancel()
    if failure is not None:
        raise ForwardError(f"the connection inside the pod broke: {_reason(failure)}")


async def _send(source: Source, peer: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    try:
        while data := await source.read():
            await loop.sock_sendall(peer, data)
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        await source.inbox.discard()  # the pod's side takes no more; what it still says is of interest


async def _receive(peer: socket.socket, sink: Sink) -> OSError | None:
    """Until either side is gone; the error with which the pod's side ended, if it did."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await loop.sock_recv(peer, READ_SIZE)
        except OSError as error:
            return error
        if not data:
            return None
        try:
            await sink.write(data)
        except OSError:
            return None


def _failure_text(port: int, pod: str, failure: ForwardError) -> bytes:
    return f"error forwarding port {port} to pod {pod}: {failure}".encode()


def _reason(error: Exception) -> str:
    """The system's own words; asyncio puts the address there instead."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
