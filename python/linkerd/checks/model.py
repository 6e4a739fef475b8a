"""What a check is, and what comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum


class Severity(Enum):
    """What the failure of a check means."""

    FATAL = "fatal"
    """Nothing after it can be known: the remaining categories are left out."""
    ERROR = "error"
    WARNING = "warning"


class CheckFailure(Exception):
    """The check did not pass; the message names the objects."""


class Skipped(Exception):
    """There is nothing to check; the line is left out."""


Run = Callable[[], Awaitable[None]]
"""Returns when the check passed; raises CheckFailure or Skipped."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `linkerd check`.

    `anchor` is where docs/reference/checks.md tells more, `hint` is what to do. With `retry`, a failure is tried again
    until the deadline of the whole run; `surface` shows its error meanwhile.
    """

    description: str
    anchor: str
    run: Run
    hint: str = ""
    severity: Severity = Severity.FATAL
    retry: bool = False
    surface: bool = False


@dataclass(frozen=True, slots=True)
class Category:
    name: str
    checks: list[Check]


class Outcome(Enum):
    """As `check -o json` writes it."""

    OK = "success"
    WARNING = "warning"
    FAILED = "error"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one check; `error` is empty when it passed."""

    category: str
    check: Check
    outcome: Outcome
    error: str = ""


@dataclass(slots=True)
class Report:
    """The results in order. Warnings are no failure."""

    results: list[Result] = field(default_factory=list)

    @property
    def success(self) -> bool:
        return all(result.outcome is not Outcome.FAILED for result in self.results)
