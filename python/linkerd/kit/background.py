"""Tasks that live no longer than the block that started them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

Start: TypeAlias = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Starts a task in the background of the block."""


@contextlib.asynccontextmanager
async def background() -> AsyncIterator[Start]:
    """`async with background() as start: start(work())`: all that still runs at the end is cancelled.

    A failure of the block itself passes as it is, unlike that of a TaskGroup's block. A failing task cancels the block
    and is raised in a group.
    """
    failure: Exception | None = None
    running: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as group:

        def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
            task = group.create_task(work)
            running.add(task)
            task.add_done_callback(running.discard)
            return task

        try:
            yield start
        except Exception as error:  # noqa: BLE001  # kept only until the group has ended
            failure = error
        finally:
            for task in running:
                task.cancel()
    if failure is not None:
        raise failure
