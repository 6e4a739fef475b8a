"""The node's server on loopback, with local processes for containers and a fake of the two API reviews it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from linkerd.cluster.engine.certificates import ensure_pki
from linkerd.cluster.streams.duplex import SocketDuplex
from linkerd.cluster.streams.multiplexing import Session, Stream
from linkerd.cluster.streams.server import serve
from linkerd.k8s.resources import PODS, SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Resource
from linkerd.kit.background import background
from support.local_runtime import LocalRuntime


@dataclass
class FakeApi:
    """Token `good` is alice; alice may use what is in `allowed`."""

    allowed: set[tuple[str, str]] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    async def create(self, resource: Resource, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(resource.kind)
        if resource is TOKEN_REVIEWS:
            known = body["spec"]["token"] == "good"
            user = {"username": "alice", "groups": ["readers"], "extra": {"scopes": ["a"]}}
            return {"status": {"authenticated": True, "user": user} if known else {}}
        assert resource is SUBJECT_ACCESS_REVIEWS
        assert body["spec"]["user"] == "alice"
        attributes = body["spec"]["resourceAttributes"]
        assert (attributes["resource"], attributes["name"]) == ("nodes", "node-1")
        return {"status": {"allowed": (attributes["verb"], attributes["subresource"]) in self.allowed}}

    async def list(self, resource: Resource, *, field_selector: str) -> list[dict[str, Any]]:
        assert (resource, field_selector) == (PODS, "spec.nodeName=node-1")
        return [{"metadata": {"name": "web"}, "status": {"phase": "Running"}}, {"metadata": {"name": "old"}}]


@dataclass
class Node:
    """The running server and ways to it."""

    port: int
    pki: Path
    runtime: LocalRuntime
    api: FakeApi
    session: aiohttp.ClientSession

    def url(self, path: str, query: object = ()) -> str:
        return f"https://127.0.0.1:{self.port}{path}" + (f"?{urlencode(query, doseq=True)}" if query else "")

    def tls(self, *, certificate: str | None = "apiserver-kubelet-client") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        if certificate:
            context.load_cert_chain(self.pki / f"{certificate}.crt", self.pki / f"{certificate}.key")
        return context

    async def get(self, path: str, query: object = (), *, token: str = "") -> tuple[int, str]:
        """As the API server, or with a token and no certificate."""
        context = self.tls(certificate=None) if token else self.tls()
        headers = {"Authorization": f"Bearer {token}"} if token and token != "none" else {}
        request = self.session.get(self.url(path, query), ssl=context, server_hostname="node-1", headers=headers)
        async with request as response:
            return response.status, await response.text()

    def websocket(self, path: str, query: object, *protocols: str):
        return self.session.ws_connect(
            self.url(path, query), protocols=protocols, ssl=self.tls(), server_hostname="node-1", max_msg_size=0
        )

    @contextlib.asynccontextmanager
    async def spdy(self, path: str, query: object, *protocols: str) -> AsyncIterator[SpdyPeer]:
        """A client such as kubectl without WebSockets."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls(), server_hostname="node-1")
        target = self.url(path, query).split(str(self.port), 1)[1]
        offers = "".join(f"X-Stream-Protocol-Version: {name}\r\n" for name in protocols)
        head = f"POST {target} HTTP/1.1\r\nHost: node-1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{offers}\r\n"
        writer.write(head.encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 101"), answer
        try:
            async with spdy_peer(SocketDuplex(reader, writer), answer) as peer:
                yield peer
        finally:
            writer.close()


@dataclass
class SpdyPeer:
    """The client's side of a SPDY connection."""

    session: Session
    answer: str = ""

    async def open(self, **headers: str) -> Stream:
        return await self.session.open(tuple((name.lower(), value) for name, value in headers.items()))


@contextlib.asynccontextmanager
async def spdy_peer(duplex, answer: str = "") -> AsyncIterator[SpdyPeer]:
    session = Session(duplex, server=False)
    async with background() as start:
        start(session.run())
        yield SpdyPeer(session, answer)


async def read_all(stream: Stream) -> bytes:
    found = b""
    while data := await stream.read():
        found += data
    return found


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    ensure_pki(directory)
    return directory


@pytest.fixture
async def node(pki, unused_tcp_port):
    runtime, api, ready = LocalRuntime(), FakeApi(), asyncio.Event()
    files = {"tls_cert": pki / "kubelet.crt", "tls_key": pki / "kubelet.key", "client_ca": pki / "ca.crt"}
    async with background() as start, aiohttp.ClientSession() as session:
        start(serve(runtime, host="127.0.0.1", port=unused_tcp_port, client=api, ready=ready, **files))
        await ready.wait()
        yield Node(unused_tcp_port, pki, runtime, api, session)
        runtime.close()


@pytest.fixture
async def echo():
    """A TCP server that gives back what it gets and ends when the peer has; its port."""

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
