"""Waiting for plain file descriptors (pipes, terminals) on the event loop.

The descriptors are non-blocking. A task that waits here must be cancelled before its descriptor is closed, or the
loop would watch whatever gets the same number next.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

from linkerd.cluster.streams.duplex import READ_SIZE


async def read_some(descriptor: int) -> bytes:
    """Some bytes; empty at the end, which for a terminal is the last process leaving it."""
    while True:
        try:
            return os.read(descriptor, READ_SIZE)
        except BlockingIOError:
            await _readable(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise


async def write_all(descriptor: int, data: bytes) -> None:
    """Raises BrokenPipeError when nobody reads (EIO of a terminal included)."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            await _writable(descriptor)
        except OSError as error:
            if error.errno == errno.EIO:
                raise BrokenPipeError(error.errno, "nobody is at the terminal any more") from error
            raise


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    await _once(lambda ready: loop.add_reader(descriptor, ready), lambda: loop.remove_reader(descriptor))


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    await _once(lambda ready: loop.add_writer(descriptor, ready), lambda: loop.remove_writer(descriptor))


async def _once(watch: Callable[[Callable[[], None]], None], forget: Callable[[], object]) -> None:
    ready = asyncio.Event()
    watch(ready.set)
    try:
        await ready.wait()
    finally:
        forget()
