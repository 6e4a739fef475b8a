"""Python's cyclic garbage collector, kept from pausing a process that holds millions of objects.

A full collection looks at every object: half a second for the pods and streams of a large cluster, in which nobody is
told anything. By itself it comes whenever a quarter more was allocated. Here it comes every ten minutes instead, and
what survived is not looked at in between. What is in no cycle is freed at once, as ever.
"""

from __future__ import annotations

import asyncio
import gc

_EVERY_SECONDS = 600.0
_YOUNG = 20_000
"""Objects allocated before the youngest are looked at; that takes a millisecond."""

_NEVER = 2**31 - 1


async def collect_rarely(settled: asyncio.Event) -> None:
    """For ever, from the moment that the process has `settled`; cancel to end."""
    gc.set_threshold(_YOUNG, 20, _NEVER)
    await settled.wait()
    while True:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        await asyncio.sleep(_EVERY_SECONDS)
