"""Log lines as Linkerd's control plane writes them: `time="…" level=info msg="…" key=value`, on stderr.

A record's own fields come through `extra=fields(pod="ns/name")`; what is in one line can then be grepped by key.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}

_NAMES = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "fatal",
}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/@^+:,*")


def fields(**values: Any) -> dict[str, dict[str, Any]]:
    """What to pass as `extra=`: the record's key=value pairs, in this order."""
    return {"fields": values}


def configure(level: str = "info") -> None:
    """Root logger to stderr at this level. Raises ValueError for an unknown one, naming those that are known."""
    if level.lower() not in LEVELS:
        raise ValueError(f"unknown log level `{level}`; one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=LEVELS[level.lower()], handlers=[handler], force=True)
    # One line per request served (the probes of the kubelet) or task scheduled helps nobody.
    for noisy in ("aiohttp.access", "asyncio", "grpc"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class Sparing:
    """Lets so many lines pass in a second, and counts the others: what the network can provoke must not fill a disk."""

    def __init__(self, per_second: int = 10, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._monotonic = monotonic
        self._began = 0.0
        self._passed = self._held = 0

    def take(self) -> dict[str, int] | None:
        """The fields that tell how many lines are missing before this one; None when this one is to be held too."""
        now = self._monotonic()
        if now - self._began >= 1:
            self._began, self._passed = now, 0
        if self._passed >= self._per_second:
            self._held += 1
            return None
        self._passed += 1
        held, self._held = self._held, 0
        return {"more_like_this": held} if held else {}


class KeyValueFormatter(logging.Formatter):
    """logfmt, one line per record: line breaks in values are escaped, so a message cannot forge another line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        parts = [f'time="{time}"', f"level={_NAMES.get(record.levelno, 'info')}", f"msg={_quoted(record.getMessage())}"]
        parts += [f"{key}={_value(value)}" for key, value in getattr(record, "fields", {}).items()]
        if record.exc_info:
            parts.append(f"error={_quoted(self.formatException(record.exc_info))}")
        return " ".join(parts)


def _value(value: Any) -> str:
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else _quoted(text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
