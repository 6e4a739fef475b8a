"""A spinner on stderr while something is waited for; nothing at all when stderr is no terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_FRAMES = "|/-\\"
_FRAME_SECONDS = 0.1


class Spinner:
    """`message` may change while it turns; an empty one shows nothing."""

    def __init__(self, message: str, *, visible: bool = True) -> None:
        self.message = message
        self._visible = visible

    async def turn(self) -> None:
        """For ever; cancel to end."""
        frame = 0
        while True:
            if self.message:
                sys.stderr.write(f"\r\x1b[K{_FRAMES[frame % len(_FRAMES)]} {self.message.splitlines()[0]}")
                sys.stderr.flush()
            frame += 1
            await asyncio.sleep(_FRAME_SECONDS)

    def clear(self) -> None:
        """Wipes the line and the message, to make room for output."""
        self.message = ""
        if self._visible:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@asynccontextmanager
async def spinning(message: str) -> AsyncIterator[Spinner]:
    """A spinner while the body runs; its line is wiped at the end."""
    if not sys.stderr.isatty():
        yield Spinner(message, visible=False)
        return
    spinner = Spinner(message)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(spinner.turn())
        try:
            yield spinner
        finally:
            task.cancel()
            spinner.clear()
