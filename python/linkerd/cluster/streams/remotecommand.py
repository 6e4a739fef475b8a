"""Exec and attach: a process's streams joined to a client's, over whichever protocol the client came with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from linkerd.cluster.node.api import Process
from linkerd.cluster.streams import descriptors
from linkerd.cluster.streams.channels import REMOTE_COMMAND_PROTOCOLS, Channel, choose_protocol
from linkerd.cluster.streams.duplex import Inbox
from linkerd.cluster.streams.http1 import Connection, HttpError, Request
from linkerd.cluster.streams.multiplexing import Session, Stream
from linkerd.cluster.streams.upgrading import negotiate_spdy
from linkerd.cluster.streams.websocket import Channels, WebSocket

log = logging.getLogger(__name__)

SPDY_PROTOCOLS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")

_STREAM_CREATION_SECONDS = 30.0  # kubelet's, for a client that does not open the streams it announced
_LINGER_SECONDS = 5.0  # for the client to close after the end; it may still be sending input that nobody reads
_FIRST_SIZE_SECONDS = 0.2  # before a program starts in a terminal of unknown size
_DRAIN_SECONDS = 0.5  # for output that a background process still holds open after the command itself has ended


class ClientGone(Exception):
    """The client left before the end."""


class Source(Protocol):
    """Bytes from the client."""

    inbox: Inbox

    async def read(self) -> bytes: ...


class Sink(Protocol):
    """Bytes to the client."""

    async def write(self, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Options:
    """Which streams the client wants."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


def parse_options(request: Request) -> Options:
    """Raises HttpError. With a terminal there is no separate stderr."""
    tty = request.flag("tty")
    options = Options(request.flag("input"), request.flag("output"), request.flag("error") and not tty, tty)
    if not (options.stdin or options.stdout or options.stderr):
        raise HttpError(400, "you must specify at least 1 of stdin, stdout, stderr")
    return options


@dataclass(frozen=True, slots=True)
class Console:
    """The client's end of an exec or attach; a stream that it did not ask for is None."""

    stdin: Source | None
    stdout: Sink | None
    stderr: Sink | None
    sizes: Sizes | None
    error: Sink
    status_as_json: bool

    async def report(self, status: dict[str, Any]) -> None:
        """The outcome. Protocols before v4 know only the text of a failure."""
        if self.status_as_json:
            await self.error.write(json.dumps({"metadata": {}} | status, separators=(",", ":")).encode())
        elif status["status"] != "Success":
            await self.error.write(status["message"].encode())


SUCCESS: dict[str, Any] = {"status": "Success"}


def status_of_exit(code: int) -> dict[str, Any]:
    if code == 0:
        return SUCCESS
    return {
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def status_of_failure(message: str) -> dict[str, Any]:
    return {
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


@contextlib.asynccontextmanager
async def open_console(connection: Connection, request: Request, options: Options) -> AsyncIterator[Console]:
    """Upgrades the connection. The body is cancelled when the client leaves (ClientGone, in a group).

    Raises HttpError before the upgrade. After the body the client's streams are ended and the connection is closed.
    """
    opened = _websocket_console if request.upgrades_to("websocket") else _spdy_console
    async with opened(connection, request, options) as console:
        yield console


@contextlib.asynccontextmanager
async def _websocket_console(connection: Connection, request: Request, options: Options) -> AsyncIterator[Console]:
    offered = request.header_list("sec-websocket-protocol")
    protocol = choose_protocol(offered, REMOTE_COMMAND_PROTOCOLS)
    if protocol is None:
        supported = [known.name for known in REMOTE_COMMAND_PROTOCOLS]
        raise HttpError(403, f"requested protocol(s) are not supported: {offered}; supports {supported}")
    duplex = await connection.upgrade_websocket(request, protocol.name)
    channels = Channels(WebSocket(duplex), protocol)
    console = Console(
        stdin=channels.source(Channel.STDIN) if options.stdin else None,
        stdout=channels.sink(Channel.STDOUT) if options.stdout else None,
        stderr=channels.sink(Channel.STDERR) if options.stderr else None,
        sizes=Sizes(channels.source(Channel.RESIZE)) if options.tty else None,
        error=channels.sink(Channel.ERROR),
        status_as_json=protocol.status_as_json,
    )
    # Clients take the first message, an empty one, as the sign that the connection stands.
    await (console.stdout or console.stderr or console.error).write(b"")
    async with _attended(channels):
        yield console


@contextlib.asynccontextmanager
async def _spdy_console(connection: Connection, request: Request, options: Options) -> AsyncIterator[Console]:
    protocol, headers = negotiate_spdy(request, SPDY_PROTOCOLS)
    session = Session(await connection.upgrade(headers))
    async with _attended(session):
        streams = await _await_streams(session, _expected_streams(options, protocol))
        yield Console(
            stdin=streams.get("stdin") if options.stdin else None,
            stdout=streams.get("stdout"),
            stderr=streams.get("stderr"),
            sizes=Sizes(streams["resize"]) if "resize" in streams else None,
            error=streams["error"],
            status_as_json=protocol == "v4.channel.k8s.io",
        )


def _expected_streams(options: Options, protocol: str) -> set[str]:
    expected = {"error"}
    wanted = {"stdin": options.stdin, "stdout": options.stdout, "stderr": options.stderr}
    expected |= {name for name, asked in wanted.items() if asked}
    if options.tty and protocol in ("v4.channel.k8s.io", "v3.channel.k8s.io"):
        expected.add("resize")
    return expected


async def _await_streams(session: Session, expected: set[str]) -> dict[str, Stream]:
    """The streams by their type. Raises ClientGone for a client that leaves or does not open them in time."""
    found: dict[str, Stream] = {}
    try:
        async with asyncio.timeout(_STREAM_CREATION_SECONDS):
            while not expected <= found.keys():
                stream = await session.accept()
                if stream is None:
                    raise ClientGone("the client closed before it had opened its streams")
                found[stream.headers.get("streamtype", "")] = stream
    except TimeoutError:
        missing = ", ".join(sorted(expected - found.keys()))
        raise ClientGone(f"timed out waiting for the client to create streams: {missing}") from None
    return found


@contextlib.asynccontextmanager
async def _attended(carrier: Session | Channels) -> AsyncIterator[None]:
    """The body runs while the client's frames are read; a client that leaves cancels it."""
    ended = False

    async def attend() -> None:
        await carrier.run()
        if not ended:
            raise ClientGone("the client closed the connection")

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(attend())
        yield
        ended = True
        await carrier.close()
        await asyncio.wait([reading], timeout=_LINGER_SECONDS)
        reading.cancel()


async def join(process: Process, console: Console, size: tuple[int, int] | None = None) -> int:
    """Carries the streams until the process has ended; its exit code. The caller kills it when this is cancelled."""
    if size is not None:
        process.resize(*size)
    async with asyncio.TaskGroup() as tasks:
        inputs = [tasks.create_task(_carry_input(process, console.stdin))] if console.stdin else []
        if console.sizes is not None:
            inputs.append(tasks.create_task(_carry_sizes(process, console.sizes)))
        outputs = _Outputs(process, console)
        carrying = [tasks.create_task(outputs.carry(descriptor, sink)) for descriptor, sink in outputs.pairs()]
        code = await process.wait()
        await outputs.drain(carrying)
        for task in (*inputs, *carrying):
            task.cancel()
    return code


class _Outputs:
    """The process's output on its way to the client."""

    def __init__(self, process: Process, console: Console) -> None:
        self._process = process
        self._console = console
        self._pieces = 0
        self._writing = 0

    def pairs(self) -> list[tuple[int, Sink | None]]:
        if self._process.master is not None:
            return [(self._process.master, self._console.stdout)]
        found = [(self._process.stdout, self._console.stdout), (self._process.stderr, self._console.stderr)]
        return [(descriptor, sink) for descriptor, sink in found if descriptor is not None]

    async def carry(self, descriptor: int, sink: Sink | None) -> None:
        """Until the end of the output. What the client does not want is read too, or the process would block."""
        while data := await descriptors.read_some(descriptor):
            self._pieces += 1
            self._writing += 1
            if sink is not None:
                await sink.write(data)
            self._writing -= 1

    async def drain(self, carrying: list[asyncio.Task[None]]) -> None:
        """Until all output has been carried, however slowly the client takes it. A background process may hold the
        output open for ever: once nothing has come from there for a while, that is left alone."""
        pending = set(carrying)
        while pending:
            before = self._pieces
            _, pending = await asyncio.wait(pending, timeout=_DRAIN_SECONDS)
            if self._pieces == before and not self._writing:
                return


async def _carry_input(process: Process, source: Source) -> None:
    descriptor = process.stdin if process.master is None else process.master
    if descriptor is None:
        await source.inbox.discard()
        return
    try:
        while data := await source.read():
            await descriptors.write_all(descriptor, data)
    except BrokenPipeError:
        await source.inbox.discard()  # the process does not read any more; its output is still of interest
    if process.stdin is not None:
        os.close(process.stdin)
        process.stdin = None


async def _carry_sizes(process: Process, sizes: Sizes) -> None:
    while (size := await sizes.next()) is not None:
        process.resize(*size)


class Sizes:
    """The sizes of the client's terminal, as rows and columns."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._parser = SizeParser()
        self._parsed: list[tuple[int, int]] = []

    async def next(self) -> tuple[int, int] | None:
        """Waits for the next one; None when no more can come."""
        while not self._parsed:
            data = await self._source.read()
            if not data:
                return None
            self._parsed = self._parser.feed(data)
        return self._parsed.pop(0)

    async def first(self) -> tuple[int, int] | None:
        """The size to start with: clients that know it send it at once, but after their request."""
        try:
            async with asyncio.timeout(_FIRST_SIZE_SECONDS):
                return await self.next()
        except TimeoutError:
            return None


class SizeParser:
    """Terminal sizes: JSON objects one after another, in pieces of any length. What cannot be one is skipped."""

    _LIMIT = 4096  # bytes of an object that is still incomplete

    def __init__(self) -> None:
        self._text = ""
        self._decoder = json.JSONDecoder()

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """The sizes complete with this piece, as rows and columns."""
        self._text += data.decode(errors="replace")
        sizes = []
        while text := self._text.lstrip():
            try:
                value, end = self._decoder.raw_decode(text)
            except (json.JSONDecodeError, RecursionError):
                if len(text) > self._LIMIT or not text.startswith("{"):
                    self._text = ""
                break
            self._text = text[end:]
            if (size := _size(value)) is not None:
                sizes.append(size)
        return sizes


def _size(value: Any) -> tuple[int, int] | None:
    if not isinstance(value, dict):
        return None
    rows, columns = value.get("Height"), value.get("Width")
    if not isinstance(rows, int) or not isinstance(columns, int):
        return None
    return (rows, columns) if 0 < rows < 65536 and 0 < columns < 65536 else None
