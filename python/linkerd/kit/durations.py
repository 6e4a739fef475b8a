"""Durations as Go writes them (`24h0m0s`, `1.5s`, `100ms`), which is how Kubernetes and Linkerd spell them."""

from __future__ import annotations

import re
from datetime import timedelta

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_TERM = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SIMPLE = re.compile(r"(\d+)(ms|s|m|h|d)?")
_SIMPLE_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_LIMIT = 2**63  # nanoseconds, where Go's own type ends


def parse_duration(text: str) -> timedelta:
    """Go's `time.ParseDuration`, to the microsecond. Raises ValueError."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return timedelta()
    total = 0.0
    position = 0
    for term in _TERM.finditer(rest):
        if term.start() != position:
            break
        total += float(term[1]) * _NANOSECONDS[term[2]]
        position = term.end()
    if not rest or position != len(rest):
        raise ValueError(f"`{text}` is not a duration: numbers with units are wanted, as in `1h30m`, `10s` or `250ms`")
    if total >= _LIMIT:
        raise ValueError(f"`{text}` is too long for a duration (at most 292 years)")
    return sign * timedelta(microseconds=total / 1000)


def parse_simple_duration(text: str) -> timedelta:
    """One integer and one unit of ms, s, m, h, d (the annotations of the policy controller). Raises ValueError."""
    match = _SIMPLE.fullmatch(text.strip())
    if match is None or (match[2] is None and int(match[1]) != 0):
        raise ValueError(f"`{text}` is not a duration: an integer with one of the units ms, s, m, h, d is wanted")
    try:
        return int(match[1]) * _SIMPLE_UNITS[match[2] or "s"]
    except OverflowError:
        raise ValueError(f"`{text}` is too long for a duration") from None


def format_duration(value: timedelta) -> str:
    """As Go prints it: `24h0m0s`, `1.5s`, `100ms`, `0s`."""
    microseconds = value // timedelta(microseconds=1)
    if microseconds < 0:
        return "-" + format_duration(-value)
    if microseconds == 0:
        return "0s"
    if microseconds < 1000:
        return f"{microseconds}µs"
    if microseconds < 1_000_000:
        return f"{_number(microseconds, 1000)}ms"
    minutes, rest = divmod(microseconds, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_number(rest, 1_000_000)}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _number(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0").rstrip(".")
