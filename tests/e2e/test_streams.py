"""Exec, attach, port-forward, logs and cp: what kubectl does with and without WebSockets, and other clients too."""

from __future__ import annotations

import os
import re
import select
import socket
import time
import urllib.request

import kubernetes
import pytest
import yaml
from kubernetes.stream import portforward, stream
from support.clusters import CommandFailed, wait_ready_pods
from support.local_runtime import spawn
from support.waiting import wait_until

NAMESPACE = "streams"

COUNTER = "i=0; while true; do i=$((i+1)); echo line $i; sleep 0.2; done"


def pod(name: str, *containers: dict, **spec: object) -> dict:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": list(containers), **spec}}


def shell(name: str, script: str, **more: object) -> dict:
    return {"name": name, "image": "busybox", "command": ["sh", "-c", script], **more}


@pytest.fixture(scope="module")
def pods(cluster):
    web = {"name": "web", "image": "debian", "command": [cluster.python, "-um", "http.server", "-d", "/usr", "8080"]}
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        pod("box", shell("main", "exec sleep infinity"), web),
        pod("terminal", {"name": "main", "image": "busybox", "command": ["sh"], "stdin": True, "tty": True}),
        pod("reader", shell("main", "cat", stdin=True, stdinOnce=True), restartPolicy="Never"),
        pod("counter", shell("main", COUNTER)),
        pod("crashing", shell("main", "echo alive; sleep 1; exit 1")),
    ]
    cluster.apply(yaml.safe_dump_all(objects))
    cluster.kubectl(
        "wait", "--for=condition=Ready", "--timeout=120s", "-n", NAMESPACE, "pod/box", "pod/terminal", "pod/counter"
    )
    yield cluster
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture(params=["true", "false"], ids=["websockets", "spdy"])
def env(request):
    return {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": request.param, "KUBECTL_PORT_FORWARD_WEBSOCKETS": request.param}


def execute(cluster, env, *argv: str, stdin: str | None = None) -> str:
    flags = ["-i"] if stdin is not None else []
    return cluster.kubectl("exec", *flags, "-n", NAMESPACE, "box", "-c", "main", "--", *argv, stdin=stdin, env=env)


def test_exec_gives_both_outputs_and_the_exit_code(pods, env):
    with pytest.raises(CommandFailed) as failed:
        execute(pods, env, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (failed.value.stdout, failed.value.exit_code) == ("out\n", 7)
    assert "err\n" in failed.value.stderr
    assert "command terminated with exit code 7" in failed.value.stderr


def test_exec_reads_piped_stdin_to_its_end(pods, env):
    text = "".join(f"{number}\n" for number in range(200_000))
    assert execute(pods, env, "cat", stdin=text) == text


def test_exec_carries_large_output(pods, env):
    assert len(execute(pods, env, "head", "-c", "30000000", "/dev/zero")) == 30_000_000


def test_exec_of_what_is_not_there_says_so(pods, env):
    with pytest.raises(CommandFailed, match=r"(?i)no such file|not found"):
        execute(pods, env, "/does/not/exist")
    with pytest.raises(CommandFailed, match='pods "none" not found'):
        pods.kubectl("exec", "-n", NAMESPACE, "none", "--", "true", env=env)
    with pytest.raises(CommandFailed, match="container none"):
        pods.kubectl("exec", "-n", NAMESPACE, "box", "-c", "none", "--", "true", env=env)


def test_an_interrupted_exec_leaves_no_process(pods, env):
    marker = "3131" if env["KUBECTL_REMOTE_COMMAND_WEBSOCKETS"] == "true" else "3232"
    process = pods.start_kubectl("exec", "-n", NAMESPACE, "box", "-c", "main", "--", "sleep", marker, env=env)
    listed = lambda: f"sleep {marker}" in execute(pods, env, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")  # noqa: E731
    wait_until(listed, timeout=30, message="the program runs")
    process.kill()
    process.communicate()
    wait_until(lambda: not listed(), timeout=30, message="the program is gone")


class Terminal:
    """A command under a terminal of 33 rows and 101 columns."""

    def __init__(self, cluster, env, *args: str) -> None:
        environment = [f"{name}={value}" for name, value in (cluster.environment | env).items()]
        self.process = spawn(["env", "-i", *environment, *args], tty=True)
        self.process.resize(33, 101)
        self.shown = ""

    def expect(self, pattern: str) -> None:
        deadline = time.monotonic() + 60
        while not re.search(pattern, self.shown):
            ready, _, _ = select.select([self.process.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"not shown in time: {pattern}\n{self.shown}"
            try:
                self.shown += os.read(self.process.master, 65536).decode()
            except OSError:  # the terminal is closed
                assert re.search(pattern, self.shown), self.shown

    def type(self, text: str) -> None:
        os.write(self.process.master, text.encode())

    def wait(self) -> int:
        code = self.process.child.wait(timeout=60)
        self.process.close()
        return code


def test_exec_with_a_terminal_has_its_size_and_follows_changes(pods, env):
    terminal = Terminal(pods, env, "kubectl", "exec", "-it", "-n", NAMESPACE, "box", "-c", "main", "--", "sh")
    terminal.type("stty size\n")
    terminal.expect("33 101")
    terminal.process.resize(20, 60)
    terminal.type("until stty size | grep 20; do sleep 0.1; done\n")
    terminal.expect("20 60")
    terminal.type("exit 5\n")
    terminal.expect("exit code 5")
    assert terminal.wait() == 5


def test_an_interrupt_typed_at_the_terminal_reaches_the_program(pods, env):
    terminal = Terminal(pods, env, "kubectl", "exec", "-it", "-n", NAMESPACE, "box", "-c", "main", "--", "sh")
    terminal.type("sh -c 'echo ready; exec sleep 1000'\n")
    terminal.expect("ready\r\n")
    terminal.type("\x03")
    terminal.expect(r"\^C\s+# ")  # what is typed before the prompt goes with the interrupt
    terminal.type("echo after=$?; exit\n")
    terminal.expect("after=130")
    assert terminal.wait() == 0


def test_attach_to_a_terminal(pods, env):
    terminal = Terminal(pods, env, "kubectl", "attach", "-it", "-n", NAMESPACE, "terminal")
    terminal.type("echo $((6*7))\n")
    terminal.expect("42")
    terminal.process.kill()
    terminal.wait()
    assert "Running" in pods.kubectl("get", "pod", "-n", NAMESPACE, "terminal")


def test_attach_shows_what_comes_from_now_on(pods, env):
    process = pods.start_kubectl("attach", "-n", NAMESPACE, "counter", env=env)
    first = process.stdout.readline()
    assert re.fullmatch(r"line \d+\n", first)
    process.kill()
    process.communicate()


def test_attach_feeds_stdin_once(pods):
    pods.kubectl("wait", "--for=condition=Ready", "--timeout=120s", "-n", NAMESPACE, "pod/reader")
    assert "fed\n" in pods.kubectl("attach", "-i", "-n", NAMESPACE, "reader", stdin="fed\n")
    pods.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s", "-n", NAMESPACE, "pod/reader")


class Forwarded:
    """`kubectl port-forward` to a local port of its choice."""

    def __init__(self, cluster, env, target: str, port: int) -> None:
        self.process = cluster.start_kubectl("port-forward", "-n", NAMESPACE, target, f":{port}", env=env)
        line = self.process.stdout.readline()
        assert line.startswith("Forwarding from"), line + self.process.stderr.read()
        self.port = int(line.split()[2].rpartition(":")[2])

    def __enter__(self) -> Forwarded:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_port_forward_carries_many_requests(pods, env):
    with Forwarded(pods, env, "pod/box", 8080) as forwarded:
        for _ in range(20):
            page = urllib.request.urlopen(f"http://127.0.0.1:{forwarded.port}/bin/env", timeout=30).read()
            assert page.startswith(b"\x7fELF")


def test_port_forward_says_why_a_port_is_not_reached(pods, env):
    with Forwarded(pods, env, "pod/box", 9) as forwarded:
        with socket.create_connection(("127.0.0.1", forwarded.port), timeout=30) as connection:
            assert connection.recv(1) == b""
        while "Connection refused" not in (line := forwarded.process.stderr.readline()):
            assert line


def test_cp_takes_files_there_and_back(pods, env, tmp_path):
    (tmp_path / "sent").write_bytes(os.urandom(5_000_000))
    pods.kubectl("cp", str(tmp_path / "sent"), f"{NAMESPACE}/box:/tmp/there", "-c", "main", env=env)
    pods.kubectl("cp", f"{NAMESPACE}/box:/tmp/there", str(tmp_path / "back"), "-c", "main", env=env)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()


def test_logs_tail_and_follow(pods):
    assert len(pods.kubectl("logs", "-n", NAMESPACE, "counter", "--tail=3").splitlines()) == 3
    process = pods.start_kubectl("logs", "-n", NAMESPACE, "counter", "-f", "--tail=1")
    lines = [process.stdout.readline() for _ in range(4)]
    process.kill()
    process.communicate()
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers == list(range(numbers[0], numbers[0] + 4))


def test_logs_with_timestamps_and_since(pods):
    pods.kubectl("logs", "-n", NAMESPACE, "counter", "--since=2s", "--timestamps")
    lines = pods.kubectl("logs", "-n", NAMESPACE, "counter", "--since=2s", "--timestamps").splitlines()
    assert 1 <= len(lines) <= 15
    assert all(re.match(r"\d{4}-\d\d-\d\dT\S+Z line \d+", line) for line in lines)
    assert len(pods.kubectl("logs", "-n", NAMESPACE, "counter", "--limit-bytes=10")) == 10


def test_logs_of_a_service_like_selection(pods):
    text = pods.kubectl("logs", "-n", NAMESPACE, "-l", "app=counter", "--tail=1", "--prefix")
    assert text.startswith("[pod/counter/main] line ")


def test_previous_logs_are_those_of_the_container_before(pods):
    def restarted() -> bool:
        path = "jsonpath={.status.containerStatuses[0].restartCount}"
        return int(pods.kubectl("get", "pod", "-n", NAMESPACE, "crashing", "-o", path) or 0) > 0

    wait_until(restarted, timeout=120, message="the container has restarted")
    assert pods.kubectl("logs", "-n", NAMESPACE, "crashing", "--previous") == "alive\n"
    with pytest.raises(CommandFailed, match='previous terminated container "main" in pod "counter" not found'):
        pods.kubectl("logs", "-n", NAMESPACE, "counter", "-p")


@pytest.fixture(scope="module")
def api(pods):
    kubernetes.config.load_kube_config(str(pods.kubeconfig))
    with kubernetes.client.ApiClient() as client:
        yield kubernetes.client.CoreV1Api(client)


def test_the_python_client_executes(api):
    talk = stream(
        api.connect_get_namespaced_pod_exec,
        "box",
        NAMESPACE,
        container="main",
        command=["sh", "-c", "read line; echo got $line; exit 3"],
        stdin=True,
        stdout=True,
        stderr=True,
        _preload_content=False,
    )
    talk.write_stdin("hello\n")
    talk.run_forever(timeout=30)
    assert (talk.read_stdout(), talk.returncode) == ("got hello\n", 3)
    talk.sock.shutdown()


def test_the_python_client_forwards_ports(api):
    forwarding = portforward(api.connect_get_namespaced_pod_portforward, "box", NAMESPACE, ports="8080")
    connection = forwarding.socket(8080)
    connection.setblocking(True)
    connection.sendall(b"GET /bin/ HTTP/1.0\r\n\r\n")
    answer = b""
    while data := connection.recv(65536):
        answer += data
    assert answer.startswith(b"HTTP/1.0 200 OK")
    connection.close()
    forwarding.websocket.shutdown()


def test_the_pods_of_the_control_plane_can_be_asked_too(cluster):
    wait_ready_pods(cluster, "kube-system")
    assert "CoreDNS" in cluster.kubectl("logs", "-n", "kube-system", "deploy/coredns")
