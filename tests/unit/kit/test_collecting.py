"""The garbage collector of a process with millions of objects."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest
from linkerd.kit.collecting import collect_rarely


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


class Ring:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.itself = self


async def test_what_there_is_when_the_process_has_settled_is_not_looked_at_again():
    settled = asyncio.Event()
    task = asyncio.ensure_future(collect_rarely(settled))
    await asyncio.sleep(0)
    assert gc.get_freeze_count() == 0
    found = weakref.ref(Ring())
    settled.set()
    await asyncio.sleep(0)
    assert found() is None, "garbage is collected first"
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[2] > 10**9
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
