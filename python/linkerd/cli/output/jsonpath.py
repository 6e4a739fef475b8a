"""Kubernetes' jsonpath, as far as it picks values: `{.a.b}`, `.a.b` or `a.b`, with `[0]`, `[*]`, `['a.b']`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_STEP = re.compile(
    r"""\.?\[(?:(?P<index>-?\d+)|(?P<all>\*)|'(?P<quoted>[^']*)'|"(?P<double>[^"]*)")\]"""
    r"""|\.?(?P<name>[^.\[\]{}'"\s]+)"""
)


class JsonPathError(ValueError):
    """The expression cannot be read; the text says where."""


@dataclass(frozen=True, slots=True)
class JsonPath:
    """Steps into a value: names, indexes, and None for all of them."""

    steps: tuple[str | int | None, ...]

    def find(self, value: Any) -> list[Any]:
        """What is there, which may be nothing."""
        found = [value]
        for step in self.steps:
            found = [inner for outer in found for inner in _into(outer, step)]
        return found


def _into(value: Any, step: str | int | None) -> Iterator[Any]:
    if step is None:
        yield from value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return
    fits = isinstance(value, dict if isinstance(step, str) else list)
    if fits:
        try:
            yield value[step]
        except (KeyError, IndexError):
            return


def parse_jsonpath(text: str) -> JsonPath:
    """Raises JsonPathError."""
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1].strip()
    inner = inner.removeprefix("$").removeprefix("@")
    steps: list[str | int | None] = []
    at = 1 if inner == "." else 0
    while at < len(inner):
        match = _STEP.match(inner, at)
        if match is None:
            raise JsonPathError(f"`{text}` is no path to a value: `{inner[at:]}` cannot be read")
        steps.append(_step(match))
        at = match.end()
    return JsonPath(tuple(steps))


def _step(match: re.Match[str]) -> str | int | None:
    if match["index"] is not None:
        return int(match["index"])
    if match["all"] is not None or match["name"] == "*":
        return None
    return next(word for word in (match["quoted"], match["double"], match["name"]) if word is not None)
