"""A follower of a real API server behind a line that is cut, or that falls silent without a word."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from linkerd.k8s import client as k8s_client
from linkerd.k8s import watching
from linkerd.k8s.client import Client
from linkerd.k8s.resources import CONFIG_MAPS
from linkerd.k8s.watching import follow
from linkerd.kit.background import background
from support.apiserver import ApiServer
from support.watches import CUT_OFF, running

pytestmark = CUT_OFF


class Line:
    """Hands on what both sides say, while it works."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.silent = False
        self._to = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Line]:
        async with background() as start:
            self._start = start
            await self.mend()
            try:
                yield self
            finally:
                await self.cut()

    async def mend(self) -> None:
        self.silent = False
        accept = lambda *pair: self._start(self._connect(*pair))  # noqa: E731
        self._server = await asyncio.start_server(accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Nobody gets through, and who was through is out."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {writer, onward}
        async with background() as start:
            await asyncio.wait(
                [start(self._copy(reader, onward)), start(self._copy(onward_reader, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        for end in (writer, onward):
            end.transport.abort()
            self._writers.discard(end)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if not self.silent:
                    writer.write(data)
                    await writer.drain()


class Follower:
    def __init__(self) -> None:
        self.names: set[str] = set()
        self._changed = asyncio.Condition()

    async def run(self, client: Client, namespace: str) -> None:
        async for change in follow(client, CONFIG_MAPS, namespace):
            async with self._changed:
                if change.type == "applied":
                    self.names.add(change.object["metadata"]["name"])
                elif change.type == "deleted":
                    self.names.discard(change.object["metadata"]["name"])
                self._changed.notify_all()

    async def wait_for(self, *names: str) -> None:
        async with asyncio.timeout(15), self._changed:
            await self._changed.wait_for(lambda: self.names == set(names))


@asynccontextmanager
async def followed(apiserver: ApiServer, namespace: str) -> AsyncIterator[tuple[Line, Follower]]:
    async with Line(urlsplit(apiserver.url).port or 0).working() as line:
        config = replace(apiserver.config(), server=f"https://127.0.0.1:{line.port}")
        follower = Follower()
        async with Client(config, request_timeout=5) as client, running([follower.run(client, namespace)]):
            yield line, follower


async def put(client: Client, namespace: str, name: str) -> None:
    await client.create(CONFIG_MAPS, {"metadata": {"name": name}}, namespace)


async def test_a_follower_catches_up_when_a_line_that_was_cut_works_again(
    apiserver: ApiServer, client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watching, "_pause", lambda failures: 0.05)
    await put(client, namespace, "before")
    async with followed(apiserver, namespace) as (line, follower):
        await follower.wait_for("before")
        await line.cut()
        await put(client, namespace, "meanwhile")
        await client.delete(CONFIG_MAPS, "before", namespace)
        assert follower.names == {"before"}, "what was known stays while nobody answers"
        await line.mend()
        await follower.wait_for("meanwhile")
        await put(client, namespace, "after")
        await follower.wait_for("meanwhile", "after")


async def test_a_follower_notices_a_line_that_falls_silent(
    apiserver: ApiServer, client: Client, namespace: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(watching, "_pause", lambda failures: 0.05)
    monkeypatch.setattr(k8s_client, "_SILENT_SECONDS", 1.0)
    async with followed(apiserver, namespace) as (line, follower):
        await put(client, namespace, "before")
        await follower.wait_for("before")
        line.silent = True
        await put(client, namespace, "meanwhile")
        await asyncio.sleep(0.2)
        assert follower.names == {"before"}
        line.silent = False  # for new connections; of the old one a piece is missing for ever
        await follower.wait_for("before", "meanwhile")
