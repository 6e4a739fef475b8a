"""Running a program in a container through the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from linkerd.k8s.client import Client
from linkerd.k8s.resources import PODS

# Only the first can end stdin; a server that does not have it, before 1.29, takes the second.
_HALF_CLOSING = "v5.channel.k8s.io"
_PROTOCOLS = (_HALF_CLOSING, "v4.channel.k8s.io")

_STDIN, _STDOUT, _STDERR, _ERROR = 0, 1, 2, 3
_CLOSE = 255
_CHUNK = 32 * 1024


class ExecError(Exception):
    """The program could not be run, or its end is not known; the message is the node's where there is one."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program said and how it ended."""

    exit_code: int
    stdout: bytes
    stderr: bytes


async def run(
    client: Client,
    namespace: str,
    pod: str,
    container: str,
    argv: Sequence[str],
    *,
    stdin: bytes | None = None,
    max_output: int = 64 * 1024 * 1024,
) -> Finished:
    """Runs to the end. Without `stdin` the program reads nothing. Raises ApiError, or ExecError, for more than
    `max_output` bytes too."""
    query = [("command", word) for word in argv] + [("container", container), ("stdout", "true"), ("stderr", "true")]
    if stdin is not None:
        query.append(("stdin", "true"))
    path = PODS.path(namespace, pod, "exec")
    async with client.websocket(path, query=query, protocols=_PROTOCOLS) as websocket:
        if stdin is not None and websocket.protocol != _HALF_CLOSING:
            raise ExecError("this API server is too old to end a program's standard input")
        outputs = _Outputs(max_output)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(_send(websocket, stdin))
            await outputs.collect(websocket)
            sending.cancel()
    return outputs.finished()


async def _send(websocket: aiohttp.ClientWebSocketResponse, stdin: bytes | None) -> None:
    if stdin is None:
        return
    try:
        for start in range(0, len(stdin), _CHUNK):
            await websocket.send_bytes(bytes((_STDIN,)) + stdin[start : start + _CHUNK])
        await websocket.send_bytes(bytes((_CLOSE, _STDIN)))
    except (ConnectionError, aiohttp.ClientConnectionResetError):
        pass  # the program ended before it had read everything, which is its right


class _Outputs:
    """The channels of the answer."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._channels = {_STDOUT: bytearray(), _STDERR: bytearray(), _ERROR: bytearray()}
        self._exceeded = False

    async def collect(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in websocket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel = self._channels.get(message.data[0])
            if channel is not None:
                channel += message.data[1:]
            if sum(map(len, self._channels.values())) > self._limit:
                self._exceeded = True
                await websocket.close()

    def finished(self) -> Finished:
        """Raises ExecError."""
        if self._exceeded:
            raise ExecError(f"the program wrote more than {self._limit} bytes")
        code = _exit_code(bytes(self._channels[_ERROR]))
        return Finished(code, bytes(self._channels[_STDOUT]), bytes(self._channels[_STDERR]))


def _exit_code(status: bytes) -> int:
    if not status:
        raise ExecError("the connection ended before the program did")
    try:
        value: Any = orjson.loads(status)
    except orjson.JSONDecodeError:
        raise ExecError(status.decode(errors="replace")) from None
    if value.get("status") == "Success":
        return 0
    for cause in (value.get("details") or {}).get("causes") or ():
        if value.get("reason") == "NonZeroExitCode" and cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise ExecError(value.get("message") or "the program could not be run")
