"""What the node's HTTP server gets to see of the pods: the `api.Runtime` of this agent."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from linkerd.cluster.node import api, usage
from linkerd.cluster.node.assigned import AssignedPods
from linkerd.cluster.node.containers import Container, Run, describe_start_error
from linkerd.cluster.node.context import NodeContext
from linkerd.cluster.node.logs import LogQuery, read_log
from linkerd.cluster.node.pods import Pod
from linkerd.cluster.node.spawning import Child, Spawner, SpawnError
from linkerd.cluster.node.statuses import Record, Running, Terminated, Waiting

_PIPE_SIZE = 1 << 20  # bytes of output that an attached client may lag behind before it misses some


@dataclass
class _Streams:
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None
    master: int | None = None

    def close(self) -> None:
        """Close the descriptors that are still open."""
        for name in ("stdin", "stdout", "stderr", "master"):
            fd = getattr(self, name)
            if fd is not None:
                os.close(fd)
                setattr(self, name, None)


@dataclass
class ExecProcess(_Streams):
    """A command that runs in a container."""

    child: Child = field(kw_only=True)
    spawner: Spawner = field(kw_only=True)

    async def wait(self) -> int:
        """Its exit code."""
        return (await self.child.wait()).status

    def resize(self, rows: int, columns: int) -> None:
        """Of its terminal."""
        if self.master is not None:
            set_size(self.master, rows, columns)

    def kill(self) -> None:
        """End it, if it still runs."""
        self.spawner.kill_nowait(self.child)


@dataclass
class FailedExec(_Streams):
    """A command that could not be started: its reason is all its output."""

    code: int = field(kw_only=True)

    async def wait(self) -> int:
        """As shells report it: 126 or 127."""
        return self.code

    def resize(self, rows: int, columns: int) -> None:
        """Nothing to resize."""

    def kill(self) -> None:
        """Nothing to end."""


@dataclass
class AttachedProcess(_Streams):
    """The container's own process, seen from outside."""

    run: Run = field(kw_only=True)

    async def wait(self) -> int:
        """The container's exit code."""
        return (await self.run.child.wait()).status

    def resize(self, rows: int, columns: int) -> None:
        """Of the container's terminal."""
        if self.run.child.master is not None and self.run.exit is None:
            set_size(self.run.child.master, rows, columns)

    def kill(self) -> None:
        """An attached container is only left."""


def set_size(terminal: int, rows: int, columns: int) -> None:
    """TIOCSWINSZ; the processes on it get SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("=HHHH", rows, columns, 0, 0))


class NodeRuntime:
    """Implements `api.Runtime`."""

    def __init__(self, node: NodeContext, pods: AssignedPods) -> None:
        self._node = node
        self._pods = pods

    def containers(self, namespace: str, pod: str, uid: str | None = None) -> tuple[api.ContainerInfo, ...]:
        """See `api.Runtime`."""
        found = self._pod(namespace, pod, uid)
        return tuple(_info(found, container) for container in found.containers)

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
    ) -> api.Process:
        """See `api.Runtime`."""
        target = self._container(namespace, pod, container, uid)
        if target.run is None:
            raise api.NotRunning(f"container {container} in pod {namespace}/{pod} is not running")
        theirs: dict[str, int | None] = {} if tty else {"stdin": None}
        ours: dict[str, int] = {}
        if not tty:
            if stdin:
                theirs["stdin"], ours["stdin"] = os.pipe2(os.O_CLOEXEC)
            for name in ("stdout", "stderr"):
                ours[name], theirs[name] = os.pipe2(os.O_CLOEXEC)
        try:
            child = await target.start_exec(argv, theirs, tty=tty, env=env)
        except SpawnError as error:
            return _failed_exec(error, argv[0] if argv else "", ours, tty=tty)
        finally:
            for fd in theirs.values():
                if fd is not None:
                    os.close(fd)
        if child.master is not None:
            ours["master"] = child.master
        for fd in ours.values():
            os.set_blocking(fd, False)
        return ExecProcess(**ours, child=child, spawner=self._node.spawner)

    async def attach(
        self, namespace: str, pod: str, container: str, *, stdin: bool = False, uid: str | None = None
    ) -> api.Process:
        """See `api.Runtime`."""
        target = self._container(namespace, pod, container, uid)
        run = target.run
        if run is None or run.exit is not None:
            raise api.NotRunning(f"container {container} in pod {namespace}/{pod} is not running")
        if run.child.master is not None:
            return _attach_terminal(run, run.child.master, stdin=stdin and bool(target.spec.get("stdin")))
        return _attach_pipes(run, stdin=stdin, once=bool(target.spec.get("stdinOnce")))

    async def dial(self, namespace: str, pod: str, port: int, *, uid: str | None = None) -> socket.socket:
        """See `api.Runtime`."""
        found = self._pod(namespace, pod, uid)
        if found.sandbox is None:
            raise api.NotRunning(f"pod {namespace}/{pod} is not running")
        sock = self._node.network.call(found.sandbox.net, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return sock

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
        """See `api.Runtime`."""
        target = self._container(namespace, pod, container, uid)
        query = LogQuery(follow and not previous, tail, since, timestamps, limit_bytes)
        record = target.record
        live = target.run.log if target.run is not None and not previous else None
        number = _log_number(record, running=live is not None, previous=previous)
        path = target.pod.log_path(container, number)
        if not path.exists():
            raise api.NotRunning(_no_log(record, pod, previous=previous))
        return read_log(path, query, live)

    def stats(self) -> api.Stats:
        """See `api.Runtime`."""
        processes = usage.processes_by_namespace()
        machine = usage.read_machine()
        node = api.NodeUsage(
            name=self._node.settings.node_name,
            started=_utc(machine.booted),
            cpu_seconds=machine.usage.cpu_seconds,
            memory_bytes=machine.usage.memory_bytes,
            memory_available_bytes=machine.available_bytes,
        )
        pods = tuple(_pod_usage(pod, processes) for pod in self._pods)
        return api.Stats(datetime.now(UTC), node, tuple(pod for pod in pods if pod.containers))

    def _pod(self, namespace: str, pod: str, uid: str | None) -> Pod:
        found = self._pods.find(namespace, pod, uid)
        if found is None:
            raise api.NotFound(f'pods "{pod}" not found')
        return found

    def _container(self, namespace: str, pod: str, container: str, uid: str | None) -> Container:
        for candidate in self._pod(namespace, pod, uid).containers:
            if candidate.record.name == container:
                return candidate
        raise api.NotFound(f"container {container} is not valid for pod {pod}")


def _info(pod: Pod, container: Container) -> api.ContainerInfo:
    phases = {Waiting: api.Phase.WAITING, Running: api.Phase.RUNNING, Terminated: api.Phase.TERMINATED}
    metadata = pod.object["metadata"]
    return api.ContainerInfo(
        namespace=metadata["namespace"],
        pod=metadata["name"],
        uid=pod.uid,
        name=container.record.name,
        id=container.record.container_id,
        phase=phases[type(container.record.state)],
        tty=bool(container.spec.get("tty")),
        stdin=bool(container.spec.get("stdin")),
    )


def _failed_exec(error: SpawnError, program: str, ours: dict[str, int], *, tty: bool) -> FailedExec:
    for fd in ours.values():
        os.close(fd)
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    code = 127 if error.errno == 2 else 126
    os.write(writing, f"{describe_start_error(error, program)}\n".encode())
    os.close(writing)
    if tty:
        return FailedExec(master=reading, code=code)
    empty, closed = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.close(closed)
    return FailedExec(stdout=empty, stderr=reading, code=code)


def _attach_pipes(run: Run, *, stdin: bool, once: bool) -> AttachedProcess:
    reading, writing = {}, {}
    for name in ("stdout", "stderr"):
        reading[name], writing[name] = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.fcntl(writing[name], fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    _forward_output(run, writing)
    own_stdin = run.stdin if stdin else None
    if own_stdin is not None and once:
        run.stdin = None  # the end of this client's input is the end of the container's
    elif own_stdin is not None:
        own_stdin = os.dup(own_stdin)
    return AttachedProcess(own_stdin, reading["stdout"], reading["stderr"], run=run)


def _attach_terminal(run: Run, terminal: int, *, stdin: bool) -> AttachedProcess:
    """A terminal has one reader, the log; so the client gets a socket that is fed from there."""
    near, far = socket.socketpair()
    for end in (near, far):
        end.setblocking(False)
    far_fd = far.detach()
    if stdin:
        loop = asyncio.get_running_loop()

        def carry() -> None:
            try:
                data = os.read(far_fd, 4096)
                if data and run.exit is None:
                    os.write(terminal, data)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                loop.remove_reader(far_fd)

        loop.add_reader(far_fd, carry)
    _forward_output(run, {"stdout": far_fd})
    return AttachedProcess(master=near.detach(), run=run)


def _forward_output(run: Run, writing: dict[str, int]) -> None:
    """Copy the container's output into descriptors, until it ends or the client is gone."""

    def take(stream: str, data: bytes) -> None:
        try:
            os.write(writing[stream], data)
        except BlockingIOError:
            return  # the client lags too far behind: it misses this, as the log does not
        except OSError:
            run.listeners.discard(take)

    def close(_: object) -> None:
        asyncio.get_running_loop().call_soon(_close_all, run, take, writing)

    run.listeners.add(take)
    run.child.exited.add_done_callback(close)


def _close_all(run: Run, take: object, fds: dict[str, int]) -> None:
    for reader in run.readers:
        reader.finish()
    run.listeners.discard(take)  # type: ignore[arg-type]
    loop = asyncio.get_running_loop()
    for fd in fds.values():
        loop.remove_reader(fd)
        os.close(fd)


def _log_number(record: Record, *, running: bool, previous: bool) -> int:
    """Logs are numbered by restarts; a container that waits for its restart shows its last run."""
    return record.restarts - 1 if previous else record.restarts


def _no_log(record: Record, pod: str, *, previous: bool) -> str:
    if previous:
        return f'previous terminated container "{record.name}" in pod "{pod}" not found'
    reason = record.state.reason if isinstance(record.state, Waiting) else "no log"
    return f'container "{record.name}" in pod "{pod}" is waiting to start: {reason}'


def _pod_usage(pod: Pod, processes: dict[int, list[int]]) -> api.PodUsage:
    metadata = pod.object["metadata"]
    used = tuple(_container_usage(c, c.run, processes) for c in pod.containers if c.run is not None)
    return api.PodUsage(metadata["namespace"], metadata["name"], pod.uid, _utc(pod.started), used)


def _container_usage(container: Container, run: Run, processes: dict[int, list[int]]) -> api.ContainerUsage:
    namespace = usage.namespace_of(run.child.pid)
    pids = processes.get(namespace, []) if namespace is not None and container.pod.pause is None else [run.child.pid]
    used = usage.usage_of(pids)
    return api.ContainerUsage(
        container.record.name, _utc(run.started), used.cpu_seconds + run.cpu_of_commands, used.memory_bytes
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
