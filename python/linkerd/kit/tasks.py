"""The life of a process: its tasks in one group, ended by a signal or by the first failure."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


async def terminated() -> None:
    """Until SIGTERM or SIGINT asks the process to end."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    try:
        await asked.wait()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def run_until_terminated(
    *tasks: Coroutine[Any, Any, Any], drain: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Runs the tasks until a signal comes; then `drain` (while they still run), then cancels them.

    A task that fails cancels the others and its error is raised: a half-working process is worse than a restart.
    """
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(task) for task in tasks]
        await terminated()
        log.info("shutting down")
        if drain is not None:
            await drain()
        for task in running:
            task.cancel()


def run(main: Coroutine[Any, Any, Any]) -> int:
    """The exit code of a process whose work is `main`: 0 when asked to end, 1 with the reason logged when it failed."""
    try:
        asyncio.run(main)
    except Exception as error:
        for failure in _leaves(error):
            log.critical("exiting", exc_info=failure)
        return 1
    return 0


def _leaves(error: Exception) -> list[Exception]:
    if not isinstance(error, ExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions for leaf in _leaves(part)]


def fail(message: str) -> int:
    """A start that cannot go on for a reason the operator can mend: said on stderr; the exit code."""
    sys.stderr.write(f"error: {message}\n")
    return 1
