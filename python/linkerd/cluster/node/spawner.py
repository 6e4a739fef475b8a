"""The process that forks containers: small, single-threaded, and the parent of every one of them.

The agent itself runs an event loop, TLS and threads, and is large; a fork of it would be slow and unsafe. So it starts
this process first and sends it requests over a SEQPACKET socket. A container is a direct child (no helper process
stays per container), its exit is reaped here and reported with its CPU time, and it dies with this process
(PR_SET_PDEATHSIG), as this process dies with the agent.

Request: a datagram `{"id", "op", "fds": [name…]}`, descriptor 0 is a memfd with the JSON body (an environment may be
larger than a datagram), then the named ones. Answer: `{"id", …}` or `{"id", "error", "errno"}`. Event:
`{"exit": pid, …}`.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from . import launching, syscalls

_MAX_FDS = 16
_MAX_ERROR = 65536


@dataclass
class _Start:
    """A child between fork and exec: `status` is at its end (EOF) when the exec has happened."""

    request: int
    pid: int
    status: socket.socket
    master: int | None = None
    failure: dict[str, Any] | None = None


@dataclass
class Spawner:
    """Serves one agent until its end of the control socket closes."""

    control: socket.socket
    children: set[int] = field(default_factory=set)
    starts: dict[int, _Start] = field(default_factory=dict)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def serve(self) -> None:
        """Handle requests, finished starts and ended children until the agent is gone."""
        self.own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        wakeup = _wake_on_child()
        self.selector.register(self.control, selectors.EVENT_READ)
        self.selector.register(wakeup, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.control:
                    if not self._take_request():
                        return
                elif key.fileobj is wakeup:
                    _drain(wakeup)
                else:
                    self._take_status(key.data)
            # Only after the statuses: a program that ends at once is first reported as started, then as ended.
            self._reap()

    def _take_request(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self.control, _MAX_ERROR, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        header = json.loads(data)
        try:
            with os.fdopen(fds[0], "rb") as body:
                spec = json.load(body)
            self._run(header, spec, dict(zip(header["fds"], fds[1:], strict=True)))
        except OSError as error:
            self._answer(header["id"], error=str(error), errno=error.errno)
        finally:
            for fd in fds[1:]:
                os.close(fd)
        return True

    def _run(self, header: dict[str, Any], spec: dict[str, Any], fds: launching.Fds) -> None:
        match header["op"]:
            case "start":
                self._start(header["id"], spec, fds, launching.start_container, fds.pop("pid", None))
            case "exec":
                self._exec(header["id"], spec, fds)
            case "sandbox":
                self._sandbox(header["id"], spec)
            case "pause":
                self._pause(header["id"])
            case "kill":
                self._kill(header["id"], spec)

    def _exec(self, request: int, spec: dict[str, Any], fds: launching.Fds) -> None:
        if spec["pid"] not in self.children:
            raise ProcessLookupError(errno.ESRCH, "the container has ended")
        opened = {}
        try:
            for kind in ("mnt", "net", "uts", "ipc", "pid"):
                opened[kind] = os.open(f"/proc/{spec['pid']}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            self._start(request, spec, fds | opened, launching.start_exec, opened["pid"])
        finally:
            for fd in opened.values():
                os.close(fd)

    def _start(self, request: int, spec: dict[str, Any], fds: launching.Fds, launch: Any, pid_fd: int | None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = self._fork(pid_fd)
        if pid == 0:
            ours.close()
            _launch(launch, spec, fds, theirs)
        theirs.close()
        self.children.add(pid)
        start = _Start(request, pid, ours)
        self.starts[pid] = start
        self.selector.register(ours, selectors.EVENT_READ, start)

    def _fork(self, pid_fd: int | None) -> int:
        """fork into the PID namespace behind `pid_fd`, or into a new one of which the child is the first process.

        The namespace for children is set on this process and set back at once: unshare(CLONE_NEWPID) works again
        only from there. So the child is ours, without a process in between.
        """
        if pid_fd is None:
            syscalls.unshare(syscalls.CLONE_NEWPID)
        else:
            syscalls.setns(pid_fd, syscalls.CLONE_NEWPID)
        pid = -1
        try:
            pid = os.fork()
            return pid
        finally:
            if pid != 0:
                syscalls.setns(self.own_pid_namespace, syscalls.CLONE_NEWPID)

    def _take_status(self, start: _Start) -> None:
        data, fds, _, _ = socket.recv_fds(start.status, _MAX_ERROR, 1, socket.MSG_CMSG_CLOEXEC)
        if data:
            start.master = fds[0] if fds else start.master
            start.failure = json.loads(data) if not fds else start.failure
            return
        self.selector.unregister(start.status)
        start.status.close()
        del self.starts[start.pid]
        if start.failure is not None:
            # Its answer is the error; without being in `children` it is reaped silently.
            self.children.discard(start.pid)
            self._answer(start.request, **start.failure)
        else:
            self._answer(start.request, fds=[] if start.master is None else [start.master], pid=start.pid)
        if start.master is not None:
            os.close(start.master)

    def _sandbox(self, request: int, spec: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            _launch(_send_sandbox, spec, {}, theirs)
        theirs.close()
        data, fds, _, _ = socket.recv_fds(ours, _MAX_ERROR, 3, socket.MSG_CMSG_CLOEXEC)
        ours.close()
        os.waitpid(pid, 0)
        self._answer(request, fds=fds, **json.loads(data or b'{"error": "sandbox died", "errno": 5}'))
        for fd in fds:
            os.close(fd)

    def _pause(self, request: int) -> None:
        """The first process of a PID namespace that the containers of one pod share; it reaps orphans."""
        pid = self._fork(None)
        if pid == 0:
            _pause_forever()
        self.children.add(pid)
        fd = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._answer(request, fds=[fd], pid=pid)
        os.close(fd)

    def _kill(self, request: int, spec: dict[str, Any]) -> None:
        """Only a child not yet reaped is signalled, so a reused pid is never hit."""
        if spec["pid"] in self.children:
            os.kill(spec["pid"], spec["signal"])
        self._answer(request)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.starts:
                self._finish_start(self.starts[pid])
            if pid not in self.children:
                continue
            self.children.discard(pid)
            self._send(
                {
                    "exit": pid,
                    "code": os.waitstatus_to_exitcode(status),
                    "cpu": usage.ru_utime + usage.ru_stime,
                    "time": time.time(),
                }
            )

    def _finish_start(self, start: _Start) -> None:
        """The child ended before its status was read: read it now, so that the answer comes before the exit."""
        while start.pid in self.starts:
            self._take_status(start)

    def _answer(self, request: int, fds: list[int] | None = None, **values: Any) -> None:
        self._send({"id": request, **values}, fds)

    def _send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        try:
            socket.send_fds(self.control, [json.dumps(message).encode()], fds or [])
        except BrokenPipeError:
            # The agent is gone; the loop sees the end of the socket next and everything ends.
            return


def _launch(launch: Any, spec: dict[str, Any], fds: launching.Fds, status: socket.socket) -> None:
    """The child's side: never returns, and tells any failure through `status` before it exits."""
    try:
        signal.set_wakeup_fd(-1)
        syscalls.die_with_parent(signal.SIGKILL)
        launch(spec, fds, status)
    except OSError as error:
        _tell(status, {"error": _describe(error), "errno": error.errno or errno.EIO})
    except Exception as error:  # noqa: BLE001 - the child has nobody else to tell
        _tell(status, {"error": f"{type(error).__name__}: {error}", "errno": errno.EIO})
    finally:
        os._exit(127)


def _describe(error: OSError) -> str:
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    return f"{error.strerror}: {name}" if name else str(error.strerror or error)


def _tell(status: socket.socket, message: dict[str, Any]) -> None:
    status.send(json.dumps(message).encode()[:_MAX_ERROR])


def _send_sandbox(spec: dict[str, Any], _: launching.Fds, status: socket.socket) -> None:
    socket.send_fds(status, [b"{}"], launching.make_sandbox(spec))


def _pause_forever() -> None:
    signal.set_wakeup_fd(-1)
    syscalls.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.closerange(3, 4096)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.sigwait([signal.SIGCHLD])


def _wake_on_child() -> socket.socket:
    reading, writing = socket.socketpair()
    for end in (reading, writing):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    return reading


def _drain(wakeup: socket.socket) -> None:
    try:
        while wakeup.recv(4096):
            pass
    except BlockingIOError:
        return


def _name_process(name: str) -> None:
    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)


def main() -> None:
    """`python -m linkerd.cluster.node.spawner FD`: serve the agent at the other end of descriptor FD."""
    syscalls.die_with_parent(signal.SIGKILL)
    _name_process("node-spawner")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # its end is the agent's end
    gc.freeze()
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    Spawner(control).serve()


if __name__ == "__main__":
    main()
