"""The host's side of start and stop: makes the first process, hears how it comes up, ends it.

Nothing is left on the host but files in the state directory: the namespaces belong to the first process alone.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from linkerd.cluster.engine import components, state
from linkerd.cluster.engine.certificates import DamagedPki, ensure_pki
from linkerd.cluster.engine.reporting import read_report
from linkerd.cluster.engine.settings import Settings, settings_as_json
from linkerd.cluster.engine.state import Instance, StateError
from linkerd.cluster.node import syscalls

STOP_SECONDS = 40.0
"""More than the sum of the components' own graces."""

_NAMESPACES = (
    syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
)

_ENGINE_LOG_LIMIT = 2**20


@dataclass(frozen=True, slots=True)
class Launched:
    """A first process on its way. `pid` is the host's number of it."""

    pid: int
    report_fd: int

    def steps(self) -> Iterator[str]:
        """What it is waiting for, until the API is ready. Raises StartFailed."""
        with os.fdopen(self.report_fd) as stream:
            yield from read_report(stream)


def listen(port: int) -> socket.socket:
    """The host's end of the relay. Raises OSError (EADDRINUSE when the port is taken)."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(256)
    except OSError:
        listener.close()
        raise
    return listener


def write_configuration(settings: Settings) -> None:
    """Keys, certificates and the components' configuration. Raises StateError."""
    try:
        ensure_pki(settings.pki)
        for name, text in components.configuration_files(settings).items():
            state.write_file(settings.run / name, text, 0o600)
        state.write_file(settings.kubeconfig, components.admin_kubeconfig(settings), 0o600)
    except DamagedPki as error:
        raise StateError(
            f"the state directory is damaged: {error}", state.RESET_HINT.format(settings.state_dir)
        ) from error
    except OSError as error:
        raise StateError(f"{error.filename}: {error.strerror}", state.disk_hint(error)) from error


def launch(settings: Settings, listener: socket.socket, lock_fd: int) -> Launched:
    """Start the first process in namespaces of its own, detached from this terminal. Raises OSError.

    It inherits the listening socket and the lock; the caller closes its own copies.
    """
    (settings.run / "engine.json").unlink(missing_ok=True)
    report, their_report = os.pipe2(os.O_CLOEXEC)
    pid_pipe, their_pid = os.pipe2(os.O_CLOEXEC)
    arguments = json.dumps(
        {
            "settings": settings_as_json(settings),
            "listen_fd": listener.fileno(),
            "lock_fd": lock_fd,
            "report_fd": their_report,
        }
    )
    between = os.fork()
    if between == 0:
        _become_parent_of_first(settings, arguments, (listener.fileno(), lock_fd, their_report), their_pid)
    os.close(their_report)
    os.close(their_pid)
    with os.fdopen(pid_pipe) as stream:
        answer = stream.read()
    os.waitpid(between, 0)
    if not answer.isdecimal():
        os.close(report)
        raise OSError(answer or "the first process could not be made")
    return Launched(int(answer), report)


def _become_parent_of_first(settings: Settings, arguments: str, inherited: tuple[int, ...], pid_fd: int) -> None:
    """In a forked child, never returns: unshare changes the PID namespace only of children, so it takes one more
    process, which tells its child's pid and is gone."""
    try:
        os.setsid()
        log_fd = _engine_log(settings)
        syscalls.unshare(_NAMESPACES)
        first = os.fork()
        if first == 0:
            _become_first(arguments, inherited, log_fd)
        os.write(pid_fd, str(first).encode())
    except OSError as error:
        os.write(pid_fd, str(error).encode())
    finally:
        os._exit(0)


def _become_first(arguments: str, inherited: tuple[int, ...], log_fd: int) -> None:
    try:
        os.chdir("/")
        os.umask(0o022)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, null), (1, log_fd), (2, log_fd)):
            os.dup2(source, target)
        _close_all_but({0, 1, 2, *inherited})
        for descriptor in inherited:
            os.set_inheritable(descriptor, True)
        argv = [sys.executable, "-P", "-m", "linkerd.cluster.engine.init", arguments]
        os.execv(sys.executable, argv)
    except OSError as error:
        os.write(2, f"{sys.executable}: {error}\n".encode())
    finally:
        os._exit(127)


def _close_all_but(kept: set[int]) -> None:
    """Whatever our caller left open for us (a pipe of `make`, say) would never end while the cluster runs."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError as error:
                if error.errno != errno.EBADF:  # the one that listdir itself had open
                    raise


def _engine_log(settings: Settings) -> int:
    path = settings.logs / "engine.log"
    if path.exists() and path.stat().st_size > _ENGINE_LOG_LIMIT:
        path.rename(path.with_name("engine.log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def stop(instance: Instance, *, seconds: float = STOP_SECONDS, waiting: Callable[[], None] = lambda: None) -> bool:
    """End a running cluster and wait until it is gone; False if it had to be killed. `waiting` is called each second.

    The kernel ends whatever the first process leaves over.
    """
    return end_process(instance.pid, seconds=seconds, waiting=waiting)


def end_process(pid: int, *, seconds: float, waiting: Callable[[], None] = lambda: None) -> bool:
    """SIGTERM, then SIGKILL after so many seconds; False in the second case."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while not _ended(handle, 1.0):
            waiting()
            if time.monotonic() > deadline:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                _ended(handle, 10.0)
                return False
        return True
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)


def _ended(handle: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    return bool(poller.poll(seconds * 1000))
