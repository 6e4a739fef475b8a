from __future__ import annotations

import pytest
from linkerd.cluster.node.backoff import Backoff, format_seconds


def test_the_first_restart_is_immediate_then_the_delay_doubles_to_five_minutes() -> None:
    backoff = Backoff()
    assert [backoff.next(1.0) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_ten_good_minutes_are_forgiven() -> None:
    backoff = Backoff()
    for _ in range(4):
        backoff.next(1.0)
    assert backoff.next(600.0) == 0
    assert backoff.next(1.0) == 10


@pytest.mark.parametrize(("seconds", "text"), [(10, "10s"), (80, "1m20s"), (300, "5m0s")])
def test_delays_read_as_in_kubernetes(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
