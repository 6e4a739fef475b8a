"""Runs categories in order: retries until the deadline, stops after a fatal failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

import aiohttp

from linkerd.checks.model import Category, Check, CheckFailure, Outcome, Result, Severity, Skipped
from linkerd.k8s.errors import ApiError

ATTEMPT_SECONDS = 30.0
RETRY_SECONDS = 1.0

_WAITING = "waiting for check to complete"


@dataclass(frozen=True, slots=True)
class Runner:
    """`deadline` is in the event loop's time. `forget` is called before each new attempt, so that it sees the cluster
    as it is then; `waiting` is told what is being waited for."""

    deadline: float
    forget: Callable[[], None]
    waiting: Callable[[str], None]

    async def run(self, categories: Iterable[Category]) -> AsyncIterator[Result]:
        """Results as they come. A fatal failure is the last one."""
        for category in categories:
            for check in category.checks:
                result = await self._result(category.name, check)
                if result is None:
                    continue
                yield result
                if result.outcome is Outcome.FAILED and check.severity is Severity.FATAL:
                    return

    async def _result(self, category: str, check: Check) -> Result | None:
        while True:
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    await check.run()
                return Result(category, check, Outcome.OK)
            except Skipped:
                return None
            except (CheckFailure, ApiError, aiohttp.ClientError, OSError) as error:
                text = _text(error)
            if not check.retry or asyncio.get_running_loop().time() + RETRY_SECONDS >= self.deadline:
                outcome = Outcome.WARNING if check.severity is Severity.WARNING else Outcome.FAILED
                return Result(category, check, outcome, text)
            self.waiting(text if check.surface else _WAITING)
            await asyncio.sleep(RETRY_SECONDS)
            self.forget()


def _text(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {ATTEMPT_SECONDS:.0f}s"
    return str(error) or type(error).__name__
