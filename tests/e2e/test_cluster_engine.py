"""The embedded cluster by itself: it starts, survives, ends without a trace, and says what is wrong when it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.waiting import wait_until

BIN = Path(sys.executable).parent

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the embedded cluster needs root"),
    pytest.mark.skipif(not (BIN / "linkerd-kube").exists(), reason="linkerd-kube is not built (`make build`)"),
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@dataclass
class Instance:
    """One cluster by the command line, with a directory and a port of its own."""

    directory: Path
    port: int

    @property
    def arguments(self) -> list[str]:
        return ["--state-dir", str(self.directory), "--port", str(self.port)]

    @property
    def pid(self) -> int:
        return json.loads((self.directory / "run" / "engine.json").read_text())["pid"]

    def cluster(self, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """`linkerd cluster …`; the options belong to the sub-command."""
        command = [*prefix, str(BIN / "linkerd"), "cluster", *words, *self.arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def start(self) -> None:
        done = self.cluster("start")
        assert done.returncode == 0, done.stderr

    def kubectl(self, *words: str) -> str:
        command = [str(BIN / "kubectl"), "--kubeconfig", str(self.directory / "kubeconfig"), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def traces(self, namespaces: set[str]) -> list[str]:
        """What of the instance is left on the machine: processes in its namespaces, its mounts."""
        found = [f"process {pid} in {name}" for pid, name in living_namespaces() if name in namespaces]
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return found + [line for line in mounts if str(self.directory) in line]

    def processes(self) -> list[str]:
        """Processes that run from its directory or have something of it mounted, in whatever namespaces."""
        return [process.name for process in Path("/proc").iterdir() if process.name.isdecimal() and self._owns(process)]

    def _owns(self, process: Path) -> bool:
        try:
            told = (process / "cmdline").read_bytes() + (process / "mountinfo").read_bytes()
        except OSError:
            return False  # it ended while we looked
        return str(self.directory).encode() in told


def host_network() -> str:
    """What a cluster might leave in the host's network: links, routes, firewall rules."""
    commands = ("ip -o link", "ip route show table all", "nft -s list ruleset")
    return "\n".join(subprocess.run(c.split(), capture_output=True, text=True, check=True).stdout for c in commands)


def living_namespaces() -> Iterator[tuple[str, str]]:
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and not is_zombie(process):
            for kind in ("net", "mnt", "pid", "ipc", "uts"):
                try:
                    yield process.name, os.readlink(process / "ns" / kind)
                except OSError:
                    break  # it ended while we looked


def is_zombie(process: Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def descendant_namespaces(first: int) -> set[str]:
    """All namespaces of a process and its descendants (the pods' among them), without those of this one."""
    ours = {name for pid, name in living_namespaces() if pid == str(os.getpid())}
    family = {str(first)}
    parents = {}
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and (process / "stat").exists():
            parents[process.name] = (process / "stat").read_text().rpartition(")")[2].split()[1]
    while added := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= added
    return {name for pid, name in living_namespaces() if pid in family} - ours


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    """A place for an instance; whatever runs there ends with the test."""
    one = Instance(tmp_path / "state", free_port())
    yield one
    if (one.directory / "run" / "engine.json").exists():
        one.cluster("stop")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """A started instance, shared by the tests that leave it running."""
    one = Instance(tmp_path_factory.mktemp("engine") / "state", free_port())
    one.start()
    yield one
    one.cluster("stop")


def test_kubectl_works(running: Instance) -> None:
    assert running.kubectl("get", "--raw", "/readyz") == "ok"
    assert json.loads(running.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"] == "v1.36.3"
    assert "kube-system" in running.kubectl("get", "ns", "-o", "name")


@pytest.mark.parametrize("command", ["ip addr", "ip route show table all", "nft list ruleset"])
def test_the_hosts_network_knows_nothing_of_it(running: Instance, command: str) -> None:
    shown = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
    assert [
        line for line in shown.splitlines() if "192.168.127.1" in line or "10.96." in line or "10.244." in line
    ] == []


def test_status_tells_components_memory_and_limits(running: Instance) -> None:
    status = json.loads(running.cluster("status", "-o", "json").stdout)
    assert status["running"]
    assert status["api"]["ready"]
    assert status["node"]["ready"]
    components = {c["name"]: c for c in status["components"]}
    assert components.keys() >= {"etcd", "kube-apiserver", "kube-proxy", "node-agent"}
    assert all(c["state"] == "running" and c["pssBytes"] > 2**20 for c in components.values())
    text = running.cluster("status").stdout
    assert "limits of containers are not enforced" in text
    assert "NetworkPolicies are stored but not enforced" in text


def test_a_second_start_says_that_it_runs(running: Instance) -> None:
    done = running.cluster("start")
    assert (done.returncode, f"already runs on https://127.0.0.1:{running.port}" in done.stderr) == (0, True)


def test_the_same_directory_on_another_port_is_refused(running: Instance) -> None:
    done = Instance(running.directory, free_port()).cluster("start")
    assert done.returncode == 1
    assert f"another instance runs with the state directory {running.directory}" in done.stderr
    assert "hint: " in done.stderr


def test_a_component_that_dies_is_started_again(running: Instance) -> None:
    status = json.loads(running.cluster("status", "-o", "json").stdout)
    proxy = next(c for c in status["components"] if c["name"] == "kube-proxy")
    os.kill(proxy["pid"], signal.SIGKILL)
    wait_until(
        lambda: "kube-proxy was killed by SIGKILL; it is started again" in running.cluster("logs", "kube-proxy").stdout,
        timeout=30,
        message="the log says that kube-proxy was killed",
    )
    wait_until(lambda: restarted(running, "kube-proxy"), timeout=30, message="kube-proxy runs again")


def restarted(instance: Instance, name: str) -> bool:
    status = json.loads(instance.cluster("status", "-o", "json").stdout)
    found = next(c for c in status["components"] if c["name"] == name)
    return found["restarts"] > 0 and found["state"] == "running"


def test_reset_asks_for_a_stop_first(running: Instance) -> None:
    done = running.cluster("reset", "--yes")
    assert (done.returncode, "stop it first" in done.stderr) == (1, True)


def test_a_killed_first_process_leaves_nothing_and_the_state_survives(instance: Instance) -> None:
    instance.start()
    instance.kubectl("create", "configmap", "survivor", "--from-literal=key=value")
    first = instance.pid
    namespaces = descendant_namespaces(first)
    assert len(namespaces) >= 5
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not instance.traces(namespaces), timeout=30, message="nothing is left")
    assert instance.cluster("status").returncode == 1

    instance.start()
    assert instance.kubectl("get", "configmap", "survivor", "-o", "jsonpath={.data.key}") == "value"

    namespaces = descendant_namespaces(instance.pid)
    assert instance.cluster("stop").returncode == 0
    assert instance.traces(namespaces) == []
    assert instance.cluster("reset", "--yes").returncode == 0
    assert not instance.directory.exists()


def test_a_taken_port_is_said(instance: Instance) -> None:
    with socket.create_server(("127.0.0.1", instance.port)):
        done = instance.cluster("start")
    assert_refused(done, f"port {instance.port} of 127.0.0.1 is taken")


def test_somebody_elses_directory_is_left_alone(instance: Instance) -> None:
    instance.directory.mkdir()
    (instance.directory / "letters").touch()
    assert_refused(instance.cluster("start"), "not empty and not a cluster's state directory")
    assert_refused(instance.cluster("reset", "--yes"), "is not a cluster's state directory")


def test_a_damaged_certificate_is_named(instance: Instance, running: Instance) -> None:
    shutil.copytree(running.directory / "pki", instance.directory / "pki")
    shutil.copy(running.directory / "state.json", instance.directory)
    (instance.directory / "pki" / "ca.crt").write_text("rubbish")
    assert_refused(instance.cluster("start"), f"damaged: {instance.directory}/pki/ca.crt")


def test_a_start_that_fails_half_way_shows_why_and_cleans_up(instance: Instance, running: Instance) -> None:
    shutil.copytree(running.directory / "pki", instance.directory / "pki")
    shutil.copy(running.directory / "state.json", instance.directory)
    wal = instance.directory / "etcd" / "member" / "wal"
    wal.mkdir(parents=True)
    (wal / "0000000000000000-0000000000000000.wal").write_bytes(b"\xff" * 4096)
    before = host_network()
    done = instance.cluster("start")
    assert_refused(done, "the cluster did not start: etcd")
    assert '"caller"' in done.stderr, "etcd's own last words"
    assert "linkerd cluster reset" in done.stderr
    assert instance.cluster("status").returncode == 1
    with socket.create_server(("127.0.0.1", instance.port)):
        pass
    assert running.processes(), "the look for processes finds those of a cluster that runs"
    assert instance.processes() == [], "namespaces live as long as a process in them"
    assert instance.traces(set()) == [], "mounts"
    assert host_network() == before


NO_NAMESPACES = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
NO_NETWORKS = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
NOT_ROOT = ("unshare", "--user")


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        (NOT_ROOT, "the embedded cluster needs root"),
        (NO_NAMESPACES, "this process may not make namespaces"),
        (NO_NETWORKS, "this process may not set up networks"),
    ],
    ids=["not root", "no right to unshare", "no right to networks"],
)
def test_missing_rights_are_said(instance: Instance, prefix: tuple[str, ...], said: str) -> None:
    assert_refused(instance.cluster("start", prefix=prefix), said)


def in_changed_machine(script: str) -> tuple[str, ...]:
    """Run what follows where the script, in a mount namespace of its own, has changed the machine."""
    return ("unshare", "--mount", "sh", "-ec", f'{script}\nexec "$@"', "sh")


def hidden(*programs: str) -> str:
    """A script that hides programs wherever they are installed."""
    found = [path for name in programs for path in (shutil.which(name), f"/usr/sbin/{name}", f"/sbin/{name}") if path]
    return "\n".join(f"if [ -e {path} ]; then mount --bind /dev/null {path}; fi" for path in dict.fromkeys(found))


def kernel_without(words: str, answer: str) -> str:
    """A script that replaces `ip` or `nft` by one that answers as on a kernel without the feature."""
    program = shutil.which(words.split()[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    return (
        f'd=$(mktemp -d); mount -t tmpfs none "$d"; cp {program} "$d/real"; '
        f'printf \'#!/bin/sh\\ncase "$0 $*" in *"{words}"*) echo "{answer}" >&2; exit 1;; esac\\n'
        f'exec %s/real "$@"\\n\' "$d" > "$d/fake"; chmod +x "$d/fake"; mount --bind "$d/fake" {program}'
    )


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (hidden("nft", "apt-get"), "`nft` not found on this machine"),
        (kernel_without("ip link add", "Error: Unknown device type."), "the kernel has no veth devices"),
        (kernel_without("nft -f", "Error: Could not process rule: Operation not supported"), "no nf_tables"),
    ],
    ids=["nft missing", "no veth", "no nf_tables"],
)
def test_what_the_machine_lacks_is_said(instance: Instance, script: str, said: str) -> None:
    assert_refused(instance.cluster("start", prefix=in_changed_machine(script)), said)


def test_too_little_disk_is_said(instance: Instance) -> None:
    instance.directory.mkdir()
    prefix = in_changed_machine(f"mount -t tmpfs -o size=64m none {instance.directory}")
    assert_refused(instance.cluster("start", prefix=prefix), "64 MiB of free space")


def assert_refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 1
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
