"""The pieces between a protocol and a socket: what carries bytes both ways, and a bounded queue of them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

IDLE_SECONDS = 4 * 60 * 60  # kubelet's streamingConnectionIdleTimeout
READ_SIZE = 64 * 1024


class Duplex(Protocol):
    """Bytes both ways over one connection. A connection that broke reads as ended and raises OSError on writing."""

    async def read(self) -> bytes:
        """Some bytes; empty at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send, waiting while the peer does not take what was sent before."""
        ...

    async def close(self) -> None:
        """Tell the peer that nothing more comes; what was written still arrives."""
        ...


class Idle(Exception):
    """Nothing passed in either direction for too long."""


class SocketDuplex:
    """A Duplex on asyncio's streams. `received` is what was read from the socket already, past an HTTP upgrade."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        received: bytes = b"",
        *,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._received = received
        self._idle_seconds = idle_seconds
        self._last_write = 0.0

    async def read(self) -> bytes:
        """Some bytes; empty at the end. Raises Idle."""
        if self._received:
            received, self._received = self._received, b""
            return received
        while True:
            deadline = max(_now(), self._last_write) + self._idle_seconds
            try:
                async with asyncio.timeout_at(deadline):
                    return await self._reader.read(READ_SIZE)
            except TimeoutError:
                if self._last_write + self._idle_seconds <= _now():
                    raise Idle(f"nothing was sent or received for {self._idle_seconds:.0f} seconds") from None
            except OSError:
                return b""

    async def write(self, data: bytes) -> None:
        self._last_write = _now()
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()


def _now() -> float:
    return asyncio.get_running_loop().time()


class Inbox:
    """Bytes on their way from a connection to one reader. `put` waits while more than `limit` bytes are unread.

    The peers have no flow control of their own, so a full inbox holds up the whole connection, other streams too:
    the alternative is memory without bound.
    """

    def __init__(self, limit: int = 1024 * 1024) -> None:
        self._limit = limit
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._discarding = False
        self._changed = asyncio.Condition()

    @property
    def ended(self) -> bool:
        """The peer has said its last byte; some may still be unread."""
        return self._ended

    async def put(self, data: bytes) -> None:
        """Add; after the end, or when nobody wants it any more, nothing happens."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._size < self._limit or self._ended or self._discarding)
            if self._ended or self._discarding or not data:
                return
            self._pieces.append(data)
            self._size += len(data)
            self._changed.notify_all()

    async def get(self) -> bytes:
        """All that is there, waiting for some; empty at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._pieces or self._ended or self._discarding)
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._changed.notify_all()
            return data

    async def end(self) -> None:
        """Nothing more comes."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def discard(self) -> None:
        """Nobody reads any more: forget what is there and all that comes."""
        async with self._changed:
            self._discarding = True
            self._pieces.clear()
            self._size = 0
            self._changed.notify_all()
