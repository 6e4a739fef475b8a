"""Container logs: pipes to bounded files in the CRI format, and files back to readers.

A line is `<RFC 3339 with nanoseconds> <stdout|stderr> <F|P> <text>`; P marks a part of a line that is longer than the
runtime keeps in one piece. A log that reaches its size is renamed to `….log.1` (the older one is dropped), so a
container keeps between one and two sizes of text.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

MAX_FILE = 10 * 1024 * 1024  # bytes
MAX_LINE = 16 * 1024  # bytes of a line before it is cut into parts, as containerd does
_READ_SIZE = 65536

Tee = Callable[[str, bytes], None]


def format_time(nanoseconds: int) -> bytes:
    """RFC 3339 in UTC with nine digits."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return b"%s.%09dZ" % (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode(), rest)


@dataclass(frozen=True, slots=True)
class Entry:
    """One parsed line of a log file; `text` has its newline unless it is a part."""

    time: bytes
    stream: bytes
    text: bytes


def parse_entry(line: bytes) -> Entry | None:
    """One line with its newline; None for what is not in the format (a damaged file)."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[2] not in (b"F", b"P"):
        return None
    text = parts[3].removesuffix(b"\n")
    return Entry(parts[0], parts[1], text if parts[2] == b"P" else text + b"\n")


def time_key(moment: datetime) -> bytes:
    """A moment in the form in which entries' times compare as bytes."""
    utc = moment.astimezone(UTC)
    return utc.strftime("%Y-%m-%dT%H:%M:%S").encode() + b".%06d000Z" % utc.microsecond


@dataclass
class LogFile:
    """The log of one run of a container, being written. `changed` callbacks hear of new text and of the end."""

    path: Path
    max_size: int = MAX_FILE
    listeners: set[Callable[[], None]] = field(default_factory=set)
    closed: bool = False
    _fd: int = -1
    _size: int = 0

    def open(self) -> None:
        """Create or go on with the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: bytes, lines: Iterable[tuple[bytes, bool]]) -> None:
        """Append (text, complete) lines that arrived now."""
        stamp = format_time(time.time_ns())
        data = b"".join(
            b"%s %s %s %s\n" % (stamp, stream, b"F" if complete else b"P", text) for text, complete in lines
        )
        if not data or self._fd < 0:
            return
        if self._size + len(data) > self.max_size and self._size:
            self._rotate()
        os.write(self._fd, data)
        self._size += len(data)
        self._notify()

    def close(self) -> None:
        """No more text will come: followers end after the last line."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.closed = True
        self._notify()

    def _rotate(self) -> None:
        os.close(self._fd)
        os.replace(self.path, rotated(self.path))
        self.open()

    def _notify(self) -> None:
        for listener in list(self.listeners):
            listener()


def rotated(path: Path) -> Path:
    """Where the older half of a log is."""
    return path.with_name(path.name + ".1")


class LineSplitter:
    """Bytes in, lines out: a line longer than MAX_LINE comes in parts."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """The lines (text, complete) that `data` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from _cut(line, complete=True)
        while len(self._rest) >= MAX_LINE:
            yield self._rest[:MAX_LINE], False
            self._rest = self._rest[MAX_LINE:]

    def finish(self) -> Iterator[tuple[bytes, bool]]:
        """What is left at the end of the stream, as a line."""
        if self._rest:
            yield self._rest, True
        self._rest = b""


def _cut(line: bytes, *, complete: bool) -> Iterator[tuple[bytes, bool]]:
    while len(line) > MAX_LINE:
        yield line[:MAX_LINE], False
        line = line[MAX_LINE:]
    yield line, complete


class StreamReader:
    """Carries one stream of a container (a pipe or a terminal) into its log, on the event loop."""

    def __init__(self, fd: int, stream: str, log: LogFile, tee: Tee) -> None:
        self._fd = fd
        self._stream = stream
        self._log = log
        self._tee = tee
        self._lines = LineSplitter()
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self._read)

    def _read(self) -> None:
        """One piece per wake-up: a container that floods its log must not hold up the others."""
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process has left the terminal
            data = b""
        if data:
            self._take(data)
        else:
            self.finish()

    def _take(self, data: bytes) -> None:
        self._log.write(self._stream.encode(), self._lines.feed(data))
        self._tee(self._stream, data)

    def finish(self) -> None:
        """Read what is there without waiting, and let go: the container has ended, or its stream has."""
        if self._fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        try:
            while data := os.read(self._fd, _READ_SIZE):
                self._take(data)
        except OSError:
            pass  # empty, while a left-over process still holds the other end; or a closed terminal
        self._log.write(self._stream.encode(), self._lines.finish())
        os.close(self._fd)
        self._fd = -1


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What a reader wants to see."""

    follow: bool = False
    tail: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    limit_bytes: int | None = None


async def read_log(path: Path, query: LogQuery, live: LogFile | None) -> AsyncIterator[bytes]:
    """The log's text in chunks; with `follow`, goes on as long as `live` is being written."""
    left = query.limit_bytes
    async for chunk in _chunks(path, query, live):
        if left is not None:
            chunk = chunk[:left]
            left -= len(chunk)
        if chunk:
            yield chunk
        if left == 0:
            return


async def _chunks(path: Path, query: LogQuery, live: LogFile | None) -> AsyncIterator[bytes]:
    changed = asyncio.Event()
    following = query.follow and live is not None
    if following and live is not None:
        live.listeners.add(changed.set)
    tail = _FileTail(path)
    try:
        for lines in _batches(_start_lines(path, tail, query.tail)):
            yield _render(lines, query)
        while following and live is not None:
            changed.clear()
            ended = live.closed
            if lines := tail.read_lines():
                yield _render(lines, query)
            elif ended:
                return
            else:
                await changed.wait()
    finally:
        tail.close()
        if live is not None:
            live.listeners.discard(changed.set)


def _start_lines(path: Path, tail: _FileTail, count: int | None) -> Iterator[bytes]:
    """Everything there is, or the last `count` lines; afterwards `tail` stands at the end."""
    older = rotated(path)
    if count is None:
        if older.exists():
            with older.open("rb") as file:
                yield from file
        while lines := tail.read_lines():
            yield from lines
        return
    yield from _last_lines([older, path], count)
    tail.skip_to_end()


def _last_lines(paths: list[Path], count: int) -> list[bytes]:
    kept: list[bytes] = []
    for path in reversed(paths):
        if path.exists() and len(kept) < count:
            kept = _tail_of(path, count - len(kept)) + kept
    return kept


def _tail_of(path: Path, count: int) -> list[bytes]:
    """The last lines of a file, read backwards in blocks."""
    if count <= 0:
        return []
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        data = b""
        while position > 0 and data.count(b"\n") <= count:
            step = min(_READ_SIZE, position)
            position -= step
            file.seek(position)
            data = file.read(step) + data
    lines = data.splitlines(keepends=True)
    return lines[-count:]


def last_output(path: Path, lines: int) -> bytes:
    """The text of a log's last lines."""
    return _render(_last_lines([path], lines), LogQuery())


def _batches(lines: Iterable[bytes], size: int = 256) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    for line in lines:
        batch.append(line)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _render(lines: Iterable[bytes], query: LogQuery) -> bytes:
    since = time_key(query.since) if query.since else b""
    out = []
    for line in lines:
        entry = parse_entry(line)
        if entry is not None and entry.time >= since:
            out.append(entry.time + b" " + entry.text if query.timestamps else entry.text)
    return b"".join(out)


class _FileTail:
    """Reads whole lines from a file that grows and is renamed and begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb") if path.exists() else None
        self._rest = b""

    def skip_to_end(self) -> None:
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def read_lines(self) -> list[bytes]:
        data = self._read()
        if not data:
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line + b"\n" for line in lines]

    def _read(self) -> bytes:
        if self._file is not None and (data := self._file.read(_READ_SIZE)):
            return data
        if not self._path.exists() or (self._file is not None and self._same_file()):
            return b""
        self.close()
        self._file = self._path.open("rb")
        return self._file.read(_READ_SIZE)

    def _same_file(self) -> bool:
        return self._file is not None and os.fstat(self._file.fileno()).st_ino == self._path.stat().st_ino

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
