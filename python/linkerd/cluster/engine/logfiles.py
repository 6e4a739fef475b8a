"""Bounded log files: a component's output, cut into the current file and one older.

The output comes through a pipe that this process reads, not straight into a file: a program that holds a file open
cannot be rotated from outside without losing lines.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

LIMIT = 4 * 2**20
"""Bytes of one file; there are at most two of a component."""

_CHUNK = 64 * 1024
_FOLLOW_SECONDS = 0.2


class Source:
    """A pipe that is being copied into a log file."""

    def __init__(self, target: LogFile, pipe: int) -> None:
        self._target = target
        self._pipe = pipe
        os.set_blocking(pipe, False)
        asyncio.get_running_loop().add_reader(pipe, self._copy)

    def finish(self) -> None:
        """Copy what is in the pipe right now, then close it. For when its program has ended: without this, children
        that it left behind would keep the pipe open."""
        while self._copy():
            pass
        self._close()

    def _copy(self) -> bool:
        if self._pipe < 0:
            return False
        try:
            data = os.read(self._pipe, _CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self._close()
            return False
        self._target.write(data)
        return True

    def _close(self) -> None:
        if self._pipe >= 0:
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1


class LogFile:
    """`<name>.log`, followed by `<name>.log.1` with what came before."""

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path = path
        self._limit = limit
        self._fd = -1
        self._size = 0
        self._failed = False
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o644)
        self._size = os.fstat(self._fd).st_size

    def follow(self, pipe: int) -> Source:
        """Copy what comes out of the pipe, which now belongs to the source, until it ends."""
        return Source(self, pipe)

    def note(self, text: str) -> None:
        """A line of the engine's own among the component's."""
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.write(f"-- {time} {text}\n".encode())

    def write(self, data: bytes) -> None:
        """Append. Output that the disk has no room for is lost: the component itself must go on."""
        if self._size + len(data) > self._limit:
            self._rotate()
        try:
            self._size += os.write(self._fd, data)
        except OSError as error:
            if not self._failed:
                os.write(2, f"{self.path}: {error.strerror}: log lines are lost\n".encode())
            self._failed = True

    def _rotate(self) -> None:
        os.close(self._fd)
        self.path.rename(older(self.path))
        self._open()


def older(path: Path) -> Path:
    """Where the file's older part is."""
    return path.with_name(path.name + ".1")


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log, the older part included; none when there is no log."""
    found: list[str] = []
    for part in (path, older(path)):
        if len(found) < lines and part.exists():
            missing = lines - len(found)
            found = part.read_text(errors="replace").splitlines()[-missing:] + found
    return found


def without_stacks(lines: Iterable[str]) -> list[str]:
    """The lines without the stacks that a panicking Go program prints: a screen full, after what it has to say."""
    kept: list[str] = []
    in_stack = False
    for line in lines:
        if line.startswith("goroutine "):
            in_stack = True
        elif line.startswith(_NOT_IN_STACKS):
            in_stack = False
        if line and not in_stack:
            kept.append(line)
    return kept


_NOT_IN_STACKS = ("{", "-- ", "panic:", "I", "W", "E", "F")
"""How lines begin that end a stack: etcd's JSON, notes of ours, klog's letters. Frames begin with a package or tab."""


def follow(path: Path, offset: int, sleep: Callable[[float], None]) -> Iterator[str]:
    """What is written after the offset, for ever, over rotations. `sleep` waits between two looks."""
    file = path.open("rb")
    try:
        file.seek(offset)
        while True:
            rotated = not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino
            while data := file.read(_CHUNK):
                yield data.decode(errors="replace")
            if rotated and path.exists():
                file.close()
                file = path.open("rb")
            else:
                sleep(_FOLLOW_SECONDS)
    finally:
        file.close()
