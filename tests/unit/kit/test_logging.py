"""Lines of the log."""

from __future__ import annotations

from linkerd.kit.logging import Sparing


def test_of_many_lines_in_a_second_some_pass_and_the_rest_is_counted():
    now = 5.0
    sparing = Sparing(2, lambda: now)
    assert [sparing.take() for _ in range(5)] == [{}, {}, None, None, None]
    now = 6.0
    assert [sparing.take() for _ in range(2)] == [{"more_like_this": 3}, {}]
