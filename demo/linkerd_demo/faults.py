"""Faults on request. They are data in a ConfigMap, mounted as a file, so that they hold across restarts and for all
replicas, and are switched while the services run."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CONFIG_MAP = "demo-faults"
DIRECTORY = Path(os.environ.get("DEMO_FAULTS", "/etc/demo-faults"))
RATE_KEY = "rate"


class FaultError(ValueError):
    """The description of a fault cannot be meant; the message says what is wrong in it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong on the paths that `path` (a regular expression, from the start) matches.

    `error_rate` 0–1 of the requests get `status`; `latency_ms` is added; `crash` ends the process at the next request
    or readiness probe; `not_ready` fails the readiness probe.
    """

    path: str = ""
    error_rate: float = 0.0
    status: int = 503
    latency_ms: float = 0.0
    crash: bool = False
    not_ready: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.error_rate <= 1:
            raise FaultError(f"error rate {self.error_rate}: a share from 0 to 1 is expected")
        if not 400 <= self.status <= 599:
            raise FaultError(f"status {self.status}: one from 400 to 599 is expected")
        if self.latency_ms < 0:
            raise FaultError(f"latency {self.latency_ms} ms: it cannot be negative")
        try:
            re.compile(self.path)
        except re.error as error:
            raise FaultError(f"path `{self.path}` is not a regular expression: {error}") from error

    def applies(self, path: str) -> bool:
        return re.match(self.path, path) is not None

    def fails(self) -> bool:
        return random.random() < self.error_rate

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def fault_from_json(text: str) -> Fault:
    """Raises FaultError."""
    try:
        fields: Mapping[str, Any] = json.loads(text)
        return Fault(**fields)
    except (TypeError, ValueError) as error:
        raise FaultError(str(error)) from error


def parse_faults(text: str) -> tuple[Fault, ...]:
    """One fault a line, as JSON. Raises FaultError."""
    return tuple(fault_from_json(line) for line in text.splitlines() if line.strip())


class FaultFile:
    """The faults of one service, read again when the file has changed."""

    def __init__(self, name: str, directory: Path = DIRECTORY) -> None:
        self._path = directory / name
        self._seen: tuple[int, int] | None = None
        self._faults: tuple[Fault, ...] = ()

    def current(self) -> tuple[Fault, ...]:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._seen, self._faults = None, ()
            return ()
        if self._seen != (stat.st_mtime_ns, stat.st_ino):
            self._seen = (stat.st_mtime_ns, stat.st_ino)
            self._faults = parse_faults(self._path.read_text())
        return self._faults

    def matching(self, path: str) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.current() if fault.applies(path))


def read_rate(default: float, name: str = "", directory: Path = DIRECTORY) -> float:
    """Requests per second: what `linkerd-demo rate` set for this caller or for all, else the default."""
    for key in (f"{RATE_KEY}.{name}", RATE_KEY):
        try:
            return float((directory / key).read_text())
        except FileNotFoundError:
            continue
    return default
