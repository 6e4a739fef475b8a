"""How `check` shows its results: the guide's lines (table), only what is wrong (short), or one JSON document."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from linkerd.checks.model import Outcome, Report, Result

COLUMN = 60
"""Where the mark stands, if the description leaves room."""

DOCUMENTATION = "docs/reference/checks.md"

_MARKS = {Outcome.OK: "[ok]", Outcome.WARNING: "[warning]", Outcome.FAILED: "[FAIL]"}
_COLOURS = {Outcome.OK: "32", Outcome.WARNING: "33", Outcome.FAILED: "31"}
_MIN_DOTS = 3
_MIN_UNDERLINE = 21
_INDENT = "    "


def marked(outcome: Outcome) -> str:
    """The mark, coloured on a terminal only."""
    mark = _MARKS[outcome]
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        return f"\x1b[{_COLOURS[outcome]};1m{mark}\x1b[0m"
    return mark


def heading(category: str) -> str:
    return f"{category}\n{'-' * max(_MIN_UNDERLINE, len(category))}\n"


def line(result: Result) -> str:
    """`description.......[ok]`, and below it what is wrong and what to do."""
    description = result.check.description
    dots = "." * max(_MIN_DOTS, COLUMN - len(description))
    text = f"{description}{dots}{marked(result.outcome)}\n"
    if result.outcome is Outcome.OK:
        return text
    hint = [f"hint: {result.check.hint}"] if result.check.hint else []
    details = [*result.error.splitlines(), *hint, f"see {reference(result)}"]
    return text + "".join(f"{_INDENT}{detail}\n" for detail in details)


def reference(result: Result) -> str:
    """Where the documentation tells more."""
    return f"{DOCUMENTATION}#{result.check.anchor.lower()}"


def final(success: bool) -> str:
    return f"Status check results are {marked(Outcome.OK if success else Outcome.FAILED)}\n"


class Printer:
    """Prints results as they come. With `short`, only those that are not ok."""

    def __init__(self, *, short: bool = False) -> None:
        self._short = short
        self._category = ""

    def add(self, result: Result) -> None:
        if self._short and result.outcome is Outcome.OK:
            return
        if result.category != self._category:
            sys.stdout.write(("\n" if self._category else "") + heading(result.category))
            self._category = result.category
        sys.stdout.write(line(result))
        sys.stdout.flush()

    def end(self, success: bool) -> None:
        sys.stdout.write(("\n" if self._category else "") + final(success))
        sys.stdout.flush()


def as_json(report: Report) -> str:
    """One document; a category's checks in the order in which they ran."""
    categories: dict[str, list[dict[str, Any]]] = {}
    for result in report.results:
        check: dict[str, Any] = {"description": result.check.description}
        if result.outcome is not Outcome.OK:
            check |= {"hint": result.check.hint or reference(result), "error": result.error}
        categories.setdefault(result.category, []).append(check | {"result": result.outcome.value})
    document = {
        "success": report.success,
        "categories": [{"categoryName": name, "checks": checks} for name, checks in categories.items()],
    }
    return json.dumps(document, indent=2) + "\n"
