"""Keeps the components running: starts them, takes their output, restarts who died, ends them in order.

This process is the first of a PID namespace, so it also inherits every orphan in it. That is why children are reaped
in one place, by waiting for any of them, and not by asyncio's own watcher, which waits for one by one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from linkerd.cluster.engine.components import Component
from linkerd.cluster.engine.logfiles import LogFile
from linkerd.cluster.engine.state import ComponentState

log = logging.getLogger(__name__)

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
STEADY_AFTER = 60.0
"""Seconds of running after which a death counts as the first again."""


def restart_delay(deaths: int) -> float:
    """Seconds to wait before the next start, after this many deaths in a row (at least 1)."""
    return min(FIRST_DELAY * 2.0 ** (deaths - 1), LONGEST_DELAY)


def describe_exit(code: int) -> str:
    """An exit in words; `code` is negative for a signal (`os.waitstatus_to_exitcode`)."""
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"exited with code {code}"


class Children:
    """All children of this process: who waits for which, and the end of everybody else's."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[int]] = {}

    def install(self) -> None:
        """Reap whenever a child has ended, from now on."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def spawn(self, argv: tuple[str, ...], env: Mapping[str, str], output: int) -> tuple[int, asyncio.Future[int]]:
        """Start a program with both outputs going to `output`: its pid and its future exit code.

        Raises OSError when it cannot be started.
        """
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        pid = os.posix_spawn(argv[0], argv, env, file_actions=actions, setpgroup=0, setsigdef=_DEFAULT_SIGNALS)
        # The handler runs in this thread's loop, so the child cannot be reaped before it is known here.
        ended = asyncio.get_running_loop().create_future()
        self._waiting[pid] = ended
        return pid, ended

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            waiter = self._waiting.pop(pid, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(os.waitstatus_to_exitcode(status))


_DEFAULT_SIGNALS = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
"""Python ignores SIGPIPE; a program must not inherit that."""


@dataclass
class Supervised:
    """One component and how it does."""

    component: Component
    log_file: LogFile
    pid: int = 0
    deaths: int = 0
    """In a row; a long life makes it 0 again."""
    restarts: int = 0
    state: str = "stopped"
    died: asyncio.Event = field(default_factory=asyncio.Event)
    last_exit: str = ""

    def description(self) -> ComponentState:
        return ComponentState(self.component.name, self.pid, self.restarts, self.state)


class Supervisor:
    """Runs components until it is told to stop. `changed` is called after each change of a component's state."""

    def __init__(self, children: Children, environment: Mapping[str, str], changed: Callable[[], None]) -> None:
        self._children = children
        self._environment = environment
        self._changed = changed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.members: dict[str, Supervised] = {}

    def add(self, group: asyncio.TaskGroup, component: Component, log_file: LogFile) -> Supervised:
        """Start a component and keep it running as a task of the group."""
        member = Supervised(component, log_file)
        self.members[component.name] = member
        self._tasks[component.name] = group.create_task(self._keep_running(member))
        return member

    async def stop(self, name: str) -> None:
        """SIGTERM, then SIGKILL after the component's grace. Returns when it has ended."""
        task, member = self._tasks.pop(name, None), self.members.get(name)
        if task is None or member is None:
            return
        task.cancel()
        await asyncio.wait([task])
        self._set(member, "stopped", 0)

    async def _keep_running(self, member: Supervised) -> None:
        name = member.component.name
        while True:
            started = time.monotonic()
            member.last_exit = await self._run_once(member)
            member.deaths = 1 if time.monotonic() - started > STEADY_AFTER else member.deaths + 1
            delay = restart_delay(member.deaths)
            log.warning("%s %s; it is started again in %.1f s", name, member.last_exit, delay)
            member.log_file.note(f"{name} {member.last_exit}; it is started again in {delay:.1f} s")
            member.died.set()
            self._set(member, "waiting", 0)
            await asyncio.sleep(delay)
            member.restarts += 1

    async def _run_once(self, member: Supervised) -> str:
        """One life of the component; how it ended, in words."""
        component = member.component
        reading, writing = os.pipe2(os.O_CLOEXEC)
        try:
            environment = {**self._environment, **component.env}
            pid, ended = self._children.spawn(component.argv, environment, writing)
        except OSError as error:
            os.close(reading)
            return f"cannot be started: {component.argv[0]}: {error.strerror}"
        finally:
            os.close(writing)
        output = member.log_file.follow(reading)
        self._set(member, "running", pid)
        try:
            return describe_exit(await asyncio.shield(ended))
        except asyncio.CancelledError:
            await _end(pid, ended, component.grace)
            raise
        finally:
            output.finish()

    def _set(self, member: Supervised, state: str, pid: int) -> None:
        member.state, member.pid = state, pid
        self._changed()


async def _end(pid: int, ended: asyncio.Future[int], grace: float) -> None:
    if ended.done():
        return
    os.kill(pid, signal.SIGTERM)
    await asyncio.wait([ended], timeout=grace)
    if not ended.done():
        log.info("pid %d did not end within %.0f s of SIGTERM and is killed", pid, grace)
        os.kill(pid, signal.SIGKILL)
        await ended
