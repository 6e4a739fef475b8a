"""The latest value per key, computed once and shared by everybody who asked for it.

A key's value is computed when its first subscriber comes, and again whenever something it was computed from is
touched; it is forgotten with its last subscriber. Touches are gathered and computed after the events that are at hand,
so a burst of events costs one computation. A subscriber sees the value that is current when it looks, never a queue of
old ones: a slow one delays nobody and costs no memory. A value equal to the one before is not told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_AT_ONCE = 200
"""Keys computed in one go, before the event loop gets to serve others."""

Compute = Callable[[K], tuple[V, Iterable[Hashable]]]
"""The value of a key, and what it was computed from."""


class Subscription(Generic[V]):
    """One reader's view: `value` now, `changed()` when there is another than the one last read."""

    def __init__(self, topic: _Topic[V]) -> None:
        self._topic = topic
        self._seen = -1

    def read(self) -> V:
        """The current value, which then counts as seen."""
        self._seen = self._topic.serial
        return self._topic.value

    async def changed(self) -> None:
        while self._seen == self._topic.serial:
            await self._topic.next.wait()


class _Topic(Generic[V]):
    __slots__ = ("next", "serial", "sources", "subscribers", "value")

    def __init__(self, value: V, sources: frozenset[Hashable]) -> None:
        self.value = value
        self.sources = sources
        self.serial = 0
        self.subscribers = 0
        self.next = asyncio.Event()

    def publish(self, value: V) -> None:
        if value == self.value:
            return
        self.value = value
        self.serial += 1
        self.next.set()
        self.next = asyncio.Event()


class Snapshots(Generic[K, V]):
    """To be used from one event loop. `on_failure` hears of a key whose computation raised; it keeps its old value."""

    def __init__(self, compute: Compute[K, V], *, on_failure: Callable[[K, Exception], None]) -> None:
        self._compute = compute
        self._on_failure = on_failure
        self._topics: dict[K, _Topic[V]] = {}
        self._by_source: dict[Hashable, set[K]] = {}
        self._dirty: dict[K, None] = {}
        self._scheduled = False

    def __len__(self) -> int:
        return len(self._topics)

    @property
    def subscribers(self) -> int:
        return sum(topic.subscribers for topic in self._topics.values())

    @contextmanager
    def subscribe(self, key: K) -> Iterator[Subscription[V]]:
        """Raises whatever computing the value raises."""
        topic = self._topics.get(key)
        if topic is None:
            value, sources = self._compute(key)
            topic = self._topics[key] = _Topic(value, frozenset(sources))
            self._link(key, topic.sources)
        elif key in self._dirty:
            self._recompute(key)
        topic.subscribers += 1
        try:
            yield Subscription(topic)
        finally:
            topic.subscribers -= 1
            if not topic.subscribers:
                self._unlink(key, topic.sources)
                self._dirty.pop(key, None)
                del self._topics[key]

    def touch(self, sources: Iterable[Hashable]) -> None:
        """These have changed: whatever was computed from one of them will be computed again."""
        for source in sources:
            for key in self._by_source.get(source, ()):
                self._dirty[key] = None
        if self._dirty and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        for key in list(self._dirty)[:_AT_ONCE]:
            self._recompute(key)
        if self._dirty:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _recompute(self, key: K) -> None:
        self._dirty.pop(key, None)
        topic = self._topics[key]
        try:
            value, found = self._compute(key)
        except Exception as error:  # noqa: BLE001 - one key that cannot be computed must not stop the others
            self._on_failure(key, error)
            return
        sources = frozenset(found)
        if sources != topic.sources:
            self._unlink(key, topic.sources - sources)
            self._link(key, sources - topic.sources)
            topic.sources = sources
        topic.publish(value)

    def _link(self, key: K, sources: Iterable[Hashable]) -> None:
        for source in sources:
            self._by_source.setdefault(source, set()).add(key)

    def _unlink(self, key: K, sources: Iterable[Hashable]) -> None:
        for source in sources:
            keys = self._by_source.get(source)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._by_source[source]


class Memo(Generic[K, V]):
    """Values by key, each computed once and forgotten when something it was computed from is touched.

    No more than `limit` are kept, those used last: keys come from the network, and anybody may ask for names that do
    not exist. What was forgotten is only computed again.
    """

    def __init__(self, compute: Compute[K, V], *, limit: int = 10_000) -> None:
        self._compute = compute
        self._limit = limit
        self._values: dict[K, tuple[V, frozenset[Hashable]]] = {}
        self._by_source: dict[Hashable, set[K]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> tuple[V, frozenset[Hashable]]:
        """The value and its sources."""
        found = self._values.pop(key, None)
        if found is None:
            value, sources = self._compute(key)
            found = value, frozenset(sources)
            self._link(key, found[1])
        self._values[key] = found  # at the end: a dict keeps the order in which keys came
        if len(self._values) > self._limit:
            self._forget(next(iter(self._values)))
        return found

    def touch(self, sources: Iterable[Hashable]) -> None:
        for source in sources:
            for key in list(self._by_source.get(source, ())):
                self._forget(key)

    def _link(self, key: K, sources: Iterable[Hashable]) -> None:
        for source in sources:
            self._by_source.setdefault(source, set()).add(key)

    def _forget(self, key: K) -> None:
        _, sources = self._values.pop(key)
        for source in sources:
            keys = self._by_source[source]
            keys.discard(key)
            if not keys:
                del self._by_source[source]
