"""Go's durations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.kit.durations import format_duration, parse_duration, parse_simple_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("10s", 10),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("-2s", -2),
        ("24h0m0s", 86400),
        (".5m", 30),
    ],
)
def test_go_durations_are_read(text: str, seconds: float):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "1x", "1s ", "1h-2m", "9999999h", "1,5s", "٣s"])
def test_what_go_would_not_read_is_refused(text: str):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(-(10**12), 10**12))
def test_what_is_written_reads_back_the_same(microseconds: int):
    assert parse_duration(format_duration(microseconds / 1e6)) == pytest.approx(microseconds / 1e6, abs=1e-6)


@pytest.mark.parametrize(
    ("seconds", "text"), [(86400, "24h0m0s"), (90, "1m30s"), (1.5, "1.5s"), (0.1, "100ms"), (0, "0s")]
)
def test_written_as_go_writes(seconds: float, text: str):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("text", "seconds"), [("3s", 3), ("100ms", 0.1), ("2d", 172800), ("0", 0)])
def test_simple_durations_are_one_integer_and_one_unit(text: str, seconds: float):
    assert parse_simple_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "3", "1.5s", "-1s", "1h30m"])
def test_other_durations_are_not_simple(text: str):
    with pytest.raises(ValueError, match="duration"):
        parse_simple_duration(text)
