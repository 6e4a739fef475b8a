"""The agent's side of the spawner: start containers and commands, and hear how they ended."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_MAX_MESSAGE = 65536
_MAX_FDS = 8


class SpawnError(OSError):
    """The spawner could not do what it was asked; the text is the kernel's reason."""


class SpawnerGone(RuntimeError):
    """The spawner has ended, and with it all containers of this node."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: `code` is negative for a signal; CPU seconds include its reaped children."""

    code: int
    cpu_seconds: float
    time: float

    @property
    def status(self) -> int:
        """The exit code as shells and Kubernetes write it."""
        return self.code if self.code >= 0 else 128 - self.code


@dataclass(frozen=True, slots=True)
class Command:
    """A program with everything about it that the user of the container API decides."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: tuple[int, ...]
    no_new_privileges: bool
    tty: bool = False

    def to_json(self) -> dict[str, Any]:
        """The form in which it travels to the spawner."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod's namespaces, held open by descriptors: they end with the agent, whatever happens."""

    net: int
    uts: int
    ipc: int

    def fds(self) -> dict[str, int]:
        """By the spawner's names."""
        return {"net": self.net, "uts": self.uts, "ipc": self.ipc}

    def close(self) -> None:
        """Let go of the namespaces; the kernel frees them with their last process."""
        for fd in (self.net, self.uts, self.ipc):
            os.close(fd)


@dataclass(eq=False)
class Child:
    """A process that the spawner started. `master` is the agent's end of its terminal, if it has one."""

    pid: int
    exited: asyncio.Future[Exit]
    master: int | None = None

    async def wait(self) -> Exit:
        """Until it has ended. Cancelling the waiter leaves the process and other waiters alone."""
        return await asyncio.shield(self.exited)


@dataclass
class Spawner:
    """Talks to one spawner process. Create with `start()`; `run()` must be awaited while it is in use."""

    control: socket.socket
    process: subprocess.Popen[bytes]
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _pending: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = field(default_factory=dict)
    _children: dict[int, Child] = field(default_factory=dict)

    @classmethod
    def start(cls) -> Spawner:
        """Start the process. Do it early: the child inherits nothing but the control socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", "-m", "linkerd.cluster.node.spawner", str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        ours.setblocking(False)
        return cls(ours, process)

    async def run(self) -> None:
        """Receive answers and exits until the spawner ends; raises SpawnerGone then."""
        loop = asyncio.get_running_loop()
        gone = loop.create_future()
        loop.add_reader(self.control, self._receive, gone)
        try:
            await gone
        finally:
            loop.remove_reader(self.control)

    def close(self) -> None:
        """End the spawner and every container with it."""
        self.process.kill()
        self.process.wait()
        self.control.close()

    def _receive(self, gone: asyncio.Future[None]) -> None:
        try:
            while True:
                data, fds, _, _ = socket.recv_fds(self.control, _MAX_MESSAGE, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
                if not data:
                    self._fail(gone)
                    return
                self._dispatch(json.loads(data), fds)
        except BlockingIOError:
            return
        except ConnectionError:
            self._fail(gone)

    def _fail(self, gone: asyncio.Future[None]) -> None:
        error = SpawnerGone(f"the spawner (pid {self.process.pid}) has ended")
        for future in self._pending.values():
            if not future.done():
                future.set_exception(error)
        if not gone.done():
            gone.set_exception(error)

    def _dispatch(self, message: dict[str, Any], fds: list[int]) -> None:
        if "exit" in message:
            child = self._children.pop(message["exit"], None)
            if child is not None and not child.exited.done():
                child.exited.set_result(Exit(message["code"], message["cpu"], message["time"]))
            return
        future = self._pending.pop(message["id"])
        if "pid" in message:
            # Known before the waiting task runs: the exit may be the very next message.
            child = Child(message["pid"], asyncio.get_running_loop().create_future())
            message["child"] = self._children[child.pid] = child
        if future.done():  # its waiter was cancelled
            for fd in fds:
                os.close(fd)
        else:
            future.set_result((message, fds))

    async def _request(self, op: str, spec: dict[str, Any], fds: dict[str, int]) -> tuple[dict[str, Any], list[int]]:
        message, received = await self._send(op, spec, fds)
        if "error" in message:
            raise SpawnError(message["errno"], message["error"])
        return message, received

    def _send(
        self, op: str, spec: dict[str, Any], fds: dict[str, int]
    ) -> asyncio.Future[tuple[dict[str, Any], list[int]]]:
        number = next(self._numbers)
        body = _memory_file(json.dumps(spec).encode())
        header = {"id": number, "op": op, "fds": list(fds)}
        try:
            socket.send_fds(self.control, [json.dumps(header).encode()], [body, *fds.values()])
        except OSError as error:
            raise SpawnerGone(str(error)) from error
        finally:
            os.close(body)
        self._pending[number] = asyncio.get_running_loop().create_future()
        return self._pending[number]

    async def make_sandbox(self, hostname: str, *, network: bool, sysctls: Mapping[str, str]) -> Sandbox:
        """New UTS and IPC namespaces, and a network of its own unless the pod uses the node's."""
        spec = {"hostname": hostname, "network": network, "sysctls": dict(sysctls)}
        _, fds = await self._request("sandbox", spec, {})
        return Sandbox(*fds)

    async def pause(self) -> tuple[Child, int]:
        """The first process of a PID namespace for all containers of a pod, and a descriptor of the namespace."""
        message, fds = await self._request("pause", {}, {})
        return message["child"], fds[0]

    async def start_container(
        self, command: Command, fds: dict[str, int], *, root: dict[str, Any], privileged: bool, oom_score: int
    ) -> Child:
        """`fds`: stdin, stdout, stderr (without a tty), net, uts, ipc; pid to join a PID namespace."""
        spec = {**command.to_json(), "root": root, "privileged": privileged, "oom_score": oom_score}
        return _started(*await self._request("start", spec, fds))

    async def start_exec(self, container: Child, command: Command, fds: dict[str, int]) -> Child:
        """One more process in the namespaces of a running container."""
        return _started(*await self._request("exec", {**command.to_json(), "pid": container.pid}, fds))

    async def kill(self, child: Child, number: int = signal.SIGKILL) -> None:
        """Send a signal, unless the process has ended already."""
        if not child.exited.done():
            await self._request("kill", {"pid": child.pid, "signal": int(number)}, {})

    def kill_nowait(self, child: Child) -> None:
        """SIGKILL, without waiting for the spawner to have done it; nothing happens when that is gone."""
        if child.exited.done():
            return
        try:
            self._send("kill", {"pid": child.pid, "signal": int(signal.SIGKILL)}, {})
        except SpawnerGone:
            return


def _started(message: dict[str, Any], fds: list[int]) -> Child:
    child: Child = message["child"]
    child.master = fds[0] if fds else None
    return child


def _memory_file(content: bytes) -> int:
    fd = os.memfd_create("spawn", os.MFD_CLOEXEC)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
