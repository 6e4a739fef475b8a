"""Port-forward over every protocol, to real sockets."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
import pytest

from .conftest import read_all, spdy_peer

FORWARD = "/portForward/apps/web"
PROTOCOL = "portforward.k8s.io"


class AioTunnel:
    """The client's end of SPDY inside a WebSocket."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self._websocket = websocket

    async def read(self) -> bytes:
        message = await self._websocket.receive()
        return message.data if message.type is aiohttp.WSMsgType.BINARY else b""

    async def write(self, data: bytes) -> None:
        await self._websocket.send_bytes(data)

    async def close(self) -> None:
        await self._websocket.close()


@contextlib.asynccontextmanager
async def connect(node, way: str):
    if way == "spdy":
        async with node.spdy(FORWARD, (), PROTOCOL) as peer:
            yield peer
        return
    async with node.websocket(FORWARD, (), f"SPDY/3.1+{PROTOCOL}") as websocket:
        assert websocket.protocol == f"SPDY/3.1+{PROTOCOL}"
        async with spdy_peer(AioTunnel(websocket)) as peer:
            yield peer


async def open_pair(peer, port: int, request_id: str | None = "0"):
    more = {} if request_id is None else {"requestID": request_id}
    error = await peer.open(streamType="error", port=str(port), **more)
    return await peer.open(streamType="data", port=str(port), **more), error


both_ways = pytest.mark.parametrize("way", ["spdy", "tunnel"])


@both_ways
async def test_bytes_pass_and_ends_are_told(node, echo, way):
    async with connect(node, way) as peer:
        data, error = await open_pair(peer, echo)
        await data.write(b"x" * 3_000_000)
        await data.finish()
        assert len(await read_all(data)) == 3_000_000
        assert await read_all(error) == b""


@both_ways
async def test_connections_side_by_side_do_not_mix(node, echo, way):
    async with connect(node, way) as peer:
        pairs = [await open_pair(peer, echo, str(number)) for number in range(20)]
        for number, (data, _) in enumerate(pairs):
            await data.write(b"%d" % number)
            await data.finish()
        assert [await read_all(data) for data, _ in pairs] == [b"%d" % number for number in range(20)]


@both_ways
async def test_a_refused_port_is_said_on_the_error_stream(node, unused_tcp_port_factory, way):
    async with connect(node, way) as peer:
        data, error = await open_pair(peer, unused_tcp_port_factory())
        assert b"error forwarding port" in (said := await read_all(error))
        assert b"Connection refused" in said
        assert await read_all(data) == b""


async def test_a_client_without_request_ids_is_understood(node, echo):
    async with connect(node, "spdy") as peer:
        data, _ = await open_pair(peer, echo, None)
        await data.write(b"hi")
        await data.finish()
        assert await read_all(data) == b"hi"


async def test_a_stream_without_a_port_is_reset(node):
    async with connect(node, "spdy") as peer:
        stream = await peer.open(streamType="data", port="99999", requestID="1")
        assert await read_all(stream) == b""
        assert stream.finished


async def test_channels_carry_a_port_each(node, echo):
    node.runtime.ports[81] = echo
    query = [("port", f"{echo},81")]
    async with node.websocket(FORWARD, query, "v4.channel.k8s.io") as websocket:
        first = {(await websocket.receive()).data for _ in range(4)}
        port = echo.to_bytes(2, "little")
        assert first == {b"\0" + port, b"\1" + port, b"\2Q\0", b"\3Q\0"}
        await websocket.send_bytes(b"\2hello")
        assert (await websocket.receive()).data == b"\2hello"
        await websocket.send_bytes(b"\0you")
        assert (await websocket.receive()).data == b"\0you"


async def test_channels_say_a_refused_port_and_close(node, unused_tcp_port_factory):
    port = unused_tcp_port_factory()
    async with node.websocket(FORWARD, [("port", str(port))], "v4.channel.k8s.io") as websocket:
        messages = [message.data async for message in websocket]
    assert messages[-1][0] == 1
    assert b"Connection refused" in messages[-1]


@pytest.mark.parametrize("query", [(), [("port", "0")], [("port", "x")], [("port", "80,70000")]])
async def test_channels_need_ports(node, query):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await node.websocket(FORWARD, query, "v4.channel.k8s.io")
    assert refusal.value.status == 400


async def test_the_pods_connection_ends_with_the_client(node):
    ended = asyncio.Event()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        ended.set()
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        async with connect(node, "spdy") as peer:
            data, _ = await open_pair(peer, server.sockets[0].getsockname()[1])
            await data.write(b"hi")
        await asyncio.wait_for(ended.wait(), 30)
