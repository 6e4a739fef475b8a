"""The clients that people use, against the node's server: kubectl, the Kubernetes client for Python, and our own."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import aiohttp
import kubernetes
import pytest
from kubernetes.stream.ws_client import PortForward, WSClient, create_websocket, get_websocket_url
from linkerd.cluster.streams import descriptors
from linkerd.k8s.client import Client
from linkerd.k8s.config import ClusterConfig
from linkerd.k8s.errors import NotFound
from linkerd.k8s.exec import ExecError, run
from linkerd.k8s.portforward import ForwardError, forward, listen
from support.api_stand_in import ApiStandIn
from support.local_runtime import spawn

KUBECTL = Path(sys.executable).parent / "kubectl"

needs_kubectl = pytest.mark.skipif(not KUBECTL.exists(), reason="kubectl is not built (`make build`)")
websockets_on_and_off = pytest.mark.parametrize("websockets", ["true", "false"])


@pytest.fixture
async def api(node):
    async with ApiStandIn(node.port, node.tls()).running() as stand_in:
        yield stand_in


@pytest.fixture
async def kubectl(api, tmp_path):
    async def start(*args: str, websockets: str, **options):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets,
            "KUBECTL_PORT_FORWARD_WEBSOCKETS": websockets,
        }
        argv = [str(KUBECTL), "--server", api.url, "-n", "apps", *args]
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
        return await asyncio.create_subprocess_exec(*argv, env=environment, **pipes | options)

    return start


@needs_kubectl
@websockets_on_and_off
async def test_kubectl_exec_gives_output_and_exit_code(api, kubectl, websockets):
    process = await kubectl("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7", websockets=websockets)
    out, err = await process.communicate()
    assert (out, process.returncode) == (b"out\n", 7)
    assert b"err\n" in err
    assert api.seen == ["websocket" if websockets == "true" else "SPDY/3.1"]


@needs_kubectl
@websockets_on_and_off
async def test_kubectl_exec_carries_much_both_ways(kubectl, websockets):
    process = await kubectl("exec", "-i", "web", "--", "cat", websockets=websockets)
    sent = os.urandom(8_000_000)
    out, err = await process.communicate(sent)
    assert err == b""
    assert out == sent


@needs_kubectl
@websockets_on_and_off
async def test_kubectl_cp_takes_files_there_and_back(kubectl, tmp_path, websockets):
    (tmp_path / "sent").write_bytes(os.urandom(3_000_000))
    for source, target in ((tmp_path / "sent", f"web:{tmp_path}/there"), (f"web:{tmp_path}/there", tmp_path / "back")):
        process = await kubectl("cp", str(source), str(target), websockets=websockets)
        _, err = await process.communicate()
        assert process.returncode == 0, err
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()


@needs_kubectl
@websockets_on_and_off
async def test_kubectl_attach_shows_the_container(node, kubectl, websockets):
    (container,) = node.runtime.pods["apps", "web"]
    container.main = spawn(["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo tick; sleep 0.2; done"])
    node.runtime.started.append(container.main)
    process = await kubectl("attach", "web", websockets=websockets)
    out, _ = await process.communicate()
    assert out.startswith(b"tick\n")
    assert process.returncode == 0


@needs_kubectl
@websockets_on_and_off
async def test_kubectl_port_forward_carries_connections(api, kubectl, echo, websockets):
    process = await kubectl("port-forward", "web", f":{echo}", websockets=websockets)
    port = int((await process.stdout.readline()).split()[2].rpartition(b":")[2])

    async def once(text: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    texts = [b"%d" % number * 100_000 for number in range(10)]
    assert await asyncio.gather(*map(once, texts)) == texts
    process.terminate()
    await process.communicate()
    assert api.seen == ["websocket" if websockets == "true" else "SPDY/3.1"]


@needs_kubectl
@websockets_on_and_off
async def test_kubectl_port_forward_says_why_a_port_is_not_reached(kubectl, unused_tcp_port_factory, websockets):
    closed = unused_tcp_port_factory()
    process = await kubectl("port-forward", "web", f":{closed}", websockets=websockets)
    port = int((await process.stdout.readline()).split()[2].rpartition(b":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    writer.close()
    while b"Connection refused" not in (line := await process.stderr.readline()):
        assert line
    if process.returncode is None:
        process.kill()
    await process.communicate()


@needs_kubectl
async def test_kubectl_logs_follow(node, kubectl):
    (container,) = node.runtime.pods["apps", "web"]
    container.log.append(b"one\n")
    process = await kubectl("logs", "-f", "web", websockets="true")
    assert await process.stdout.readline() == b"one\n"
    container.log.append(b"two\n")
    container.log_changed.set()
    assert await process.stdout.readline() == b"two\n"
    process.kill()
    await process.communicate()


@needs_kubectl
@websockets_on_and_off
async def test_kubectl_exec_with_a_terminal(api, tmp_path, websockets):
    environment = ["env", f"HOME={tmp_path}", f"KUBECTL_REMOTE_COMMAND_WEBSOCKETS={websockets}"]
    inner = ["sh", "-c", "stty size; read x; until stty size | grep 32; do sleep 0.1; done; echo got $x; exit 4"]
    terminal = spawn(
        [*environment, KUBECTL, "--server", api.url, "-n", "apps", "exec", "-it", "web", "--", *inner], tty=True
    )
    terminal.resize(31, 91)
    shown = await read_until(terminal.master, b"31 91")
    terminal.resize(32, 92)
    await descriptors.write_all(terminal.master, b"hello\n")
    shown += await read_until(terminal.master, b"got hello")
    assert b"32 92" in shown
    assert await terminal.wait() == 4
    terminal.close()


async def read_until(descriptor: int, words: bytes) -> bytes:
    shown = b""
    while words not in shown and (data := await descriptors.read_some(descriptor)):
        shown += data
    assert words in shown, shown
    return shown


def python_client(api: ApiStandIn):
    configuration = kubernetes.client.Configuration()
    configuration.host = api.url
    return configuration


async def test_the_python_client_executes(api):
    url = f"{api.url}/api/v1/namespaces/apps/pods/web/exec?command=cat&stdin=true&stdout=true&stderr=true"

    def talk() -> tuple[str, int]:
        client = WSClient(python_client(api), get_websocket_url(url), {}, capture_all=True)
        client.write_stdin("hello\n")
        line = client.readline_stdout(timeout=30)
        client.close()
        return line

    assert await asyncio.to_thread(talk) == "hello"


async def test_the_python_client_learns_the_exit_code(api):
    query = "command=sh&command=-c&command=exit+5&stdout=true&stderr=true"
    url = f"{api.url}/api/v1/namespaces/apps/pods/web/exec?{query}"

    def talk() -> int:
        client = WSClient(python_client(api), get_websocket_url(url), {}, capture_all=True)
        client.run_forever(timeout=30)
        code = client.returncode
        client.sock.shutdown()  # what the library leaves open when the server has ended the connection
        return code

    assert await asyncio.to_thread(talk) == 5


async def test_the_python_client_forwards_ports(api, echo):
    url = f"{api.url}/api/v1/namespaces/apps/pods/web/portforward?ports={echo}"

    def talk() -> bytes:
        websocket = create_websocket(python_client(api), get_websocket_url(url), {})
        socket = PortForward(websocket, [echo]).socket(echo)
        socket.sendall(b"hello")
        socket.setblocking(True)
        answer = socket.recv(5)
        socket.close()
        websocket.close()
        return answer

    assert await asyncio.to_thread(talk) == b"hello"


@pytest.fixture
async def client(api):
    async with Client(ClusterConfig(api.url)) as client:
        yield client


async def test_our_exec_returns_both_outputs_and_the_exit_code(client):
    finished = await run(client, "apps", "web", "app", ["sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"x" * 300_000)
    assert (finished.exit_code, finished.stdout, finished.stderr) == (3, b"x" * 300_000, b"err\n")


async def test_our_exec_says_why_it_cannot(client):
    with pytest.raises(NotFound):
        await run(client, "apps", "none", "app", ["true"])
    with pytest.raises(ExecError, match="/does/not/exist"):
        await run(client, "apps", "web", "app", ["/does/not/exist"])
    with pytest.raises(ExecError, match="more than 1000 bytes"):
        await run(client, "apps", "web", "app", ["sh", "-c", "yes | head -c 100000"], max_output=1000)


async def test_our_forward_is_a_connection_to_the_port(client, echo):
    async with forward(client, "apps", "web", echo) as (reader, writer):
        writer.write(b"x" * 1_000_000)
        assert await reader.readexactly(1_000_000) == b"x" * 1_000_000


async def test_our_forward_says_a_refused_port(client, unused_tcp_port_factory):
    with pytest.raises(ForwardError, match="Connection refused"):
        async with forward(client, "apps", "web", unused_tcp_port_factory()) as (reader, _):
            assert await reader.read() == b""


async def test_our_listener_serves_connections_side_by_side(client, echo):
    async with listen(client, "apps", "web", echo) as local:
        pairs = [await asyncio.open_connection(local.host, local.port) for _ in range(5)]
        for number, (_, writer) in enumerate(pairs):
            writer.write(b"%d" % number)
        assert [await reader.read(1) for reader, _ in pairs] == [b"0", b"1", b"2", b"3", b"4"]
        for _, writer in pairs:
            writer.close()
    assert local.failure == ""


async def test_our_listener_keeps_the_reason_of_a_failure(client, unused_tcp_port_factory):
    async with listen(client, "apps", "web", unused_tcp_port_factory()) as local:
        reader, writer = await asyncio.open_connection(local.host, local.port)
        assert await reader.read() == b""
        writer.close()
    assert "Connection refused" in local.failure


async def test_the_error_of_a_block_passes_as_it_is(client, echo):
    with pytest.raises(ZeroDivisionError):
        async with listen(client, "apps", "web", echo):
            raise ZeroDivisionError
    with pytest.raises(aiohttp.ClientError):
        async with forward(client, "apps", "web", echo):
            raise aiohttp.ClientError
