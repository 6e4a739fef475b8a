"""A node runtime of plain local processes: what the streams server is tested against without a cluster."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from linkerd.cluster.node.api import (
    ContainerInfo,
    ContainerUsage,
    NodeUsage,
    NotFound,
    NotRunning,
    Phase,
    PodUsage,
    Stats,
)


class LocalProcess:
    """A child with its descriptors, as `api.Process` describes it."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        master: int | None = None,
        owned: bool = True,
    ) -> None:
        self.child = child
        self.stdin, self.stdout, self.stderr, self.master = stdin, stdout, stderr, master
        self._owned = owned
        for descriptor in self._descriptors():
            os.set_blocking(descriptor, False)

    def _descriptors(self) -> list[int]:
        return [fd for fd in (self.stdin, self.stdout, self.stderr, self.master) if fd is not None]

    async def wait(self) -> int:
        code = await asyncio.to_thread(self.child.wait)
        return code if code >= 0 else 128 - code

    def resize(self, rows: int, columns: int) -> None:
        if self.master is not None:
            fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def kill(self) -> None:
        if self._owned and self.child.poll() is None:
            self.child.kill()

    def close(self) -> None:
        for descriptor in self._descriptors():
            os.close(descriptor)
        self.stdin = self.stdout = self.stderr = self.master = None


@dataclass
class LocalContainer:
    """A container of the fake: its log, and what attaching to it runs into."""

    name: str
    phase: Phase = Phase.RUNNING
    tty: bool = False
    stdin: bool = False
    log: list[bytes] = field(default_factory=list)
    log_changed: asyncio.Event = field(default_factory=asyncio.Event)
    main: LocalProcess | None = None


def spawn(argv: Sequence[str], *, tty: bool = False, stdin: bool = True) -> LocalProcess:
    if tty:
        master, slave = pty.openpty()
        child = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, preexec_fn=_take_terminal)
        os.close(slave)
        return LocalProcess(child, master=master)
    child = subprocess.Popen(
        argv,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    pipes = [os.dup(pipe.fileno()) if pipe else None for pipe in (child.stdin, child.stdout, child.stderr)]
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    return LocalProcess(child, stdin=pipes[0], stdout=pipes[1], stderr=pipes[2])


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class LocalRuntime:
    """Pods by namespace and name; their "containers" are this machine itself."""

    def __init__(self) -> None:
        self.pods: dict[tuple[str, str], list[LocalContainer]] = {("apps", "web"): [LocalContainer("app")]}
        self.started: list[LocalProcess] = []
        self.ports: dict[int, int] = {}
        self.cpu_seconds = 12.5

    def close(self) -> None:
        for process in self.started:
            if process.child.poll() is None:
                process.child.send_signal(signal.SIGKILL)
            process.child.wait()
            process.close()

    def containers(self, namespace: str, pod: str, uid: str | None = None) -> tuple[ContainerInfo, ...]:
        found = self.pods.get((namespace, pod))
        if found is None or uid not in (None, "uid-1"):
            raise NotFound(f"no pod {namespace}/{pod}")
        return tuple(
            ContainerInfo(namespace, pod, "uid-1", each.name, "id", each.phase, each.tty, each.stdin) for each in found
        )

    def container(self, namespace: str, pod: str, name: str) -> LocalContainer:
        for each in self.pods.get((namespace, pod), ()):
            if each.name == name:
                return each
        raise NotFound(f"no container {name}")

    async def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        argv: Sequence[str],
        *,
        tty: bool = False,
        stdin: bool = True,
        env: Mapping[str, str] | None = None,
        uid: str | None = None,
    ) -> LocalProcess:
        process = spawn(argv, tty=tty, stdin=stdin)
        self.started.append(process)
        return process

    async def attach(
        self, namespace: str, pod: str, container: str, *, stdin: bool = False, uid: str | None = None
    ) -> LocalProcess:
        main = self.container(namespace, pod, container).main
        if main is None:
            raise NotRunning("nothing to attach to")
        copies = [os.dup(fd) if fd is not None else None for fd in (main.stdin, main.stdout, main.stderr)]
        if not stdin and copies[0] is not None:
            os.close(copies[0])
            copies[0] = None
        return LocalProcess(main.child, stdin=copies[0], stdout=copies[1], stderr=copies[2], owned=False)

    async def dial(self, namespace: str, pod: str, port: int, *, uid: str | None = None) -> socket.socket:
        peer = socket.socket()
        peer.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(peer, ("127.0.0.1", self.ports.get(port, port)))
        except BaseException:
            peer.close()
            raise
        return peer

    async def logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: datetime | None = None,
        timestamps: bool = False,
        previous: bool = False,
        limit_bytes: int | None = None,
        uid: str | None = None,
    ) -> AsyncIterator[bytes]:
        if previous:
            raise NotFound(f'previous terminated container "{container}" in pod "{pod}" not found')
        return self._lines(self.container(namespace, pod, container), follow, tail)

    async def _lines(self, container: LocalContainer, follow: bool, tail: int | None) -> AsyncIterator[bytes]:
        position = max(0, len(container.log) - tail) if tail is not None else 0
        while True:
            for line in container.log[position:]:
                yield line
            position = len(container.log)
            if not follow or container.phase is Phase.TERMINATED:
                return
            container.log_changed.clear()
            await container.log_changed.wait()

    def stats(self) -> Stats:
        at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        usage = ContainerUsage("app", at.replace(hour=0), self.cpu_seconds, 1048576)
        pods = tuple(PodUsage(namespace, pod, "uid-1", at.replace(hour=0), (usage,)) for namespace, pod in self.pods)
        return Stats(at, NodeUsage("node-1", at.replace(hour=0), 100.25, 2**30, 2**31), pods)
