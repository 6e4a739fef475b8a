"""Pods: network namespaces with a cable between two of them.

The bench runs in PID, mount and network namespaces of its own, of which it is the first process. So whatever becomes of
it, the kernel ends every process that it started, and with them goes every namespace, cable, rule and mount.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CLIENT_IP = "10.99.0.1"
SERVER_IP = "10.99.0.2"
PROXY_UID = 2102


def enclose() -> None:
    """Goes on in namespaces of its own."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return
    if os.geteuid() != 0:
        sys.exit("error: network namespaces need root")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.execvp("unshare", ["unshare", *namespaces, sys.executable, *sys.argv])


class Lab:
    """A directory that all users can read, with the programs that run in pods."""

    def __init__(self, programs: Mapping[str, Path]) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="linkerd-bench-"))
        self.directory.chmod(0o755)
        self.programs: dict[str, str] = {}
        for name, path in programs.items():
            # Programs below a home directory cannot be reached by the proxy's user.
            place = self.directory / "bin" / name
            place.parent.mkdir(exist_ok=True)
            place.touch()
            subprocess.run(["mount", "--bind", path, place], check=True)
            self.programs[name] = str(place)

    def rig(self, command: str, **options: object) -> list[str]:
        return [self.programs["rig"], command, json.dumps(options)]

    def scratch(self, name: str) -> Path:
        """A directory that the proxy's user may write to."""
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))
        path.chmod(0o777)
        return path

    def close(self) -> None:
        for place in self.programs.values():
            subprocess.run(["umount", "--lazy", place], check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


@dataclass
class Pod:
    """A network namespace; it lives as long as its holder."""

    holder: subprocess.Popen[bytes]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)

    @classmethod
    def create(cls) -> Pod:
        holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo && exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        assert holder.stdout
        holder.stdout.readline()
        return cls(holder)

    def command(self, argv: Sequence[str | Path], user: int | None = None) -> list[str]:
        enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]
        if user is not None:
            enter += ["--setuid", str(user), "--setgid", str(user)]
        return [*enter, "--", *map(str, argv)]

    def run(self, *argv: str | Path) -> str:
        done = subprocess.run(self.command(argv), check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def start(
        self,
        argv: Sequence[str | Path],
        user: int | None = None,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> subprocess.Popen[str]:
        if log:
            self.logs.append(log)
        with open(log or os.devnull, "w") as out:
            process = subprocess.Popen(
                self.command(argv, user), env=env, cwd="/", stdout=out, stderr=subprocess.STDOUT, text=True
            )
        self.processes.append(process)
        return process

    def talk(self, argv: Sequence[str | Path]) -> subprocess.Popen[str]:
        """A process whose lines are read."""
        process = subprocess.Popen(self.command(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def serve(self, argv: Sequence[str | Path]) -> None:
        """A process of the rig that serves; it says when it does."""
        process = self.talk(argv)
        assert process.stdout
        if process.stdout.readline() != "begin\n":
            raise RuntimeError(f"{' '.join(map(str, argv))}: did not begin")

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.holder.kill()
        for process in (*self.processes, self.holder):
            process.wait()


@dataclass
class Pair:
    client: Pod
    server: Pod

    @classmethod
    def create(cls) -> Pair:
        pair = cls(Pod.create(), Pod.create())
        peer = ["peer", "name", "eth0", "netns", str(pair.server.holder.pid)]
        pair.client.run("ip", "link", "add", "eth0", "type", "veth", *peer)
        for pod, own, other in ((pair.client, CLIENT_IP, SERVER_IP), (pair.server, SERVER_IP, CLIENT_IP)):
            pod.run("ip", "address", "add", f"{own}/24", "dev", "eth0")
            pod.run("ip", "link", "set", "eth0", "up")
            pod.run("ip", "route", "add", "default", "via", other)
        return pair

    def close(self) -> None:
        self.client.close()
        self.server.close()
