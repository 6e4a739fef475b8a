from __future__ import annotations

import os

import pytest
from linkerd.cluster.engine.reporting import Report, StartFailed, read_report


def pipe() -> tuple[int, Report]:
    reading, writing = os.pipe()
    return reading, Report(writing)


def test_the_steps_until_it_is_ready() -> None:
    reading, report = pipe()
    report.step("starting etcd")
    report.ready()
    with os.fdopen(reading) as stream:
        assert list(read_report(stream)) == ["starting etcd"]


def test_a_failure_names_the_component() -> None:
    reading, report = pipe()
    report.failed(StartFailed("etcd", "exited with code 1"))
    with os.fdopen(reading) as stream, pytest.raises(StartFailed, match="etcd exited with code 1"):
        list(read_report(stream))


def test_a_report_without_a_last_word_is_a_failure() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading) as stream, pytest.raises(StartFailed, match="ended before"):
        list(read_report(stream))


def test_a_reader_that_went_away_is_no_reason_to_stop() -> None:
    reading, report = pipe()
    os.close(reading)
    report.step("starting etcd")
    report.step("starting the API server")
    report.ready()
