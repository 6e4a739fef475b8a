"""Streams over one SPDY/3.1 connection, as moby/spdystream behaves: no windows, back-pressure is the connection's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from linkerd.cluster.streams import spdy
from linkerd.cluster.streams.duplex import Duplex, Inbox

MAX_STREAMS = 512  # open at once; a forwarded page with many connections has two for each
_DATA_SIZE = 32 * 1024


class Stream:
    """One stream: its own bytes in, its own bytes out. Writing to one that the peer reset does nothing."""

    def __init__(self, session: Session, frame: spdy.SynStream) -> None:
        self.id = frame.stream_id
        self.headers = dict(frame.headers)
        self.inbox = Inbox()
        self._session = session
        self._finished = frame.unidirectional

    async def read(self) -> bytes:
        """Some bytes; empty once the peer has finished or reset the stream."""
        return await self.inbox.get()

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), _DATA_SIZE):
            if self._finished:
                return
            await self._session.send(spdy.Data(self.id, data[start : start + _DATA_SIZE]))

    async def finish(self) -> None:
        """No more bytes from here (a half close)."""
        if not self._finished:
            self._finished = True
            await self._session.send(spdy.Data(self.id, b"", fin=True))
        if self.inbox.ended:
            self._session.release(self)

    async def reset(self) -> None:
        """Give the stream up in both directions."""
        await self.inbox.discard()
        self._session.release(self)
        if not self._finished:
            self._finished = True
            await self._session.send(spdy.RstStream(self.id, spdy.CANCEL))

    def abandon(self) -> None:
        """The peer reset the stream, or its connection is gone."""
        self._finished = True

    @property
    def finished(self) -> bool:
        return self._finished


class Session:
    """One side of a connection; `run` must be running for anything to arrive. Use `streams` to accept the peer's."""

    def __init__(self, duplex: Duplex, *, server: bool = True) -> None:
        self._duplex = duplex
        self._encoder = spdy.Encoder()
        self._decoder = spdy.Decoder()
        self._open: dict[int, Stream] = {}
        self._accepted: asyncio.Queue[Stream | None] = asyncio.Queue()
        self._peer_parity = 1 if server else 0
        self._last_peer_id = 0
        self._next_id = 2 if server else 1

    async def run(self) -> None:
        """Takes the peer's frames until it ends the connection, by GOAWAY or by closing. Raises SpdyError."""
        try:
            while data := await self._duplex.read():
                for frame in self._decoder.feed(data):
                    if isinstance(frame, spdy.GoAway):
                        return
                    await self._take(frame)
        except spdy.SpdyError:
            await self._send_quietly(spdy.GoAway(self._last_peer_id, spdy.GOAWAY_PROTOCOL_ERROR))
            raise
        finally:
            await self._end()

    async def accept(self) -> Stream | None:
        """The next stream that the peer opened, already answered; None when the connection is over."""
        return await self._accepted.get()

    async def streams(self) -> AsyncIterator[Stream]:
        """All of the peer's streams."""
        while (stream := await self.accept()) is not None:
            yield stream

    async def open(self, headers: spdy.Headers) -> Stream:
        """A stream of our own; the peer's answer is not waited for."""
        frame = spdy.SynStream(self._next_id, headers)
        self._next_id += 2
        stream = self._open[frame.stream_id] = Stream(self, frame)
        await self.send(frame)
        return stream

    async def send(self, frame: spdy.Frame) -> None:
        """Raises OSError when the connection broke. Between encoding and the write itself nothing may be awaited:
        the frames must leave in the order in which they went through the compressor."""
        await self._duplex.write(self._encoder.encode(frame))

    def release(self, *streams: Stream) -> None:
        """Forget streams that nobody uses any more; what still arrives for them is dropped."""
        for stream in streams:
            self._open.pop(stream.id, None)

    async def close(self) -> None:
        """Finish all streams and say good-bye. The peer closes once it has taken everything; then `run` ends."""
        for stream in list(self._open.values()):
            with contextlib.suppress(OSError):
                await stream.finish()
            await stream.inbox.discard()
        await self._send_quietly(spdy.GoAway(self._last_peer_id))

    async def _take(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.SynStream():
                await self._take_stream(frame)
            case spdy.Data():
                await self._take_data(frame)
            case spdy.RstStream():
                await self._take_reset(frame)
            case spdy.SynReply(fin=True) | spdy.MoreHeaders(fin=True):
                await self._take_data(spdy.Data(frame.stream_id, b"", fin=True))
            case spdy.Ping() if frame.id % 2 == self._peer_parity:
                await self.send(frame)
            case _:
                pass  # settings, credit, our own pings and headers without a meaning here

    async def _take_stream(self, frame: spdy.SynStream) -> None:
        if frame.stream_id % 2 != self._peer_parity or frame.stream_id <= self._last_peer_id:
            await self.send(spdy.RstStream(frame.stream_id, spdy.PROTOCOL_ERROR))
            return
        self._last_peer_id = frame.stream_id
        if len(self._open) >= MAX_STREAMS:
            await self.send(spdy.RstStream(frame.stream_id, spdy.REFUSED_STREAM))
            return
        stream = self._open[frame.stream_id] = Stream(self, frame)
        if frame.fin:
            await stream.inbox.end()
        await self.send(spdy.SynReply(frame.stream_id))
        self._accepted.put_nowait(stream)

    async def _take_data(self, frame: spdy.Data) -> None:
        stream = self._open.get(frame.stream_id)
        if stream is None:
            return
        await stream.inbox.put(frame.data)
        if frame.fin:
            await stream.inbox.end()
            if stream.finished:
                self.release(stream)

    async def _take_reset(self, frame: spdy.RstStream) -> None:
        stream = self._open.pop(frame.stream_id, None)
        if stream is not None:
            stream.abandon()
            await stream.inbox.end()

    async def _end(self) -> None:
        for stream in self._open.values():
            stream.abandon()
            await stream.inbox.end()
        self._accepted.put_nowait(None)

    async def _send_quietly(self, frame: spdy.Frame) -> None:
        with contextlib.suppress(OSError):
            await self.send(frame)
