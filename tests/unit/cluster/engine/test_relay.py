from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from linkerd.cluster.engine.relay import Relay

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def relayed(handler: Handler) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection through a relay to a server with that handler."""
    sockets = open_sockets()
    inside = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with asyncio.TaskGroup() as group:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        server = await Relay(group, inside.sockets[0].getsockname()).serve(listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        yield reader, writer
        writer.transport.abort()
        server.close()
        inside.close()
        await settled(sockets)


def open_sockets() -> int:
    """How many this process has."""
    # realpath, since the descriptor of the listing itself is gone when it is looked at.
    return sum("socket:[" in os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))


async def settled(sockets: int) -> None:
    """Until both ends of every relayed connection have noticed the end of the other."""
    async with asyncio.timeout(30):
        while open_sockets() > sockets:  # noqa: ASYNC110 - the ends are the relay's own
            await asyncio.sleep(0.001)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b" and goodbye")
    writer.close()


async def test_bytes_go_both_ways_and_the_end_of_one_direction_is_passed_on() -> None:
    async with relayed(echo) as (reader, writer):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read() == b" and goodbye"


async def test_more_than_all_buffers_hold_arrives_complete() -> None:
    payload = bytes(range(256)) * 40_000
    async with relayed(echo) as (reader, writer):
        async with asyncio.TaskGroup() as group:
            received = group.create_task(reader.readexactly(len(payload)))
            writer.write(payload)
            await writer.drain()
        assert received.result() == payload


async def test_the_servers_answer_survives_its_own_end() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 1_000_000)
        writer.close()

    async with relayed(answer) as (reader, _):
        assert len(await reader.read()) == 1_000_000


async def test_a_client_that_went_away_ends_the_inner_connection() -> None:
    ended = asyncio.Event()

    async def wait_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        writer.close()

    async with relayed(wait_end) as (_, writer):
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)


async def test_without_a_server_inside_the_connection_ends() -> None:
    sockets = open_sockets()
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = unused.getsockname()
    async with asyncio.TaskGroup() as group:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        server = await Relay(group, nobody).serve(listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        assert await reader.read() == b""
        writer.transport.abort()
        server.close()
        await settled(sockets)
