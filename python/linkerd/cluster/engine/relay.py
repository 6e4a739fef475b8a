"""The one way from the host into the cluster: bytes between 127.0.0.1 of the host and the API server inside.

The listening socket was made on the host before the namespaces were entered, so what it accepts is on the host's
network while what is connected here is on the cluster's. TLS passes through untouched.

Everything a user's kubectl does goes through here, so it must not cost much: transports with flow control in both
directions (a reader pauses while the other side's buffer is full), no task per connection. One side's end of sending
is passed on while the other direction lives on, as TCP does it.
"""

from __future__ import annotations

import asyncio
import logging
import socket

log = logging.getLogger(__name__)

_BUFFER = 256 * 1024  # bytes; a watch's initial list should not stall on every window


class _Side(asyncio.Protocol):
    """One end of a relayed connection; `peer` is the other."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _Side | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=_BUFFER)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def eof_received(self) -> bool:
        """True keeps our direction open; it is closed when both have ended."""
        self.ended = True
        peer = self.peer
        if peer is None or peer.transport is None or peer.ended:
            return False
        peer.transport.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        peer, self.peer, self.transport = self.peer, None, None
        if peer is None or peer.transport is None:
            return
        if error is None:
            peer.transport.close()
        else:
            peer.transport.abort()


class _Accepted(_Side):
    """The host's side: it dials the inside before it reads a byte."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._relay.dial(self)


class Relay:
    """Serves a listening socket until the group of its tasks ends."""

    def __init__(self, group: asyncio.TaskGroup, target: tuple[str, int]) -> None:
        self._group = group
        self._target = target

    async def serve(self, listener: socket.socket) -> asyncio.Server:
        """Start accepting."""
        return await asyncio.get_running_loop().create_server(lambda: _Accepted(self), sock=listener, backlog=256)

    def dial(self, side: _Accepted) -> None:
        """Connect an accepted connection to the target."""
        self._group.create_task(self._dial(side))

    async def _dial(self, side: _Accepted) -> None:
        inside = _Side()
        inside.peer = side
        try:
            await asyncio.get_running_loop().create_connection(lambda: inside, *self._target)
        except OSError as error:
            log.debug("the API server does not answer: %s", error)
            if side.transport is not None:
                side.transport.abort()
            return
        if side.transport is None:
            # Gone while we dialled.
            if inside.transport is not None:
                inside.transport.abort()
            return
        side.peer = inside
        side.transport.resume_reading()
