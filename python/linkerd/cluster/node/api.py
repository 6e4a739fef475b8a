"""What the node's HTTP server (`cluster/streams`) asks of the container runtime.

The two sides meet only here: the server speaks the wire protocols of exec, attach, port-forward and logs, the
runtime knows pods, processes and files. Process streams are plain non-blocking file descriptors, so that the
server's loop can `add_reader` them without a copy in between.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol


class NotFound(LookupError):
    """The pod or container does not exist on this node (HTTP 404)."""


class NotRunning(RuntimeError):
    """The container exists but has no process to talk to right now (HTTP 400)."""


class Phase(Enum):
    """Where a container stands, as its status says it."""

    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """One container of a pod on this node. `id` is empty until it was started once."""

    namespace: str
    pod: str
    uid: str
    name: str
    id: str
    phase: Phase
    tty: bool
    stdin: bool


class Process(Protocol):
    """A process with its streams; exec starts one, attach joins the container's own.

    The descriptors are non-blocking and belong to whoever received this object: it closes them (`close()`, or one by
    one with `os.close` after setting the attribute to None, as for an end of stdin). With a tty there is only
    `master`, a descriptor of both directions; reading it fails with EIO when the last process left the terminal.
    """

    stdin: int | None
    stdout: int | None
    stderr: int | None
    master: int | None

    async def wait(self) -> int:
        """The exit code, 128 + signal for a killed process. Output may still be unread in the pipes."""
        ...

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; without a tty nothing happens."""
        ...

    def kill(self) -> None:
        """SIGKILL an exec's process, if it still runs. An attached container is only left, never killed."""
        ...

    def close(self) -> None:
        """Close the descriptors that are still open."""
        ...


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What a container used. CPU counts from the container's start and includes children already reaped."""

    name: str
    started: datetime
    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class PodUsage:
    """The usage of one pod's running containers."""

    namespace: str
    name: str
    uid: str
    started: datetime
    containers: tuple[ContainerUsage, ...]


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """The usage of the whole machine: the node is the machine, so it counts processes outside the cluster too."""

    name: str
    started: datetime
    cpu_seconds: float
    memory_bytes: int
    memory_available_bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """One consistent reading, taken at `time` (UTC)."""

    time: datetime
    node: NodeUsage
    pods: tuple[PodUsage, ...]


class Runtime(Protocol):
    """The containers of this node. Lookups raise `NotFound`, what needs a process raises `NotRunning`.

    `uid` pins one incarnation of a pod: another pod of the same name raises `NotFound`.
    """

    def containers(self, namespace: str, pod: str, uid: str | None = None) -> tuple[ContainerInfo, ...]:
        """The pod's containers, init containers first, in the order of the spec."""
        ...

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
    ) -> Process:
        """Run a program inside the container. Without `stdin` it reads /dev/null.

        A program that cannot be started ends as in other runtimes: `wait()` gives 126 (not executable) or 127 (not
        found) and the reason is on its stderr.
        """
        ...

    async def attach(
        self, namespace: str, pod: str, container: str, *, stdin: bool = False, uid: str | None = None
    ) -> Process:
        """Join the streams of the container's own process, from now on. `stdin` stays None unless the pod has one."""
        ...

    async def dial(self, namespace: str, pod: str, port: int, *, uid: str | None = None) -> socket.socket:
        """A connected non-blocking TCP socket to 127.0.0.1:port inside the pod's network (OSError when refused)."""
        ...

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
        """The container's output. Errors are raised by the call itself, before the first chunk.

        A following iterator ends when the container has ended; closing it (`aclose`) is always allowed.
        """
        ...

    def stats(self) -> Stats:
        """Usage of node, pods and containers now."""
        ...
