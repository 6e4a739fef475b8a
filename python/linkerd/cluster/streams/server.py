"""The node's HTTPS server on port 10250, standing where kubelet's does: what the API server proxies ends here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest

from linkerd.cluster.node.api import ContainerInfo, NotFound, NotRunning, Phase, Process, Runtime, Stats
from linkerd.cluster.streams.authorization import Gatekeeper, attributes_of, forbidden_message
from linkerd.cluster.streams.channels import ChannelError
from linkerd.cluster.streams.containerlogs import parse_log_options
from linkerd.cluster.streams.duplex import Idle
from linkerd.cluster.streams.http1 import Connection, Disconnected, HttpError, Request
from linkerd.cluster.streams.portforward import serve_port_forward
from linkerd.cluster.streams.remotecommand import (
    SUCCESS,
    ClientGone,
    Console,
    Options,
    join,
    open_console,
    parse_options,
    status_of_exit,
    status_of_failure,
)
from linkerd.cluster.streams.routes import Route, Target, parse_route
from linkerd.cluster.streams.spdy import SpdyError
from linkerd.cluster.streams.usage import (
    PROMETHEUS_TEXT,
    render_container_metrics,
    render_resource_metrics,
    summary_of,
)
from linkerd.cluster.streams.websocket import WebSocketError
from linkerd.k8s.client import Client
from linkerd.k8s.errors import ApiError
from linkerd.k8s.resources import PODS
from linkerd.kit.background import Start, background

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1024

# How a client can end or break its connection: its own affair, and nothing an operator must look at.
_CLIENT_ERRORS = (
    ClientGone,
    Disconnected,
    Idle,
    SpdyError,
    WebSocketError,
    ChannelError,
    ConnectionError,
    ssl.SSLError,
)


async def serve(
    runtime: Runtime,
    *,
    host: str,
    port: int,
    tls_cert: str | Path,
    tls_key: str | Path,
    client_ca: str | Path,
    client: Client,
    node_name: str = "",
    ready: asyncio.Event | None = None,
) -> None:
    """Serves until cancelled. OSError when the address cannot be had, ssl.SSLError for unusable certificates."""
    handler = Handler(runtime, client, node_name or runtime.stats().node.name)
    async with background() as start:
        server = await asyncio.start_server(
            _Connections(handler, start).accept,
            host,
            port,
            ssl=_ssl_context(tls_cert, tls_key, client_ca),
            ssl_handshake_timeout=10,
        )
        async with server:
            log.info("serving the node's API on %s:%d", host, port)
            if ready is not None:
                ready.set()
            await server.serve_forever()


def _ssl_context(tls_cert: str | Path, tls_key: str | Path, client_ca: str | Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client_ca))
    context.load_cert_chain(tls_cert, tls_key)
    context.verify_mode = ssl.CERT_OPTIONAL  # without a certificate a bearer token must say who it is
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # connections are few and long
    return context


class _Connections:
    """The open connections, each a task."""

    def __init__(self, handler: Handler, start: Start) -> None:
        self._handler = handler
        self._start = start
        self._open = 0

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_CONNECTIONS:
            log.warning("refusing a connection: %d are open", self._open)
            writer.close()
            return
        self._open += 1
        self._start(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(reader, writer)
        certificate = writer.get_extra_info("ssl_object").getpeercert()
        try:
            await self._handler.serve(connection, certificate)
        except _CLIENT_ERRORS as error:
            log.debug("connection ended: %s", error)
        except ExceptionGroup as group:
            _, rest = group.split(_CLIENT_ERRORS)
            if rest is not None:
                log.exception("a connection failed")
        except Exception:  # one connection's failure, whatever it is, must not end the others
            log.exception("a connection failed")
        finally:
            self._open -= 1
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(5):
                    await connection.close()


class Handler:
    """Requests to answers."""

    def __init__(self, runtime: Runtime, client: Client, node_name: str) -> None:
        self._runtime = runtime
        self._client = client
        self._node_name = node_name
        self._gatekeeper = Gatekeeper(client, node_name)
        self._earlier: Stats | None = None
        self._metrics = _Metrics()
        self._routes: dict[str, Callable[[Connection, Request, Target], Awaitable[None]]] = {
            "exec": self._exec,
            "attach": self._attach,
            "portForward": self._port_forward,
            "containerLogs": self._container_logs,
        }
        self._pages: dict[str, Callable[[Connection], Awaitable[None]]] = {
            "healthz": self._healthz,
            "pods": self._pods,
            "runningpods": self._running_pods,
            "metrics": self._own_metrics,
            "metrics/resource": self._resource_metrics,
            "metrics/cadvisor": self._container_metrics,
            "metrics/probes": self._no_metrics,
            "stats/summary": self._summary,
        }

    async def serve(self, connection: Connection, certificate: dict[str, object] | None) -> None:
        """One connection's requests, one after another."""
        try:
            while (request := await connection.next_request()) is not None:
                await self._answer(connection, request, certificate)
                if not connection.reusable():
                    return
        except HttpError as error:
            if connection.answering:
                await connection.respond_error(error)

    async def _answer(self, connection: Connection, request: Request, certificate: dict[str, object] | None) -> None:
        route = parse_route(request.path)
        with self._metrics.request(request.method, route.name if route else "other"):
            try:
                await self._admit(request, certificate)
                await self._dispatch(connection, request, route)
            except HttpError as error:
                if not connection.answering:
                    raise
                await connection.respond_error(error)

    async def _admit(self, request: Request, certificate: dict[str, object] | None) -> None:
        """Raises HttpError unless the client may ask this."""
        attributes = attributes_of(request.method, request.path)
        try:
            user = await self._gatekeeper.authenticate(certificate, request.header("authorization"))
            if user is None:
                raise HttpError(401, "Unauthorized")
            if not await self._gatekeeper.allows(user, attributes):
                raise HttpError(403, forbidden_message(user, attributes))
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            log.error("cannot ask the API server who may do what: %s", error)
            raise HttpError(500, f"Authorization error: {error}") from error

    async def _dispatch(self, connection: Connection, request: Request, route: Route | None) -> None:
        if route is None:
            raise HttpError(404, "404 page not found")
        if request.method not in ("GET", "POST") or (request.method == "POST" and route.name not in self._routes):
            raise HttpError(405, "Method Not Allowed")
        if route.target is not None:
            await self._routes[route.name](connection, request, route.target)
        else:
            await self._pages[route.name](connection)

    # Streams

    async def _exec(self, connection: Connection, request: Request, target: Target) -> None:
        options = parse_options(request)
        argv = request.query.get("command", [])
        if not argv:
            raise HttpError(400, "you must specify at least 1 command for the container")
        self._running_container(target)
        async with open_console(connection, request, options) as console:
            await self._run(console, target, argv, options)

    async def _run(self, console: Console, target: Target, argv: list[str], options: Options) -> None:
        size = await console.sizes.first() if console.sizes else None
        try:
            process = await self._runtime.exec(
                target.namespace,
                target.pod,
                target.container,
                argv,
                tty=options.tty,
                stdin=options.stdin,
                uid=target.uid,
            )
        except (NotFound, NotRunning, OSError) as error:
            await console.report(status_of_failure(f"error executing command in container: {error}"))
            return
        with _released(process):
            code = await join(process, console, size)
        await console.report(status_of_exit(code))

    async def _attach(self, connection: Connection, request: Request, target: Target) -> None:
        options = parse_options(request)
        self._running_container(target)
        async with open_console(connection, request, options) as console:
            try:
                process = await self._runtime.attach(
                    target.namespace, target.pod, target.container, stdin=options.stdin, uid=target.uid
                )
            except (NotFound, NotRunning, OSError) as error:
                await console.report(status_of_failure(f"error attaching to container: {error}"))
                return
            with _released(process):
                await join(process, console)
            await console.report(SUCCESS)

    async def _port_forward(self, connection: Connection, request: Request, target: Target) -> None:
        self._containers(target)
        shown = f"{target.pod}_{target.namespace}"
        await serve_port_forward(
            connection,
            request,
            shown,
            lambda port: self._runtime.dial(target.namespace, target.pod, port, uid=target.uid),
        )

    async def _container_logs(self, connection: Connection, request: Request, target: Target) -> None:
        options = parse_log_options(request, datetime.now(UTC))
        self._container(target)
        try:
            chunks = await self._runtime.logs(
                target.namespace,
                target.pod,
                target.container,
                follow=options.follow,
                tail=options.tail,
                since=options.since,
                timestamps=options.timestamps,
                previous=options.previous,
                limit_bytes=options.limit_bytes,
                uid=target.uid,
            )
        except (NotFound, NotRunning) as error:
            raise HttpError(400, str(error)) from error
        await connection.start_stream("text/plain")
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(connection.wait_disconnect())
            await _send_chunks(connection, chunks)
            watching.cancel()

    def _containers(self, target: Target) -> tuple[ContainerInfo, ...]:
        try:
            return self._runtime.containers(target.namespace, target.pod, target.uid)
        except NotFound as error:
            raise HttpError(404, f'pod "{target.pod}" does not exist') from error

    def _container(self, target: Target) -> ContainerInfo:
        for info in self._containers(target):
            if info.name == target.container:
                return info
        raise HttpError(404, f'container "{target.container}" not found in pod "{target.pod}"')

    def _running_container(self, target: Target) -> ContainerInfo:
        info = self._container(target)
        if info.phase is not Phase.RUNNING:
            raise HttpError(500, f'container not running ("{target.container}" is {info.phase.value})')
        return info

    # Pages

    async def _healthz(self, connection: Connection) -> None:
        await connection.respond(200, b"ok")

    async def _pods(self, connection: Connection) -> None:
        await connection.respond_json(await self._pod_list())

    async def _running_pods(self, connection: Connection) -> None:
        pods = await self._pod_list()
        pods["items"] = [pod for pod in pods["items"] if (pod.get("status") or {}).get("phase") == "Running"]
        await connection.respond_json(pods)

    async def _pod_list(self) -> dict[str, object]:
        try:
            items = await self._client.list(PODS, field_selector=f"spec.nodeName={self._node_name}")
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            raise HttpError(500, f"cannot list the node's pods: {error}") from error
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}

    async def _own_metrics(self, connection: Connection) -> None:
        await connection.respond(200, generate_latest(self._metrics.registry), PROMETHEUS_TEXT)

    async def _resource_metrics(self, connection: Connection) -> None:
        await connection.respond(200, render_resource_metrics(self._runtime.stats()).encode(), PROMETHEUS_TEXT)

    async def _container_metrics(self, connection: Connection) -> None:
        await connection.respond(200, render_container_metrics(self._runtime.stats()).encode(), PROMETHEUS_TEXT)

    async def _no_metrics(self, connection: Connection) -> None:
        await connection.respond(200, b"", PROMETHEUS_TEXT)

    async def _summary(self, connection: Connection) -> None:
        stats = self._runtime.stats()
        summary = summary_of(stats, self._earlier)
        if self._earlier is None or (stats.time - self._earlier.time).total_seconds() >= 1:
            self._earlier = stats
        await connection.respond_json(summary)


@contextlib.contextmanager
def _released(process: Process) -> Iterator[None]:
    """Kills and closes at the end: at once when the client is gone, else there is nothing left to kill."""
    try:
        yield
    finally:
        process.kill()
        process.close()


async def _send_chunks(connection: Connection, chunks: AsyncIterator[bytes]) -> None:
    try:
        async for chunk in chunks:
            if chunk:
                await connection.stream(chunk)
        await connection.end_stream()
    finally:
        if (aclose := getattr(chunks, "aclose", None)) is not None:
            await aclose()


class _Metrics:
    """Kubelet's counters of its own requests, and the process's usual ones."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ("method", "path")
        self._requests = Counter("kubelet_http_requests", "Number of requests", labels, registry=self.registry)
        self._open = Gauge(
            "kubelet_http_inflight_requests", "Number of requests being served", labels, registry=self.registry
        )

    def request(self, method: str, path: str) -> contextlib.AbstractContextManager[None]:
        """Counts a request and its time in flight; labels come from closed lists."""
        known = method if method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS") else "other"
        self._requests.labels(known, path).inc()
        return self._open.labels(known, path).track_inprogress()
