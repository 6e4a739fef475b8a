"""Just enough of an API server for clients of exec, attach, port-forward and logs: one pod, and everything under it
handed on to the node's server as the real one does (`proxied_to_kubelet`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl, urlencode, urlsplit

from linkerd.kit.background import background

_SUBRESOURCE = re.compile(r"/api/v1/namespaces/(?P<ns>[^/]+)/pods/(?P<pod>[^/]+)/(?P<what>exec|attach|portforward|log)")
_NODE_NAMES = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "apps", "uid": "uid-1"},
    "spec": {"containers": [{"name": "app", "image": "app"}], "nodeName": "node-1"},
    "status": {"phase": "Running"},
}
_PAGES = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [{"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get"]}],
    },
    "/api/v1/namespaces/apps/pods/web": POD,
}


class ApiStandIn:
    """Plain HTTP on a port of its own; `seen` are the protocols that clients asked to upgrade to."""

    def __init__(self, node_port: int, node_tls: ssl.SSLContext) -> None:
        self._node_port = node_port
        self._node_tls = node_tls
        self.port = 0
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[ApiStandIn]:
        async with background() as start:
            server = await asyncio.start_server(lambda *pair: start(self._serve(*pair)), "127.0.0.1", 0)
            async with server:
                self.port = server.sockets[0].getsockname()[1]
                yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await self._answer(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, _, headers = head.partition(b"\r\n")
        method, target, _ = line.decode().split(" ")
        if (found := _SUBRESOURCE.match(target)) is None:
            _respond(writer, _PAGES.get(urlsplit(target).path))
        else:
            self.seen += re.findall(r"(?im)^upgrade: (\S+)", headers.decode())
            await self._hand_on(method, _node_target(found, target), headers, reader, writer)

    async def _hand_on(
        self, method: str, target: str, headers: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        node = await asyncio.open_connection("127.0.0.1", self._node_port, ssl=self._node_tls, server_hostname="node-1")
        try:
            more = b"" if b"pgrade: " in headers else b"Connection: close\r\n"
            node[1].write(f"{method} {target} HTTP/1.1\r\n".encode() + more + headers)
            head = await node[0].readuntil(b"\r\n\r\n")
            writer.write(head)
            if b" 101 " not in head and (length := re.search(rb"(?i)content-length: (\d+)", head)):
                writer.write(await node[0].readexactly(int(length[1])))
            else:
                await _splice((reader, node[1]), (node[0], writer))
        finally:
            node[1].close()


async def _splice(*ways: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Either side's end ends both, as in the real one."""
    async with background() as start:
        await asyncio.wait([start(_copy(*way)) for way in ways], return_when=asyncio.FIRST_COMPLETED)


def _node_target(found: re.Match[str], target: str) -> str:
    query = parse_qsl(urlsplit(target).query)
    base = f"{found['ns']}/{found['pod']}"
    if found["what"] == "portforward":
        return f"/portForward/{base}?" + urlencode([("port", value) for name, value in query if name == "ports"])
    container = next((value for name, value in query if name == "container"), "app")
    if found["what"] == "log":
        return f"/containerLogs/{base}/{container}?{urlencode(query)}"
    asked = [(_NODE_NAMES[name], "1") for name, value in query if value == "true" and name in _NODE_NAMES]
    asked += [(name, value) for name, value in query if name == "command"]
    return f"/{found['what']}/{base}/{container}?{urlencode(asked)}"


def _respond(writer: asyncio.StreamWriter, page: object) -> None:
    missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
    body = json.dumps(page or missing | {"message": "pods not found"}).encode()
    status = "200 OK" if page else "404 Not Found"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    )
    writer.write(head.encode() + b"\r\n" + body)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
