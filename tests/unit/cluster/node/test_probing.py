from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from linkerd.cluster.node.probing import (
    ProbeFailure,
    Target,
    Threshold,
    Timing,
    ask,
    encode_health_request,
    format_request,
    parse_health_response,
    parse_status,
    parse_timing,
)


def observe(threshold: Threshold, answers: str) -> list[bool]:
    return [threshold.observe(answer == "+") for answer in answers]


def test_a_state_changes_at_its_threshold() -> None:
    threshold = Threshold(Timing(successes=1, failures=3), holds=True)
    assert observe(threshold, "--+--") == [False] * 5
    assert threshold.holds
    assert observe(threshold, "-") == [True]
    assert not threshold.holds


def test_successes_may_have_to_be_repeated() -> None:
    threshold = Threshold(Timing(successes=2), holds=False)
    assert observe(threshold, "+-++") == [False, False, False, True]
    assert threshold.holds


def test_a_failing_state_is_confirmed_at_each_further_failure() -> None:
    threshold = Threshold(Timing(failures=2), holds=False)
    assert observe(threshold, "---") == [False, True, True]


def test_timing_has_kubernetes_defaults() -> None:
    assert parse_timing({}) == Timing(0, 10, 1, 1, 3)


def test_the_request_is_kubelets() -> None:
    request = format_request("10.0.0.1", 80, "/ready", [{"name": "host", "value": "x"}, {"name": "A", "value": "b"}])
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /ready HTTP/1.1"
    assert "Host: x" in lines
    assert "A: b" in lines
    assert lines[-2:] == ["", ""]


def test_a_status_line_is_parsed() -> None:
    assert parse_status(b"HTTP/1.1 204 No Content\r\n") == 204
    with pytest.raises(ProbeFailure):
        parse_status(b"SSH-2.0\r\n")


def test_health_messages() -> None:
    assert encode_health_request("") == b""
    assert encode_health_request("ab") == b"\x0a\x02ab"
    assert parse_health_response(b"\x08\x01") == 1
    assert parse_health_response(b"") == 0


async def never(argv: list[str], timeout: float) -> tuple[int, bytes]:
    raise AssertionError("no command is run")


def target(port: int = 0, execute: Any = never) -> Target:
    return Target("127.0.0.1", {"http": port}, execute)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_good_answer_by_port_name() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        await ask({"httpGet": {"path": "/", "port": "http"}}, target(port), 1.0)


async def test_a_bad_answer_is_told_with_its_status() -> None:
    async with answering(b"HTTP/1.1 503 No\r\n\r\n") as port:
        with pytest.raises(ProbeFailure, match="HTTP probe failed with statuscode: 503"):
            await ask({"httpGet": {"path": "/", "port": port}}, target(), 1.0)


async def test_nobody_there_is_told_as_kubelet_does() -> None:
    async with answering(b"") as port:
        pass
    with pytest.raises(ProbeFailure, match=r'Get "http://127.0.0.1:\d+/x": dial tcp .* connection refused'):
        await ask({"httpGet": {"path": "/x", "port": port}}, target(), 1.0)
    with pytest.raises(ProbeFailure, match="connection refused"):
        await ask({"tcpSocket": {"port": port}}, target(), 1.0)


async def test_a_silent_server_times_out() -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    release = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ProbeFailure, match=r"timed out after 0\.01s"):
            await ask({"httpGet": {"port": port}}, target(), 0.01)
        release.set()


async def test_a_command_that_fails_is_told_with_its_output() -> None:
    async def failing(argv: list[str], timeout: float) -> tuple[int, bytes]:
        assert argv == ["check"]
        return 1, b"not yet\n"

    with pytest.raises(ProbeFailure, match="not yet"):
        await ask({"exec": {"command": ["check"]}}, target(execute=failing), 1.0)


async def test_an_unknown_port_name_is_told() -> None:
    with pytest.raises(ProbeFailure, match="no port named `web`"):
        await ask({"tcpSocket": {"port": "web"}}, target(), 1.0)
