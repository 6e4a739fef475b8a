"""TCP connections to pods' ports through the API server.

The protocol is the channels of `v4.channel.k8s.io`: the API server hands it on as it is and every kubelet serves it,
while SPDY inside a WebSocket, kubectl's choice, needs a server of 1.30. Its weakness: a client cannot say that it has
sent everything without giving up the answer. So a caller that ends its half keeps the connection only as long as the
answer goes on arriving.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp

from linkerd.k8s.client import Client
from linkerd.k8s.errors import ApiError
from linkerd.k8s.resources import PODS
from linkerd.kit.background import background

log = logging.getLogger(__name__)

_PROTOCOL = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_PORT_SIZE = 2  # bytes of the port, the first message of either channel
_READ_SIZE = 64 * 1024
_QUIET_SECONDS = 5.0  # without an answer after the caller's end of sending


class ForwardError(Exception):
    """The port of the pod could not be reached or its connection broke; the message is the node's."""


@contextlib.asynccontextmanager
async def forward(
    client: Client, namespace: str, pod: str, port: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """One connection to a pod's port. The reader ends when the pod's side does.

    Raises ApiError when the API refuses. A port that the node cannot reach reads as ended at once, and raises
    ForwardError at the block's end.
    """
    async with _websocket(client, namespace, pod, port) as websocket:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        remote = await asyncio.open_connection(sock=theirs)
        failures: list[str] = []
        try:
            async with background() as start:
                start(_carry(websocket, *remote, failures.append))
                yield reader, writer
        finally:
            writer.close()
            remote[1].close()
    if failures:
        raise ForwardError(failures[0])


@dataclass
class Listener:
    """A local port that leads to a pod's. `failure` is what the node said last, empty while all went well."""

    host: str
    port: int
    failure: str = ""


@contextlib.asynccontextmanager
async def listen(
    client: Client, namespace: str, pod: str, port: int, *, local_host: str = "127.0.0.1", local_port: int = 0
) -> AsyncIterator[Listener]:
    """Serves a local TCP port (0: any free one), each connection forwarded by itself, until the block ends.

    OSError when the local port cannot be had. Later failures end the one connection and are kept in `failure`.
    """
    async with background() as start:
        listener = Listener(local_host, local_port)

        def failed(message: str) -> None:
            listener.failure = message
            log.warning("forwarding to port %d of pod %s/%s: %s", port, namespace, pod, message)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            listener.failure = ""
            await _forward_accepted(client, (namespace, pod, port), reader, writer, failed)

        server = await asyncio.start_server(lambda *pair: start(serve(*pair)), local_host, local_port)
        async with server:
            listener.port = server.sockets[0].getsockname()[1]
            yield listener


async def _forward_accepted(
    client: Client,
    target: tuple[str, str, int],
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    failed: Callable[[str], None],
) -> None:
    try:
        async with _websocket(client, *target) as websocket:
            await _carry(websocket, reader, writer, failed)
    except (ApiError, aiohttp.ClientError, TimeoutError) as error:
        failed(str(error) or type(error).__name__)
    finally:
        writer.close()


def _websocket(
    client: Client, namespace: str, pod: str, port: int
) -> contextlib.AbstractAsyncContextManager[aiohttp.ClientWebSocketResponse]:
    path = PODS.path(namespace, pod, "portforward")
    return client.websocket(path, query=[("ports", str(port))], protocols=[_PROTOCOL])


async def _carry(
    websocket: aiohttp.ClientWebSocketResponse,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    failed: Callable[[str], None],
) -> None:
    """Both ways until the pod's side ends. What went wrong there is told before the caller sees the end."""
    received = _Received(websocket, writer, failed)
    async with asyncio.TaskGroup() as tasks:
        sending = tasks.create_task(_send(websocket, reader, received))
        await received.run()
        sending.cancel()


class _Received:
    """The pod's bytes on their way to the caller."""

    def __init__(
        self,
        websocket: aiohttp.ClientWebSocketResponse,
        writer: asyncio.StreamWriter,
        failed: Callable[[str], None],
    ) -> None:
        self._websocket = websocket
        self._writer = writer
        self._failed = failed
        self._skip = {_DATA: _PORT_SIZE, _ERROR: _PORT_SIZE}
        self._failure = b""
        self.count = 0

    async def run(self) -> None:
        async for message in self._websocket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            self.count += 1
            channel, data = message.data[0], self._after_port(message.data)
            if channel == _ERROR:
                self._failure += data
            elif channel == _DATA and data:
                await self._write(data)
        if self._failure:
            self._failed(self._failure.decode(errors="replace"))
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()

    def _after_port(self, message: bytes) -> bytes:
        skip = self._skip.get(message[0], 0)
        if skip:
            self._skip[message[0]] = max(0, skip - (len(message) - 1))
        return message[1 + skip :]

    async def _write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            await self._websocket.close()  # the caller has gone; this ends the loop above


async def _send(websocket: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader, received: _Received) -> None:
    try:
        while data := await reader.read(_READ_SIZE):
            await websocket.send_bytes(bytes((_DATA,)) + data)
        before = -1
        while before != received.count:
            before = received.count
            await asyncio.sleep(_QUIET_SECONDS)
        await websocket.close()
    except (ConnectionError, aiohttp.ClientConnectionResetError):
        pass  # either side has gone; the receiving half sees it too and says what there is to say
