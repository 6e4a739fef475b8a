from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from linkerd.cluster.engine import supervising
from linkerd.cluster.engine.components import Component
from linkerd.cluster.engine.logfiles import LogFile, tail
from linkerd.cluster.engine.supervising import Children, Supervised, Supervisor, describe_exit, restart_delay


def test_delays_grow_up_to_a_limit() -> None:
    assert [restart_delay(deaths) for deaths in (1, 2, 3, 20)] == [0.5, 1.0, 2.0, 30.0]


def test_an_exit_in_words() -> None:
    assert describe_exit(3) == "exited with code 3"
    assert describe_exit(-9) == "was killed by SIGKILL"


Add = Callable[..., Supervised]


@pytest.fixture
async def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Add]:
    """Supervise a line of Python; all end with the test."""
    monkeypatch.setattr(supervising, "FIRST_DELAY", 0.01)
    children = Children()
    children.install()
    async with asyncio.TaskGroup() as group:
        supervisor = Supervisor(children, {"PATH": os.environ["PATH"]}, lambda: None)

        def add(code: str, grace: float = 5.0, program: str = sys.executable) -> Supervised:
            component = Component("program", (program, "-c", code), grace=grace)
            member = supervisor.add(group, component, LogFile(tmp_path / "program.log"))
            member.stop = lambda: supervisor.stop("program")
            return member

        yield add
        await supervisor.stop("program")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is the work of other processes
            await asyncio.sleep(0.01)


async def test_who_dies_is_started_again_and_its_log_says_so(add: Add) -> None:
    member = add("import sys; print('hello'); sys.exit(7)")
    await until(lambda: member.restarts >= 2)
    lines = tail(member.log_file.path, 100)
    assert lines.count("hello") >= 2
    assert any("exited with code 7; it is started again" in line for line in lines)


async def test_a_program_that_cannot_be_started_is_said_not_raised(add: Add) -> None:
    member = add("", program="/nowhere/program")
    await until(lambda: member.restarts)
    assert member.last_exit == "cannot be started: /nowhere/program: No such file or directory"


async def test_stopping_is_gentle_first(add: Add) -> None:
    member = add(
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye')));"
        "print('up', flush=True); signal.pause()"
    )
    await until(lambda: "up" in tail(member.log_file.path, 5))
    await member.stop()
    assert tail(member.log_file.path, 1) == ["bye"]
    assert (member.state, member.pid) == ("stopped", 0)


async def test_who_ignores_it_is_killed_after_its_grace(add: Add) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    member = add(code, grace=0.05)
    await until(lambda: "up" in tail(member.log_file.path, 5))
    pid = member.pid
    await member.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
