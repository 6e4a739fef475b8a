from __future__ import annotations

from linkerd.cluster.node.events import BURST, REFILL_SECONDS, Bucket


def test_a_burst_passes_then_one_per_five_minutes() -> None:
    bucket = Bucket(updated=0.0)
    assert [bucket.take(0.0) for _ in range(BURST + 1)] == [True] * BURST + [False]
    assert bucket.take(REFILL_SECONDS)
    assert not bucket.take(REFILL_SECONDS)
