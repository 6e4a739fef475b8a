"""Numbers in cells, as Linkerd's CLI writes them."""

from __future__ import annotations

NONE = "-"


def percent(share: float) -> str:
    return f"{share * 100:.2f}%"


def per_second(count: float, seconds: float) -> str:
    return f"{count / seconds:.1f}rps"


def bytes_per_second(count: float, seconds: float) -> str:
    return f"{count / seconds:.1f}B/s"


def milliseconds(value: float) -> str:
    return f"{value:.0f}ms"


def precise_milliseconds(nanoseconds: int) -> str:
    """`0.412ms`, `3.27ms`, `12.3ms`, `1523.4ms`: three digits that mean something."""
    value = nanoseconds / 1e6
    digits = 3 if value < 1 else 2 if value < 10 else 1
    return f"{value:.{digits}f}ms"


def rounded_duration(nanoseconds: int) -> str:
    """As Go prints it, rounded to what matters: `412µs`, `12ms`, `3s`, `1m5s`."""
    if nanoseconds < 1_000_000:
        return f"{round(nanoseconds / 1000)}µs"
    if nanoseconds < 999_500_000:
        return f"{round(nanoseconds / 1e6)}ms"
    seconds = round(nanoseconds / 1e9)
    return f"{seconds}s" if seconds < 60 else f"{seconds // 60}m{seconds % 60}s"
