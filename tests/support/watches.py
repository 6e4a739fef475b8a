"""Watches in tests, ended while they may still be connecting."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

CUT_OFF = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
"""For tests that use `running`: asyncio (of Python 3.11 at least) leaves a transport open when it is cancelled between
connecting and the TLS handshake, and says so when that is collected."""


@asynccontextmanager
async def running(tasks: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """The endless tasks, while the block runs."""
    started = [asyncio.ensure_future(task) for task in tasks]
    try:
        yield
    finally:
        for task in started:
            task.cancel()
        await asyncio.gather(*started, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the loop's next round
        gc.collect()
