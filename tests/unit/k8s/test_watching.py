"""`follow` against a scripted client: each entry is the answer to one list or one watch."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linkerd.k8s import watching
from linkerd.k8s.errors import ApiError, Gone, NotFound, TooManyRequests
from linkerd.k8s.resources import PODS
from linkerd.k8s.watching import Reflector, follow


def pod(name: str, version: int = 1) -> dict:
    return {"metadata": {"namespace": "ns", "name": name, "resourceVersion": str(version)}}


class ScriptedClient:
    """Answers of the API server in order; after the last one, nothing more comes."""

    def __init__(self, *script) -> None:
        self._script = list(script)
        self.watched_from: list[str] = []
        self.asked: list[str] = []

    async def pages(self, resource, namespace=None, **_):
        self.asked.append(resource.version)
        answer = await self._next()
        yield answer, "10"

    async def watch(self, resource, namespace=None, *, resource_version, **_):
        self.watched_from.append(resource_version)
        for event in await self._next():
            if isinstance(event, Exception):
                raise event
            yield {"type": event[0], "object": event[1]}

    async def _next(self):
        if not self._script:
            await asyncio.Event().wait()
        answer = self._script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """None in real time; what they would have been."""
    asked: list[float] = []
    sleep = asyncio.sleep

    async def soon(seconds: float) -> None:
        asked.append(seconds)
        await sleep(0)

    monkeypatch.setattr(watching.asyncio, "sleep", soon)
    return asked


async def changes(client, count: int, **options) -> list[tuple[str, str]]:
    seen: list[tuple[str, str]] = []
    async with asyncio.timeout(5):
        async for change in follow(client, PODS, **options):
            seen.append((change.type, change.object["metadata"]["name"] if change.object else ""))
            if len(seen) == count:
                break
    return seen


async def test_list_then_changes():
    client = ScriptedClient([pod("a")], [("ADDED", pod("b", 11)), ("DELETED", pod("a", 12))])
    assert await changes(client, 4) == [("applied", "a"), ("synced", ""), ("applied", "b"), ("deleted", "a")]


async def test_watch_that_ends_is_resumed_from_the_last_version():
    client = ScriptedClient([], [("ADDED", pod("a", 11))], [("BOOKMARK", pod("", 15))], [("MODIFIED", pod("a", 16))])
    await changes(client, 3)
    assert client.watched_from == ["10", "11", "15"]


async def test_version_too_old_lists_again_and_tells_only_the_difference():
    client = ScriptedClient([pod("a"), pod("b")], Gone(410, "Expired", ""), [pod("b"), pod("c")], [])
    assert await changes(client, 5) == [
        ("applied", "a"), ("applied", "b"), ("synced", ""), ("deleted", "a"), ("applied", "c"),
    ]  # fmt: skip


async def test_failures_are_survived():
    client = ScriptedClient(ApiError(500, "", "down"), OSError("no route"), [pod("a")], [])
    assert await changes(client, 2) == [("applied", "a"), ("synced", "")]


@pytest.mark.parametrize(
    "fault", [TooManyRequests(429, "", "busy"), ApiError(503, "", "starting"), OSError("no route"), TimeoutError()]
)
async def test_a_watch_that_is_interrupted_is_resumed_without_listing_again(fault):
    client = ScriptedClient([pod("a")], [("ADDED", pod("b", 11)), fault], [("ADDED", pod("c", 12))])
    assert await changes(client, 4) == [("applied", "a"), ("synced", ""), ("applied", "b"), ("applied", "c")]
    assert client.watched_from == ["10", "11"]


async def test_an_overloaded_server_is_left_alone_as_long_as_it_asks_for(pauses):
    busy = TooManyRequests(429, "", "busy", {"retryAfterSeconds": 20})
    await changes(ScriptedClient([pod("a")], busy, [("ADDED", pod("b", 11))]), 3)
    assert max(pauses) == 20


async def test_attempts_become_rarer_while_the_server_is_away(pauses):
    await changes(ScriptedClient([pod("a")], *[OSError("refused")] * 8, [("ADDED", pod("b", 11))]), 3)
    assert pauses[0] < 0.3
    assert all(8 <= pause <= 12 for pause in pauses[5:8])


async def test_a_watch_that_ends_at_once_is_not_asked_for_again_at_once(pauses):
    await changes(ScriptedClient([pod("a")], [], [], [("ADDED", pod("b", 11))]), 3)
    assert all(pause > 0.1 for pause in pauses)


async def test_a_server_whose_version_went_back_is_listed_again():
    """Restored from a backup, in which `b` was not made yet."""
    restored = [("MODIFIED", pod("a", 5))]
    client = ScriptedClient([pod("a"), pod("b")], restored, [pod("a", 5)], [("ADDED", pod("c", 11))])
    assert await changes(client, 6) == [
        ("applied", "a"), ("applied", "b"), ("synced", ""), ("deleted", "b"), ("applied", "a"), ("applied", "c"),
    ]  # fmt: skip


async def test_a_server_that_stops_sending_bookmarks_is_listed_again():
    silent = [("BOOKMARK", pod("", 12)), TimeoutError()]
    client = ScriptedClient([pod("a"), pod("b")], silent, [pod("a")], [("ADDED", pod("c", 11))])
    assert (await changes(client, 5))[3:] == [("deleted", "b"), ("applied", "c")]


async def test_what_is_known_stays_when_the_server_says_once_that_it_has_no_such_kind():
    client = ScriptedClient([pod("a")], NotFound(404, "", ""), [("ADDED", pod("b", 11))])
    assert await changes(client, 3, optional=True) == [("applied", "a"), ("synced", ""), ("applied", "b")]


async def test_a_kind_that_is_removed_takes_its_objects_with_it():
    client = ScriptedClient([pod("a")], *[NotFound(404, "", "")] * 2, [pod("b")], [])
    assert await changes(client, 4, optional=True) == [
        ("applied", "a"), ("synced", ""), ("deleted", "a"), ("applied", "b"),
    ]  # fmt: skip


async def test_the_version_that_is_served_is_found_also_when_it_comes_later():
    absent = NotFound(404, "", "")
    client = ScriptedClient(absent, absent, absent, [pod("a")], [])
    seen = await changes(client, 2, optional=True, versions=["v1beta1"])
    assert seen == [("synced", ""), ("applied", "a")]
    assert client.asked == ["v1", "v1beta1", "v1", "v1beta1"]


class Cluster:
    """A server with a history, that fails in every way that is asked for."""

    def __init__(self) -> None:
        self.version = 100
        self.objects: dict[str, int] = {}
        self.events: list[tuple[int, str, str]] = []
        self.oldest = 100
        self.faults: list[Exception] = []
        self.idle, self._changed = asyncio.Event(), asyncio.Event()
        self._backup = dict(self.objects), self.version

    def do(self, step: tuple[str, str]) -> None:
        kind, name = step
        if kind == "put":
            self._record("MODIFIED" if name in self.objects else "ADDED", name)
            self.objects[name] = self.version
        elif kind == "delete" and name in self.objects:
            self._record("DELETED", name)
            del self.objects[name]
        elif kind == "compact":
            self.oldest = self.version
        elif kind == "back up":
            self._backup = dict(self.objects), self.version
        elif kind == "restore":
            objects, self.version = dict(self._backup[0]), self._backup[1]
            self.objects = objects
            self.events = [event for event in self.events if event[0] <= self.version]
            self.oldest = min(self.oldest, self.version)
            self.faults.append(TimeoutError())
        elif kind in FAULTS:
            self.faults.append(FAULTS[kind])
        self.idle.clear()
        self._changed.set()

    def _record(self, kind: str, name: str) -> None:
        self.version += 1
        self.events.append((self.version, kind, name))

    async def pages(self, resource, namespace=None, **_):
        self._fail()
        yield [pod(name, version) for name, version in self.objects.items()], str(self.version)

    async def watch(self, resource, namespace=None, *, resource_version, **_):
        self._fail()
        if int(resource_version) < self.oldest:
            raise Gone(410, "Expired", "")
        yield {"type": "BOOKMARK", "object": pod("", int(resource_version))}
        told = int(resource_version)
        while True:
            for version, kind, name in [event for event in self.events if event[0] > told]:
                told = version
                yield {"type": kind, "object": pod(name, version)}
                self._fail()
            self._fail()
            if self.version < told:
                raise TimeoutError  # nothing is told until it has counted past that
            self._changed.clear()
            self.idle.set()
            await self._changed.wait()

    def _fail(self) -> None:
        if self.faults:
            raise self.faults.pop(0)


FAULTS = {
    "gone": Gone(410, "Expired", ""),
    "busy": TooManyRequests(429, "", ""),
    "away": OSError("refused"),
    "broken": ApiError(500, "", ""),
    "silent": TimeoutError(),
    "starting": NotFound(404, "", ""),
}
STEPS = st.tuples(
    st.sampled_from(["put", "put", "put", "delete", "compact", "back up", "restore", *FAULTS]),
    st.sampled_from("abcd"),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(STEPS, max_size=6), max_size=6))
def test_whatever_fails_a_follower_ends_up_with_what_is_there(history):
    """And hears of no object twice, nor of the end of one that it was not told of."""
    cluster = Cluster()
    known: dict[str, int] = {}

    def note(change: watching.Change) -> None:
        if change.type == "synced":
            return
        name, version = change.object["metadata"]["name"], int(change.object["metadata"]["resourceVersion"])
        if change.type == "deleted":
            del known[name]
            return
        assert known.get(name) != version
        known[name] = version

    async def follow_through() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            task = group.create_task(consume())
            for steps in history:
                for step in steps:
                    cluster.do(step)
                await cluster.idle.wait()
            await cluster.idle.wait()
            task.cancel()

    async def consume() -> None:
        async for change in follow(cluster, PODS, optional=True):
            note(change)

    asyncio.run(follow_through())
    assert known == cluster.objects


async def test_kind_that_the_server_lacks_counts_as_empty_and_is_looked_for_again():
    client = ScriptedClient(NotFound(404, "NotFound", ""), [pod("a")], [])
    assert await changes(client, 2, optional=True) == [("synced", ""), ("applied", "a")]


async def test_object_that_cannot_be_used_counts_as_not_being_there():
    def strip(obj):
        if obj["metadata"]["name"] == "bad":
            raise ValueError("bad")
        return obj

    client = ScriptedClient([pod("bad"), pod("a")], [("MODIFIED", pod("bad", 11)), ("ADDED", pod("b", 12))])
    assert await changes(client, 3, strip=strip) == [("applied", "a"), ("synced", ""), ("applied", "b")]


async def test_reflector_keeps_what_is_there():
    client = ScriptedClient([pod("a")], [("ADDED", pod("b", 11)), ("DELETED", pod("a", 12))])
    last = asyncio.Event()
    reflector = Reflector(client, PODS, on_change=lambda c: last.set() if c.type == "deleted" else None)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(reflector.run())
        await last.wait()
        task.cancel()
    assert list(reflector.objects) == [("ns", "b")]
    assert reflector.synced.is_set()
