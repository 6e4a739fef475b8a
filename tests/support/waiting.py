"""Waiting for a condition, with a deadline: what tests do instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_PAUSE_SECONDS = 0.1


def wait_until(condition: Callable[[], T], *, timeout: float, message: str) -> T:
    """The first truthy answer of `condition`, asked again and again. Raises AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {message} (last answer: {answer!r})")
        time.sleep(_PAUSE_SECONDS)
