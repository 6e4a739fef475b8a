from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.cluster.node.logs import (
    MAX_LINE,
    Entry,
    LineSplitter,
    LogFile,
    LogQuery,
    StreamReader,
    format_time,
    last_output,
    parse_entry,
    read_log,
    rotated,
    time_key,
)


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    log = LogFile(tmp_path / "c" / "0.log")
    log.open()
    return log


def write(log: LogFile, *texts: str) -> None:
    log.write(b"stdout", [(text.encode(), True) for text in texts])


async def text_of(chunks: AsyncIterator[bytes]) -> str:
    return b"".join([chunk async for chunk in chunks]).decode()


def test_times_have_nine_digits() -> None:
    assert format_time(1_800_000_000_000_000_042) == b"2027-01-15T08:00:00.000000042Z"


def test_entries_are_parsed() -> None:
    line = b"2027-01-15T08:00:00.000000042Z stderr F some text\n"
    assert parse_entry(line) == Entry(b"2027-01-15T08:00:00.000000042Z", b"stderr", b"some text\n")
    assert parse_entry(b"t stdout P part\n") == Entry(b"t", b"stdout", b"part")


@given(st.binary(max_size=80))
def test_any_line_is_parsed_or_refused(line: bytes) -> None:
    parse_entry(line)


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_lines_come_out_whatever_the_pieces(pieces: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)] + list(splitter.finish())
    whole = b"".join(pieces)
    assert b"\n".join(text for text, _ in lines) == whole.removesuffix(b"\n")
    assert all(complete for _, complete in lines)


def test_a_long_line_comes_in_parts() -> None:
    lines = list(LineSplitter().feed(b"x" * (MAX_LINE + 1) + b"\n"))
    assert [(len(text), complete) for text, complete in lines] == [(MAX_LINE, False), (1, True)]


async def test_a_written_log_is_read_back(log: LogFile) -> None:
    write(log, "a", "b")
    log.write(b"stderr", [(b"long", False), (b"er", True)])
    assert await text_of(read_log(log.path, LogQuery(), log)) == "a\nb\nlonger\n"


async def test_the_tail_reaches_into_the_older_file(log: LogFile) -> None:
    log.max_size = 100
    write(log, "one")
    write(log, "two")
    write(log, "three")
    assert rotated(log.path).exists()
    assert await text_of(read_log(log.path, LogQuery(tail=2), log)) == "two\nthree\n"
    assert await text_of(read_log(log.path, LogQuery(tail=0), log)) == ""


async def test_a_log_keeps_at_most_two_files(log: LogFile) -> None:
    log.max_size = 1000
    for number in range(200):
        write(log, f"line {number}")
    assert {path.name for path in log.path.parent.iterdir()} == {"0.log", "0.log.1"}
    assert sum(path.stat().st_size for path in log.path.parent.iterdir()) <= 2000


async def test_since_and_timestamps_and_limit(log: LogFile) -> None:
    log.path.write_bytes(b"2027-01-15T08:00:00.000000000Z stdout F old\n2027-01-15T08:00:01.500000000Z stdout F new\n")
    since = datetime(2027, 1, 15, 8, 0, 1, tzinfo=UTC)
    assert await text_of(read_log(log.path, LogQuery(since=since), None)) == "new\n"
    stamped = await text_of(read_log(log.path, LogQuery(tail=1, timestamps=True), None))
    assert stamped == "2027-01-15T08:00:01.500000000Z new\n"
    assert await text_of(read_log(log.path, LogQuery(limit_bytes=5), None)) == "old\nn"
    assert time_key(since) == b"2027-01-15T08:00:01.000000000Z"


async def test_a_follower_sees_what_comes_and_ends_with_the_container(log: LogFile) -> None:
    write(log, "before")
    chunks = read_log(log.path, LogQuery(follow=True), log)
    assert await anext(chunks) == b"before\n"
    write(log, "after")
    assert await anext(chunks) == b"after\n"
    log.close()
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)
    assert not log.listeners


async def test_a_follower_survives_a_rotation(log: LogFile) -> None:
    log.max_size = 60
    write(log, "one")
    chunks = read_log(log.path, LogQuery(follow=True, tail=0), log)
    reading = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    write(log, "two")
    assert await reading == b"two\n"
    log.close()


async def test_a_pipe_is_carried_into_the_log(log: LogFile) -> None:
    reading, writing = os.pipe()
    heard: list[bytes] = []
    reader = StreamReader(reading, "stdout", log, lambda _, data: heard.append(data))
    os.write(writing, b"hello\nwor")
    os.write(writing, b"ld")
    os.close(writing)
    reader.finish()
    log.close()
    assert last_output(log.path, lines=1) == b"world\n"
    assert b"".join(heard) == b"hello\nworld"
