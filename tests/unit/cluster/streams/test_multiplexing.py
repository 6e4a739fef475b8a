import asyncio
import contextlib

import pytest
from linkerd.cluster.streams import multiplexing, spdy
from linkerd.cluster.streams.multiplexing import Session
from linkerd.kit.background import background


class Pipe:
    """One end of a connection in memory."""

    def __init__(self, incoming: asyncio.Queue, outgoing: asyncio.Queue) -> None:
        self._incoming, self._outgoing = incoming, outgoing

    async def read(self) -> bytes:
        return await self._incoming.get()

    async def write(self, data: bytes) -> None:
        self._outgoing.put_nowait(data)

    async def close(self) -> None:
        self._outgoing.put_nowait(b"")


def pipes() -> tuple[Pipe, Pipe]:
    one, other = asyncio.Queue(), asyncio.Queue()
    return Pipe(one, other), Pipe(other, one)


@contextlib.asynccontextmanager
async def sessions():
    ours, theirs = pipes()
    server, client = Session(ours), Session(theirs, server=False)
    async with background() as start:
        start(server.run())
        start(client.run())
        yield server, client


async def test_a_stream_carries_both_ways_and_ends_by_halves():
    async with sessions() as (server, client):
        asked = await client.open((("port", "80"),))
        got = await server.accept()
        assert got.headers == {"port": "80"}
        await asked.write(b"ping")
        await asked.finish()
        assert (await got.read(), await got.read()) == (b"ping", b"")
        await got.write(b"pong")
        await got.finish()
        assert (await asked.read(), await asked.read()) == (b"pong", b"")


async def test_a_reset_ends_both_halves():
    async with sessions() as (server, client):
        asked = await client.open(())
        got = await server.accept()
        await asked.reset()
        assert await got.read() == b""
        assert got.finished


async def test_a_finished_stream_is_forgotten():
    async with sessions() as (server, client):
        asked = await client.open(())
        got = await server.accept()
        await asked.finish()
        await got.read()
        await got.finish()
        await asked.read()
        assert not server._open


async def test_the_end_of_the_connection_ends_streams_and_acceptance():
    async with sessions() as (server, client):
        asked = await client.open(())
        await server.accept()
        await server.close()
        assert await asked.read() == b""
        assert await client.accept() is None


class Raw:
    """A peer that says frames of its own making to a server."""

    def __init__(self) -> None:
        self._pipe, self._other = pipes()
        self.session = Session(self._other)
        self._encoder, self._decoder = spdy.Encoder(), spdy.Decoder()

    async def say(self, frame: spdy.Frame) -> None:
        await self._pipe.write(self._encoder.encode(frame))

    async def hear(self) -> spdy.Frame:
        (frame,) = self._decoder.feed(await self._pipe.read())
        return frame


@pytest.fixture
async def raw():
    peer = Raw()
    async with background() as start:
        start(peer.session.run())
        yield peer


async def test_the_peers_pings_are_answered_and_our_own_are_not(raw):
    await raw.say(spdy.Ping(2))
    await raw.say(spdy.Ping(1))
    assert await raw.hear() == spdy.Ping(1)


async def test_stream_ids_must_rise_and_be_the_clients(raw):
    await raw.say(spdy.SynStream(3))
    assert await raw.hear() == spdy.SynReply(3)
    for stream_id in (3, 1, 4):
        await raw.say(spdy.SynStream(stream_id))
        assert await raw.hear() == spdy.RstStream(stream_id, spdy.PROTOCOL_ERROR)


async def test_too_many_streams_are_refused(raw, monkeypatch):
    monkeypatch.setattr(multiplexing, "MAX_STREAMS", 1)
    await raw.say(spdy.SynStream(1))
    await raw.hear()
    await raw.say(spdy.SynStream(3))
    assert await raw.hear() == spdy.RstStream(3, spdy.REFUSED_STREAM)


async def test_frames_of_unknown_streams_are_dropped(raw):
    for frame in (spdy.Data(9, b"x"), spdy.RstStream(9, 1), spdy.SynReply(9), spdy.WindowUpdate(9, 1), spdy.Settings()):
        await raw.say(frame)
    await raw.say(spdy.Ping(5))
    assert await raw.hear() == spdy.Ping(5)


async def test_a_protocol_error_is_told_and_raised():
    ours, theirs = pipes()
    await theirs.write(b"\x80\x02\0\6\0\0\0\4\0\0\0\1")  # a ping of SPDY/2
    with pytest.raises(spdy.SpdyError):
        await Session(ours).run()
    assert spdy.Decoder().feed(await theirs.read()) == [spdy.GoAway(0, spdy.GOAWAY_PROTOCOL_ERROR)]
