"""Durations as Go writes them (`24h0m0s`, `1.5s`, `100ms`), which is how Kubernetes and Linkerd spell them.

In Python they are seconds as a float.
"""

from __future__ import annotations

import re

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
_TERM = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_SIMPLE = re.compile(r"([0-9]+)(ms|s|m|h|d)?")
_SIMPLE_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LIMIT = 2**63 / 10**9  # seconds, where Go's own type ends


def parse_duration(text: str) -> float:
    """Go's `time.ParseDuration`, in seconds. Raises ValueError."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total = 0.0
    position = 0
    for term in _TERM.finditer(rest):
        if term.start() != position:
            break
        total += float(term[1]) * _NANOSECONDS[term[2]]
        position = term.end()
    if not rest or position != len(rest):
        raise ValueError(f"`{text}` is not a duration: numbers with units are wanted, as in `1h30m`, `10s` or `250ms`")
    return sign * _bounded(total / 10**9, text)


def parse_simple_duration(text: str) -> float:
    """One integer and one unit of ms, s, m, h, d (the annotations of the policy controller). Raises ValueError."""
    match = _SIMPLE.fullmatch(text.strip())
    if match is None or (match[2] is None and int(match[1]) != 0):
        raise ValueError(f"`{text}` is not a duration: an integer with one of the units ms, s, m, h, d is wanted")
    return _bounded(int(match[1]) * _SIMPLE_SECONDS[match[2] or "s"], text)


def format_duration(seconds: float) -> str:
    """As Go prints it: `24h0m0s`, `1.5s`, `100ms`, `0s`; to the microsecond."""
    microseconds = round(seconds * 1_000_000)
    if microseconds < 0:
        return "-" + format_duration(-seconds)
    if microseconds == 0:
        return "0s"
    if microseconds < 1000:
        return f"{microseconds}µs"
    if microseconds < 1_000_000:
        return f"{_number(microseconds, 1000)}ms"
    minutes, rest = divmod(microseconds, 60_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_number(rest, 1_000_000)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _bounded(seconds: float, text: str) -> float:
    if seconds >= _LIMIT:
        raise ValueError(f"`{text}` is too long for a duration (at most 292 years)")
    return seconds


def _number(amount: int, unit: int) -> str:
    whole, rest = divmod(amount, unit)
    if rest == 0:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")
