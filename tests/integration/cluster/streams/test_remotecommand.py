"""Exec and attach over every protocol, with real processes."""

from __future__ import annotations

import asyncio
import base64
import json

import aiohttp
import pytest
from linkerd.cluster.streams import remotecommand
from support.local_runtime import spawn

from .conftest import read_all

EXEC = "/exec/apps/web/app"
OUTPUTS = [("output", "1"), ("error", "1")]


def command(*argv: str, stdin: bool = False, tty: bool = False):
    query = [("command", word) for word in argv] + OUTPUTS[: 1 if tty else 2]
    return query + [("input", "1")] * stdin + [("tty", "1")] * tty


async def collect(websocket: aiohttp.ClientWebSocketResponse) -> dict[int, bytes]:
    channels: dict[int, bytearray] = {}
    async for message in websocket:
        if message.type is aiohttp.WSMsgType.TEXT:
            channel, data = int(message.data[0]), base64.b64decode(message.data[1:])
        else:
            channel, data = message.data[0], message.data[1:]
        channels.setdefault(channel, bytearray()).extend(data)
    return {channel: bytes(data) for channel, data in channels.items()}


BINARY = ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"]
BASE64 = ["v4.base64.channel.k8s.io", "base64.channel.k8s.io"]


@pytest.mark.parametrize("protocol", BINARY + BASE64)
async def test_output_and_exit_code_reach_a_websocket(node, protocol):
    argv = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    async with node.websocket(EXEC, command(*argv), protocol) as websocket:
        assert websocket.protocol == protocol
        channels = await collect(websocket)
    assert (channels[1], channels[2]) == (b"out\n", b"err\n")
    if protocol.startswith(("v4", "v5")):
        status = json.loads(channels[3])
        assert status["reason"] == "NonZeroExitCode"
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    else:
        assert channels[3] == b"command terminated with non-zero exit code: exit status 3"


async def test_without_a_subprotocol_the_first_version_is_spoken(node):
    async with node.websocket(EXEC, command("echo", "hi")) as websocket:
        channels = await collect(websocket)
    assert channels == {1: b"hi\n"}


async def test_success_is_said(node):
    async with node.websocket(EXEC, command("true"), "v4.channel.k8s.io") as websocket:
        channels = await collect(websocket)
    assert json.loads(channels[3]) == {"metadata": {}, "status": "Success"}


async def test_a_closed_stdin_ends_the_program(node):
    async with node.websocket(EXEC, command("sort", stdin=True), "v5.channel.k8s.io") as websocket:
        await websocket.send_bytes(b"\0b\na\n")
        await websocket.send_bytes(b"\xff\0")
        channels = await collect(websocket)
    assert channels[1] == b"a\nb\n"


async def test_large_streams_pass_both_ways(node):
    size = 20_000_000
    async with node.websocket(EXEC, command("cat", stdin=True), "v5.channel.k8s.io") as websocket:

        async def send() -> None:
            for _ in range(size // 100_000):
                await websocket.send_bytes(b"\0" + bytes(range(100)) * 1000)
            await websocket.send_bytes(b"\xff\0")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            channels = await collect(websocket)
    assert channels[1] == bytes(range(100)) * (size // 100)


async def test_output_waits_for_a_slow_client(node):
    argv = ["python3", "-c", "import sys; sys.stdout.buffer.write(bytes(50_000_000)); sys.stderr.write('done')"]
    async with node.websocket(EXEC, command(*argv), "v4.channel.k8s.io") as websocket:
        await websocket.receive()
        ended = asyncio.ensure_future(node.runtime.started[0].wait())
        done, _ = await asyncio.wait([ended], timeout=0.3)
        assert not done
        channels = await collect(websocket)
    assert (len(channels[1]), channels[2]) == (50_000_000, b"done")


async def test_output_of_a_program_that_has_ended_waits_too(node, monkeypatch):
    monkeypatch.setattr(remotecommand, "_DRAIN_SECONDS", 0.02)
    argv = ["python3", "-c", "import sys; sys.stdout.buffer.write(bytes(6_000_000))"]
    async with node.websocket(EXEC, command(*argv), "v4.channel.k8s.io") as websocket:
        await websocket.receive()
        await asyncio.sleep(0.3)  # longer than the server now waits for background processes
        channels = await collect(websocket)
    assert len(channels[1]) == 6_000_000


async def test_a_terminal_has_the_clients_size_and_its_changes(node):
    script = "stty size; read line; stty size; echo got $line"
    async with node.websocket(
        EXEC, command("sh", "-c", script, stdin=True, tty=True), "v5.channel.k8s.io"
    ) as websocket:
        await websocket.send_bytes(b'\4{"Width":120,"Height":40}')
        while b"\n" not in (message := (await websocket.receive()).data):
            pass
        await websocket.send_bytes(b'\4{"Width":99,"Height":33}\n')
        await websocket.send_bytes(b"\0hello\n")
        channels = await collect(websocket)
    assert b"33 99\r\ngot hello\r\n" in message + channels[1]
    assert json.loads(channels[3])["status"] == "Success"


async def test_a_client_that_leaves_takes_the_process_with_it(node):
    async with node.websocket(EXEC, command("sleep", "1000"), "v4.channel.k8s.io") as websocket:
        await websocket.receive()
    (process,) = node.runtime.started
    async with asyncio.timeout(30):
        assert await process.wait() == 137


async def test_a_background_process_does_not_hold_the_client(node):
    async with node.websocket(EXEC, command("sh", "-c", "sleep 100 & echo hi"), "v4.channel.k8s.io") as websocket:
        async with asyncio.timeout(30):
            channels = await collect(websocket)
    assert channels[1] == b"hi\n"


async def test_a_program_that_cannot_be_started_is_an_internal_error(node):
    async with node.websocket(EXEC, command("/does/not/exist"), "v4.channel.k8s.io") as websocket:
        status = json.loads((await collect(websocket))[3])
    assert (status["reason"], status["code"]) == ("InternalError", 500)
    assert "/does/not/exist" in status["message"]


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/exec/apps/none/app", command("true"), 404),
        ("/exec/apps/web/none", command("true"), 404),
        ("/exec/apps/web/other-uid/app", command("true"), 404),
        (EXEC, [("command", "true")], 400),
        (EXEC, OUTPUTS, 400),
        ("/nonsense", (), 404),
    ],
)
async def test_what_cannot_be_run_is_refused_before_the_upgrade(node, path, query, status):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await node.websocket(path, query, "v4.channel.k8s.io")
    assert refusal.value.status == status


async def test_an_unknown_subprotocol_is_refused(node):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await node.websocket(EXEC, command("true"), "v9.channel.k8s.io")
    assert refusal.value.status == 403


async def test_a_pod_can_be_pinned_by_its_uid(node):
    async with node.websocket("/exec/apps/web/uid-1/app", command("echo", "hi"), "v4.channel.k8s.io") as websocket:
        assert (await collect(websocket))[1] == b"hi\n"


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"])
async def test_output_and_exit_code_reach_a_spdy_client(node, protocol):
    argv = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    async with node.spdy(EXEC, command(*argv), protocol) as peer:
        assert f"x-stream-protocol-version: {protocol}" in peer.answer.lower()
        error, out, err = [await peer.open(streamType=name) for name in ("error", "stdout", "stderr")]
        assert (await read_all(out), await read_all(err)) == (b"out\n", b"err\n")
        said = await read_all(error)
    if protocol.startswith("v4"):
        assert json.loads(said)["details"]["causes"][0]["message"] == "3"
    else:
        assert said == b"command terminated with non-zero exit code: exit status 3"


async def test_stdin_of_a_spdy_client_ends_with_its_stream(node):
    async with node.spdy(EXEC, command("sort", stdin=True), "v4.channel.k8s.io") as peer:
        streams = {name: await peer.open(streamType=name) for name in ("error", "stdin", "stdout", "stderr")}
        await streams["stdin"].write(b"b\na\n" * 100_000)
        await streams["stdin"].finish()
        assert await read_all(streams["stdout"]) == b"a\n" * 100_000 + b"b\n" * 100_000


async def test_a_terminal_over_spdy(node):
    query = command("sh", "-c", "read line; stty size", stdin=True, tty=True)
    async with node.spdy(EXEC, query, "v4.channel.k8s.io") as peer:
        streams = {name: await peer.open(streamType=name) for name in ("error", "stdin", "stdout", "resize")}
        await streams["resize"].write(b'{"Width":77,"Height":22}')
        await streams["stdin"].write(b"go\n")
        assert b"22 77\r\n" in await read_all(streams["stdout"])


async def test_a_spdy_client_without_negotiation_speaks_the_first_version(node):
    async with node.spdy(EXEC, command("echo", "hi")) as peer:
        assert "x-stream-protocol-version" not in peer.answer.lower()
        error, out, _ = [await peer.open(streamType=name) for name in ("error", "stdout", "stderr")]
        assert (await read_all(out), await read_all(error)) == (b"hi\n", b"")


async def test_attach_joins_the_container_and_leaves_it_alive(node):
    (container,) = node.runtime.pods["apps", "web"]
    container.main, container.stdin = spawn(["cat"]), True
    node.runtime.started.append(container.main)
    query = [*OUTPUTS, ("input", "1")]
    async with node.websocket("/attach/apps/web/app", query, "v4.channel.k8s.io") as websocket:
        await websocket.send_bytes(b"\0hello\n")
        while not (data := (await websocket.receive()).data)[1:]:
            pass
        assert data == b"\1hello\n"
    assert container.main.child.poll() is None


async def test_attach_ends_when_the_container_does(node):
    (container,) = node.runtime.pods["apps", "web"]
    container.main = spawn(["sh", "-c", "sleep 0.2; echo bye"])
    node.runtime.started.append(container.main)
    async with node.websocket("/attach/apps/web/app", OUTPUTS, "v4.channel.k8s.io") as websocket:
        channels = await collect(websocket)
    assert (channels[1], json.loads(channels[3])["status"]) == (b"bye\n", "Success")
