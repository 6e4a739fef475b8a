"""Files that are replaced while we run: mounted Secrets and ConfigMaps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

_LOOK_EVERY = 2.0
"""Seconds. A kubelet swaps a link above the files, which inotify on the file misses; a stat costs microseconds."""


async def changes(paths: Sequence[Path], *, at_least_every: float = 3600.0) -> AsyncIterator[bool]:
    """Yields True soon after one of the files was replaced, and False when `at_least_every` seconds went by without."""
    before = _stamps(paths)
    waited = 0.0
    while True:
        await asyncio.sleep(min(_LOOK_EVERY, at_least_every))
        waited += _LOOK_EVERY
        now = _stamps(paths)
        if now != before or waited >= at_least_every:
            yield now != before
            before, waited = now, 0.0


def _stamps(paths: Sequence[Path]) -> list[tuple[int, int, int] | None]:
    return [_stamp(path) for path in paths]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
