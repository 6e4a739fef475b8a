"""Startup, liveness and readiness probes: asking, and counting the answers."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from linkerd.cluster.node.statuses import Object

_MAX_HEAD = 64 * 1024  # bytes of an HTTP answer's head

Execute = Callable[[list[str], float], Awaitable[tuple[int, bytes]]]
"""Runs a command in the container: (argv, timeout in seconds) → exit code and output. Raises TimeoutError."""


class ProbeFailure(Exception):
    """The answer was no, or there was none; the text goes into the event."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When to ask and how many answers count; seconds."""

    initial_delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    successes: int = 1
    failures: int = 3


def parse_timing(probe: Object) -> Timing:
    """The numbers of a Probe; the API server has filled in the defaults."""
    return Timing(
        initial_delay=probe.get("initialDelaySeconds") or 0,
        period=probe.get("periodSeconds") or 10,
        timeout=probe.get("timeoutSeconds") or 1,
        successes=probe.get("successThreshold") or 1,
        failures=probe.get("failureThreshold") or 3,
    )


@dataclass
class Threshold:
    """Turns single answers into a state: it changes after so many equal answers in a row."""

    timing: Timing
    holds: bool
    _last: bool | None = None
    _run: int = 0

    def observe(self, answer: bool) -> bool:
        """Count one answer; True when it changed (or, for a failing state, confirmed at its threshold) the state."""
        self._run = self._run + 1 if answer == self._last else 1
        self._last = answer
        needed = self.timing.successes if answer else self.timing.failures
        if self._run < needed:
            return False
        changed = self.holds != answer
        self.holds = answer
        return changed or not answer


@dataclass(frozen=True, slots=True)
class Target:
    """What probes are aimed at."""

    address: str
    ports: dict[str, int]
    execute: Execute


async def ask(probe: Object, target: Target, timeout: float) -> None:
    """One probe or hook action; returns when the answer is good, else raises ProbeFailure."""
    try:
        async with asyncio.timeout(timeout):
            await _ask(probe, target, timeout)
    except TimeoutError:
        raise ProbeFailure(f"probe timed out after {timeout:g}s") from None
    except ssl.SSLError as error:
        raise ProbeFailure(f"TLS: {error.reason}") from error
    except OSError as error:
        raise ProbeFailure(reason_of(error)) from error


def reason_of(error: OSError) -> str:
    """The kernel's words; asyncio's own for a failed connection only repeat the address."""
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)


async def _ask(probe: Object, target: Target, timeout: float) -> None:
    if action := probe.get("exec"):
        code, output = await target.execute(action["command"], timeout)
        if code:
            raise ProbeFailure(output.decode(errors="replace").strip() or f"command exited with {code}")
    elif action := probe.get("httpGet"):
        await _ask_http(action, target)
    elif action := probe.get("tcpSocket"):
        _, writer = await asyncio.open_connection(action.get("host") or target.address, _port(action["port"], target))
        writer.close()
    elif action := probe.get("grpc"):
        await _ask_grpc(target.address, action["port"], action.get("service") or "")
    elif action := probe.get("sleep"):
        await asyncio.sleep(action["seconds"])


def _port(port: int | str, target: Target) -> int:
    if isinstance(port, int) or port.isdigit():
        return int(port)
    if port not in target.ports:
        raise ProbeFailure(f"couldn't find port: no port named `{port}` in the container")
    return target.ports[port]


async def _ask_http(action: Object, target: Target) -> None:
    host = action.get("host") or target.address
    port = _port(action["port"], target)
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    url = f"{scheme}://{host}:{port}{path}"
    try:
        status = await _get(host, port, path, action.get("httpHeaders") or [], tls=scheme == "https")
    except ssl.SSLError:
        raise
    except OSError as error:
        raise ProbeFailure(f'Get "{url}": dial tcp {host}:{port}: connect: {reason_of(error)}') from error
    if not 200 <= status < 400:
        raise ProbeFailure(f"HTTP probe failed with statuscode: {status}")


def format_request(host: str, port: int, path: str, headers: list[dict[str, str]]) -> bytes:
    """The request as kubelet's prober sends it."""
    named = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/1.36", "Accept": "*/*", "Connection": "close"}
    for header in headers:
        canonical = next((name for name in named if name.lower() == header["name"].lower()), header["name"])
        named[canonical] = header["value"]
    lines = [f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in named.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def parse_status(line: bytes) -> int:
    """The code of an HTTP/1 status line. Raises ProbeFailure."""
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise ProbeFailure("malformed HTTP response")
    return int(words[1])


async def _get(host: str, port: int, path: str, headers: list[dict[str, str]], *, tls: bool) -> int:
    """Only the status is of interest, so this stays below any HTTP library: probes are the node's steady load."""
    context = _unverified() if tls else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_MAX_HEAD)
    try:
        writer.write(format_request(host, port, path, headers))
        line = await reader.readline()
        if not line:
            raise ProbeFailure(f'Get "http://{host}:{port}{path}": EOF')
        return parse_status(line)
    except ValueError as error:
        raise ProbeFailure("malformed HTTP response") from error
    finally:
        # Without waiting for the peer: a probed server may take its time to close.
        writer.transport.abort()


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_SERVING = 1  # grpc.health.v1.HealthCheckResponse.ServingStatus


def encode_health_request(service: str) -> bytes:
    """grpc.health.v1.HealthCheckRequest, whose only field is a string with number 1."""
    name = service.encode()
    if len(name) > 127:
        raise ProbeFailure("the service name of a gRPC probe is longer than 127 bytes")
    return b"\x0a" + bytes([len(name)]) + name if name else b""


def parse_health_response(data: bytes) -> int:
    """The status of grpc.health.v1.HealthCheckResponse (field 1, an enum below 128)."""
    return data[1] if len(data) >= 2 and data[0] == 0x08 else 0


async def _ask_grpc(host: str, port: int, service: str) -> None:
    import grpc  # only now: it is large, and few pods use it

    async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            answer = await check(encode_health_request(service))
        except grpc.aio.AioRpcError as error:
            raise ProbeFailure(f"gRPC health check: {error.code().name}: {error.details()}") from error
    if parse_health_response(answer) != _SERVING:
        raise ProbeFailure(f"gRPC service is not SERVING (status {parse_health_response(answer)})")
