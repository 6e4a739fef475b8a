"""`follow` against a scripted client: each entry is the answer to one list or one watch."""

from __future__ import annotations

import asyncio

import pytest
from linkerd.k8s import watching
from linkerd.k8s.errors import ApiError, Gone, NotFound
from linkerd.k8s.resources import PODS
from linkerd.k8s.watching import Reflector, follow


def pod(name: str, version: int = 1) -> dict:
    return {"metadata": {"namespace": "ns", "name": name, "resourceVersion": str(version)}}


class ScriptedClient:
    """Answers of the API server in order; after the last one, nothing more comes."""

    def __init__(self, *script) -> None:
        self._script = list(script)
        self.watched_from: list[str] = []

    async def pages(self, resource, namespace=None, **_):
        answer = await self._next()
        yield answer, "10"

    async def watch(self, resource, namespace=None, *, resource_version, **_):
        self.watched_from.append(resource_version)
        for kind, obj in await self._next():
            yield {"type": kind, "object": obj}

    async def _next(self):
        if not self._script:
            await asyncio.Event().wait()
        answer = self._script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(watching, "_pause", lambda failures: 0)


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
