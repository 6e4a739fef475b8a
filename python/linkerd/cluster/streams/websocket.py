"""A WebSocket on a server's connection, and Kubernetes' channels on it."""

from __future__ import annotations

import contextlib

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from linkerd.cluster.streams.channels import ChannelProtocol, Message
from linkerd.cluster.streams.duplex import Duplex, Inbox

MAX_MESSAGE = 32 * 1024 * 1024  # bytes; what kubelet's library takes


class WebSocketError(ValueError):
    """The peer broke the WebSocket protocol or sent too long a message."""


class WebSocket:
    """Messages over a connection that was upgraded already."""

    def __init__(self, duplex: Duplex) -> None:
        self._duplex = duplex
        self._protocol = Connection(ConnectionType.SERVER)
        self._events = self._protocol.events()
        self._message = bytearray()
        self._closed = False

    async def receive(self) -> bytes | None:
        """The payload of the next message, text or binary; None at the end. Raises WebSocketError."""
        while True:
            try:
                for event in self._events:
                    if isinstance(event, CloseConnection):
                        await self._answer_close(event)
                        return None
                    if isinstance(event, Ping) and not self._closed:
                        await self._duplex.write(self._protocol.send(event.response()))
                    if isinstance(event, TextMessage | BytesMessage) and (message := self._assemble(event)) is not None:
                        return message
                data = await self._duplex.read()
                if not data:
                    return None
                self._protocol.receive_data(data)
                self._events = self._protocol.events()
            except RemoteProtocolError as error:
                raise WebSocketError(str(error)) from error

    async def send(self, payload: bytes | str) -> None:
        """Raises OSError when the connection broke; after the closing nothing is sent."""
        if self._closed:
            return
        event = TextMessage(payload) if isinstance(payload, str) else BytesMessage(payload)
        try:
            data = self._protocol.send(event)
        except LocalProtocolError:
            return  # the peer has closed; its close event is on its way to `receive`
        await self._duplex.write(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Starts the closing handshake; `receive` then gives None once the peer has answered."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(LocalProtocolError, OSError):
            await self._duplex.write(self._protocol.send(CloseConnection(code, reason)))

    def _assemble(self, event: TextMessage | BytesMessage) -> bytes | None:
        self._message += event.data.encode() if isinstance(event.data, str) else event.data
        if len(self._message) > MAX_MESSAGE:
            raise WebSocketError(f"a message of more than {MAX_MESSAGE} bytes")
        if not event.message_finished:
            return None
        message = bytes(self._message)
        self._message.clear()
        return message

    async def _answer_close(self, event: CloseConnection) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(LocalProtocolError, OSError):
            await self._duplex.write(self._protocol.send(event.response()))


class TunnelDuplex:
    """The bytes of another protocol inside the binary messages of a WebSocket."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def read(self) -> bytes:
        """Some bytes; empty at the end. Raises WebSocketError."""
        while (message := await self._websocket.receive()) is not None:
            if message:
                return message
        return b""

    async def write(self, data: bytes) -> None:
        await self._websocket.send(data)

    async def close(self) -> None:
        await self._websocket.close()


class ChannelSink:
    """One channel towards the client."""

    def __init__(self, channels: Channels, number: int) -> None:
        self._channels = channels
        self._number = number

    async def write(self, data: bytes) -> None:
        await self._channels.send(self._number, data)


class ChannelSource:
    """One channel from the client."""

    def __init__(self) -> None:
        self.inbox = Inbox()

    async def read(self) -> bytes:
        return await self.inbox.get()


class Channels:
    """The channels of one WebSocket; `run` must be running for anything to arrive."""

    def __init__(self, websocket: WebSocket, protocol: ChannelProtocol) -> None:
        self.protocol = protocol
        self._websocket = websocket
        self._sources: dict[int, ChannelSource] = {}

    def source(self, number: int) -> ChannelSource:
        """Take the client's bytes of a channel; those of channels nobody takes are dropped."""
        source = self._sources[number] = ChannelSource()
        return source

    def sink(self, number: int) -> ChannelSink:
        return ChannelSink(self, number)

    async def send(self, number: int, data: bytes) -> None:
        await self._websocket.send(self.protocol.encode(Message(number, data)))

    async def run(self) -> None:
        """Takes the client's messages until it closes. Raises WebSocketError and ChannelError."""
        try:
            while (payload := await self._websocket.receive()) is not None:
                message = self.protocol.decode(payload)
                source = self._sources.get(message.channel) if message else None
                if message is None or source is None:
                    continue
                if message.closes:
                    await source.inbox.end()
                else:
                    await source.inbox.put(message.data)
        finally:
            for source in self._sources.values():
                await source.inbox.end()

    async def close(self) -> None:
        for source in self._sources.values():
            await source.inbox.discard()
        await self._websocket.close()
