"""A running cluster for end-to-end tests, and the commands that people type against it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.waiting import wait_until

BIN = Path(sys.executable).parent
_COMMAND_SECONDS = 300.0


class CommandFailed(AssertionError):
    """A command ended with a non-zero exit code; the message is what it printed."""

    def __init__(self, argv: list[str], done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(f"`{' '.join(argv)}` ended with {done.returncode}\n{done.stderr}{done.stdout}")
        self.exit_code = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr


class Cluster:
    """A cluster by its kubeconfig. `python` is an interpreter that containers have too."""

    def __init__(self, kubeconfig: Path, home: Path) -> None:
        self.kubeconfig = kubeconfig
        self.state_dir = kubeconfig.parent
        self.python = sys.executable
        self.home = home
        home.mkdir(exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """That of a person who has done the two exports; the home is one's own, for kubectl's caches."""
        kept = {name: value for name, value in os.environ.items() if name in ("LANG", "TERM", "SSL_CERT_FILE")}
        path = f"{BIN}:{os.environ['PATH']}"
        return kept | {"PATH": path, "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig)}

    def run(
        self,
        program: str,
        *args: str,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = _COMMAND_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """To its end, however that is."""
        return subprocess.run(
            [program, *args],
            input="" if stdin is None else stdin,
            env=self.environment | dict(env or {}),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def kubectl(self, *args: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
        """Its stdout; raises CommandFailed."""
        return self._checked("kubectl", args, stdin, env)

    def linkerd(self, *args: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> str:
        """Its stdout; raises CommandFailed."""
        return self._checked("linkerd", args, stdin, env)

    def shell(self, script: str, *, env: Mapping[str, str] | None = None) -> str:
        """A line as a person types it, with pipes; raises CommandFailed."""
        return self._checked("bash", ("-euo", "pipefail", "-c", script), None, env)

    def apply(self, manifests: str) -> str:
        return self.kubectl("apply", "--server-side", "-f", "-", stdin=manifests)

    def start(self, program: str, *args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """A command that goes on while the test does, with pipes for its three streams."""
        return subprocess.Popen(
            [program, *args],
            env=self.environment | dict(env or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_kubectl(self, *args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        return self.start("kubectl", *args, env=env)

    # From inside of the embedded cluster

    @property
    def first_pid(self) -> int:
        """The first process of the embedded cluster, as the host numbers it."""
        return int(json.loads((self.state_dir / "run" / "engine.json").read_text())["pid"])

    def in_cluster_network(self, *argv: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """A program of the host in the cluster's network namespace, where pods and services are reached."""
        return self.run("nsenter", "--net", "--target", str(self.first_pid), *argv, stdin=stdin)

    @contextlib.contextmanager
    def capture(self, path: Path, expression: str) -> Iterator[None]:
        """The packets of the cluster's network that match, into a pcap file, while the block runs."""
        argv = ["nsenter", "--net", "--target", str(self.first_pid)]
        argv += ["tcpdump", "--immediate-mode", "-i", "any", "-U", "-w", str(path)]
        process = subprocess.Popen([*argv, expression], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = ""
        while "listening on" not in said:
            line = process.stderr.readline()
            assert line, f"tcpdump did not start: {said}"
            said += line
        try:
            yield
        finally:
            process.terminate()
            process.communicate(timeout=10)

    def _checked(self, program: str, args: tuple[str, ...], stdin: str | None, env: Mapping[str, str] | None) -> str:
        done = self.run(program, *args, stdin=stdin, env=env)
        if done.returncode != 0:
            raise CommandFailed([program, *args], done)
        return done.stdout


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """The cluster of `LINKERD_TEST_KUBECONFIG`, or a fresh embedded one beside whatever else runs here."""
    with tempfile.TemporaryDirectory(prefix="linkerd-test-") as directory:
        base = Path(directory)
        base.chmod(0o755)  # containers of other users look for their volumes below
        if given := os.environ.get("LINKERD_TEST_KUBECONFIG"):
            yield Cluster(Path(given), base / "home")
            return
        with _embedded(base / "cluster") as kubeconfig:
            yield Cluster(kubeconfig, base / "home")


@contextlib.contextmanager
def _embedded(state_dir: Path) -> Iterator[Path]:
    instance = ["--state-dir", str(state_dir), "--port", str(_free_port())]
    linkerd = str(BIN / "linkerd")
    started = subprocess.run(
        [linkerd, "cluster", "start", *instance], capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False
    )
    try:
        assert started.returncode == 0, f"the cluster did not start:\n{started.stderr}"
        yield state_dir / "kubeconfig"
    finally:
        subprocess.run([linkerd, "cluster", "stop", *instance], capture_output=True, timeout=120, check=True)
        if kept := os.environ.get("LINKERD_TEST_KEEP_LOGS"):
            shutil.copytree(state_dir / "logs", kept, dirs_exist_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_ready_pods(cluster: Cluster, namespace: str, *, timeout: float = 120) -> None:
    """Until every pod of the namespace that is not meant to end is ready."""

    def all_ready() -> bool:
        items = json.loads(cluster.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]
        return bool(items) and all(_is_ready(pod) for pod in items)

    wait_until(all_ready, timeout=timeout, message=f"the pods of {namespace} are ready")


def _is_ready(pod: dict) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
