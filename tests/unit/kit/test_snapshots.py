"""Shared snapshots: computed once, told once, and never a queue."""

from __future__ import annotations

import asyncio

from linkerd.kit.snapshots import Memo, Snapshots


class Source:
    """A number by name, and how often a value was computed from it."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {"a": 1, "b": 2}
        self.computed = 0

    def compute(self, key: str) -> tuple[int, set[str]]:
        self.computed += 1
        return self.numbers[key], {key}


def snapshots(source: Source, failures: list | None = None) -> Snapshots[str, int]:
    def on_failure(key: str, error: Exception) -> None:
        assert failures is not None, error
        failures.append(key)

    return Snapshots(source.compute, on_failure=on_failure)


async def test_a_value_is_computed_once_for_all_who_ask():
    source = Source()
    shared = snapshots(source)
    with shared.subscribe("a") as one, shared.subscribe("a") as other:
        assert (one.read(), other.read(), source.computed) == (1, 1, 1)


async def test_a_change_wakes_those_it_concerns():
    source = Source()
    shared = snapshots(source)
    with shared.subscribe("a") as one, shared.subscribe("b") as other:
        one.read(), other.read()
        source.numbers["a"] = 5
        shared.touch(["a"])
        await asyncio.wait_for(one.changed(), 1)
        assert one.read() == 5
        assert source.computed == 3
        waiting = asyncio.ensure_future(other.changed())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()


async def test_a_burst_of_changes_is_computed_once_and_only_the_last_is_seen():
    source = Source()
    shared = snapshots(source)
    with shared.subscribe("a") as one:
        one.read()
        for number in range(10):
            source.numbers["a"] = number
            shared.touch(["a"])
        await one.changed()
        assert (one.read(), source.computed) == (9, 2)


async def test_a_value_that_stays_the_same_is_not_told():
    source = Source()
    shared = snapshots(source)
    with shared.subscribe("a") as one:
        one.read()
        shared.touch(["a"])
        waiting = asyncio.ensure_future(one.changed())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert source.computed == 2
        assert not waiting.done()
        waiting.cancel()


async def test_what_nobody_reads_any_more_is_forgotten():
    source = Source()
    shared = snapshots(source)
    with shared.subscribe("a"):
        assert (len(shared), shared.subscribers) == (1, 1)
    assert len(shared) == 0
    shared.touch(["a"])
    assert source.computed == 1


async def test_one_that_comes_between_change_and_computation_sees_the_change():
    source = Source()
    shared = snapshots(source)
    with shared.subscribe("a"):
        source.numbers["a"] = 7
        shared.touch(["a"])
        with shared.subscribe("a") as late:
            assert late.read() == 7


async def test_a_failing_computation_keeps_the_old_value_and_stops_no_other():
    source, failures = Source(), []
    shared = snapshots(source, failures)
    with shared.subscribe("a") as broken, shared.subscribe("b") as fine:
        broken.read(), fine.read()
        del source.numbers["a"]
        source.numbers["b"] = 3
        shared.touch(["a", "b"])
        await fine.changed()
        assert (broken.read(), fine.read(), failures) == (1, 3, ["a"])


def test_a_memo_computes_again_only_what_was_touched():
    source = Source()
    memo = Memo(source.compute)
    memo.get("a"), memo.get("b"), memo.get("a")
    assert source.computed == 2
    memo.touch(["a"])
    memo.get("a"), memo.get("b")
    assert source.computed == 3


def test_a_memo_keeps_no_more_than_its_limit_and_those_used_last():
    source = Source()
    source.numbers = dict.fromkeys(map(str, range(100)), 0)
    memo = Memo(source.compute, limit=10)
    memo.get("0")
    for number in range(1, 100):
        memo.get(str(number)), memo.get("0")
    assert (len(memo), len(memo._by_source), source.computed) == (10, 10, 100)


def test_a_memo_that_forgot_a_value_still_hears_of_its_source_later():
    source = Source()
    memo = Memo(source.compute, limit=1)
    memo.get("a"), memo.get("b"), memo.get("a")
    source.numbers["a"] = 9
    memo.touch(["a"])
    assert memo.get("a") == (9, {"a"})
