from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from linkerd.cluster.engine.logfiles import LogFile, follow, older, tail, without_stacks


def test_the_older_part_is_kept_and_the_whole_is_bounded(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log", limit=100)
    for number in range(50):
        log.write(f"line {number:2}\n".encode())
    assert log.path.stat().st_size + older(log.path).stat().st_size <= 200
    assert tail(log.path, 10) == [f"line {number:2}" for number in range(40, 50)]


def test_the_tail_of_nothing_is_empty(tmp_path: Path) -> None:
    assert tail(tmp_path / "absent.log", 5) == []


def test_a_log_goes_on_where_the_last_run_ended(tmp_path: Path) -> None:
    LogFile(tmp_path / "x.log").write(b"before\n")
    LogFile(tmp_path / "x.log").write(b"after\n")
    assert tail(tmp_path / "x.log", 5) == ["before", "after"]


async def test_a_pipe_is_copied_until_it_ends(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    source = LogFile(tmp_path / "x.log").follow(reading)
    os.write(writing, b"one\n")
    await asyncio.sleep(0)
    os.write(writing, b"two\n")
    os.close(writing)
    source.finish()
    assert tail(tmp_path / "x.log", 5) == ["one", "two"]


async def test_a_left_over_writer_does_not_keep_the_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    source = LogFile(tmp_path / "x.log").follow(reading)
    os.write(writing, b"last words\n")
    source.finish()
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"lost")
    os.close(writing)
    assert tail(tmp_path / "x.log", 5) == ["last words"]


def test_following_survives_a_rotation(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "x.log", limit=20)
    log.write(b"old old old\n")
    steps: list[Callable[[], None]] = [lambda: log.write(b"new new new\n"), lambda: log.write(b"end\n")]
    seen = follow(log.path, log.path.stat().st_size, lambda _: steps.pop(0)())
    assert next(seen) + next(seen) == "new new new\nend\n"
    seen.close()


def test_stacks_are_left_out_of_last_words() -> None:
    lines = [
        '{"level":"panic","msg":"cannot open the database"}',
        "panic: cannot open the database",
        "",
        "goroutine 1 [running]:",
        "go.uber.org/zap/zapcore.CheckWriteAction.OnWrite(0x0)",
        "\tgo.uber.org/zap@v1.27.1/zapcore/entry.go:196 +0x54",
        "-- 2026-01-01T00:00:00Z etcd exited with code 2",
    ]
    assert without_stacks(lines) == [lines[0], lines[1], lines[6]]
