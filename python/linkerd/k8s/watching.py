"""List, then watch, then resume: what every component that follows a resource needs.

`follow` is the mechanism: an endless stream of changes to one resource. `Reflector` keeps the objects and calls back.
A watch that ends is resumed from the last version seen; one whose version is too old is listed again, and the
difference to what was known comes out as ordinary changes, so that a follower never sees a gap or a doublet.

What is known stays while the API server is away, slow or overloaded. It is dropped only when the server says twice,
some seconds apart, that it has no such kind: a server that has just started may say so once, and policies that vanish
for a moment let everybody in.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import aiohttp

from linkerd.k8s.client import Client, Object
from linkerd.k8s.errors import ApiError, Gone, NotFound, TooManyRequests
from linkerd.k8s.metrics import WatchMetrics
from linkerd.k8s.resources import Resource

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace (empty for cluster resources) and name."""

_BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_LOOK_AGAIN = 4
"""How many failures' pause (5 s) lies between two looks for a kind that is not served."""

_SHORT = 5.0
"""Seconds. A watch that ends sooner did not end because its time was up."""

_LONGEST_ASKED = 60.0
"""Seconds that a server may make us wait with `Retry-After`."""

_FAILURES = (ApiError, aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class Change:
    """`applied`: the object is new or different. `deleted`: it is gone (its last state is given).
    `synced`: all that existed at the start has been told (once, with no object)."""

    type: Literal["applied", "deleted", "synced"]
    object: Any


def key_of(obj: Object) -> Key:
    metadata = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def parse_version(obj: Object) -> str:
    return obj["metadata"].get("resourceVersion") or ""


async def follow(
    client: Client,
    resource: Resource,
    namespace: str | None = None,
    *,
    label_selector: str = "",
    field_selector: str = "",
    optional: bool = False,
    strip: Callable[[Object], Any] | None = None,
    versions: Sequence[str] = (),
) -> AsyncIterator[Change]:
    """Changes of a resource, for ever. API and network failures are logged and retried with back-off.

    With `optional`, a kind that the server does not have counts as an empty list, and is looked for again later, in
    each of `versions` that may be served instead of the resource's own.
    `strip` makes what is remembered and told out of each object (a smaller one, or a value of another type): of a
    thousand Pods most bytes are managed fields and status that no follower reads. An object of which it makes nothing
    (ValueError, KeyError, TypeError) is logged and counts as not being there.
    """
    known: dict[Key, _Known] = {}
    told = _guarded(resource, strip)
    synced = False
    at = _Position(tuple(replace(resource, version=v) for v in (resource.version, *versions)), optional)
    selectors = {"label_selector": label_selector, "field_selector": field_selector}
    while True:
        try:
            if not at.version:
                fresh, version = await _listed(client, at.resource, namespace, selectors, told)
                at.listed(version)
                for change in _difference(known, fresh):
                    yield change
                if not synced:
                    synced = True
                    yield Change("synced", {})
            at.begins()
            async for event in client.watch(at.resource, namespace, resource_version=at.version, **selectors):
                at.heard(event)
                change = _change(known, event, told)
                if change is not None:
                    yield change
            pause = at.ended()
        except Gone:
            pause = at.expired()
        except NotFound as error:
            pause = at.missed(error)
            if at.is_absent:
                for change in _difference(known, {}):
                    yield change
                if optional and not synced:
                    synced = True
                    yield Change("synced", {})
        except _FAILURES as error:
            pause = at.failed(error)
        await asyncio.sleep(pause)


class _Position:
    """Where a follower is: the version of the API it reads, how far, and how often it failed since it last succeeded.

    `ended`, `expired`, `missed` and `failed` give the seconds to wait before the next attempt.
    """

    def __init__(self, served: tuple[Resource, ...], optional: bool) -> None:
        self.version = ""
        self._served = served
        self._optional = optional
        self._failures = 0
        self._absences = 0
        self._began = 0.0
        self._bookmarked = False
        self._metrics = WatchMetrics(served[0].name)

    @property
    def resource(self) -> Resource:
        return self._served[0]

    @property
    def is_absent(self) -> bool:
        """Whether it is certain that the server does not have the kind in any version."""
        return self._absences >= len(self._served) * (2 if self.version else 1)

    def listed(self, version: str) -> None:
        self.version = version
        self._absences = 0
        self._metrics.listed()

    def begins(self) -> None:
        self._began = time.monotonic()

    def heard(self, event: Object) -> None:
        """Raises Gone when the server's state is older than what it told before (restored from a backup, say)."""
        self._failures = self._absences = 0
        self._bookmarked |= event["type"] == "BOOKMARK"
        self._metrics.heard()
        version = parse_version(event["object"])
        if version.isdigit() and self.version.isdigit() and int(version) < int(self.version):
            log.warning("%s went back from version %s to %s", self.resource.name, self.version, version)
            raise Gone(410, "Expired", "the resource version went back")
        self.version = version or self.version

    def ended(self) -> float:
        """As watches do after some minutes; one that ended at once is no success."""
        if time.monotonic() - self._began < _SHORT:
            return self._wait()
        self._failures = self._absences = 0
        self._metrics.heard()
        return 0.0

    def expired(self) -> float:
        self.version = ""
        self._failures += 1
        return _pause(self._failures) if self._failures > 1 else 0.0

    def missed(self, error: NotFound) -> float:
        if not self._optional:
            log.warning("cannot watch %s: %s", self.resource.name, error)
            self._metrics.failed()
        self._absences += 1
        if self.is_absent:
            self.version = ""
        self._served = (*self._served[1:], self._served[0])
        return _pause(_LOOK_AGAIN) if self._absences % len(self._served) == 0 else 0.0

    def failed(self, error: Exception) -> float:
        """What can be resumed is: listing again is what an overloaded server can do least."""
        if self._is_lost(error):
            self.version = ""
        log.warning("watch of %s interrupted, trying again: %s", self.resource.name, error or type(error).__name__)
        self._metrics.failed()
        asked = error.retry_after if isinstance(error, ApiError) else None
        return max(self._wait(), min(asked or 0.0, _LONGEST_ASKED))

    def _is_lost(self, error: Exception) -> bool:
        """Whether the version may mean nothing to the server: it says so, or it does not send the bookmarks any more
        that it sent before. After a restore it tells nothing until it has counted past what we saw."""
        if isinstance(error, ApiError):
            return error.status < 500 and not isinstance(error, TooManyRequests)
        return isinstance(error, TimeoutError) and self._bookmarked

    def _wait(self) -> float:
        pause = _pause(self._failures)
        self._failures += 1
        return pause


def _pause(failures: int) -> float:
    return _BACKOFF_SECONDS[min(failures, len(_BACKOFF_SECONDS) - 1)] * random.uniform(0.8, 1.2)


@dataclass(frozen=True, slots=True)
class _Known:
    version: str
    object: Any


_NOTHING = object()


def _guarded(resource: Resource, strip: Callable[[Object], Any] | None) -> Callable[[Object], Any]:
    def guarded(obj: Object) -> Any:
        try:
            return obj if strip is None else strip(obj)
        except (ValueError, KeyError, TypeError) as error:
            namespace, name = key_of(obj)
            log.error("cannot use %s %s/%s: %r", resource.kind, namespace, name, error)
            return _NOTHING

    return guarded


async def _listed(
    client: Client,
    resource: Resource,
    namespace: str | None,
    selectors: dict[str, str],
    told: Callable[[Object], Any],
) -> tuple[dict[Key, _Known], str]:
    """What is there now; page by page, so that no more than one page is in memory unstripped."""
    fresh: dict[Key, _Known] = {}
    version = ""
    async for items, version in client.pages(resource, namespace, **selectors):  # noqa: B007
        for item in items:
            fresh[key_of(item)] = _Known(parse_version(item), told(item))
    return {key: item for key, item in fresh.items() if item.object is not _NOTHING}, version


def _difference(known: dict[Key, _Known], fresh: dict[Key, _Known]) -> list[Change]:
    changes = [Change("deleted", known.pop(key).object) for key in list(known) if key not in fresh]
    for key, item in fresh.items():
        if key not in known or known[key].version != item.version:
            known[key] = item
            changes.append(Change("applied", item.object))
    return changes


def _change(known: dict[Key, _Known], event: Object, told: Callable[[Object], Any]) -> Change | None:
    kind, obj = event["type"], event["object"]
    if kind not in ("ADDED", "MODIFIED", "DELETED"):
        return None
    key, value = key_of(obj), told(obj)
    before = known.pop(key, None)
    if value is _NOTHING:
        return Change("deleted", before.object) if before is not None else None
    if kind == "DELETED":
        return Change("deleted", value)
    known[key] = _Known(parse_version(obj), value)
    return Change("applied", value)


class Reflector:
    """The current objects of a resource, kept by `run`, with a callback for each change.

    `objects` may be read at any time; `synced` is set once all that existed at the start is there.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str | None = None,
        *,
        on_change: Callable[[Change], None] | None = None,
        **options: Any,
    ) -> None:
        self.resource = resource
        self.objects: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        self._changes = lambda: follow(client, resource, namespace, **options)
        self._on_change = on_change

    async def run(self) -> None:
        """Follows for ever; cancel to end."""
        async for change in self._changes():
            self._store(change)
            if self._on_change is not None:
                self._on_change(change)

    def _store(self, change: Change) -> None:
        if change.type == "synced":
            self.synced.set()
        elif change.type == "applied":
            self.objects[key_of(change.object)] = change.object
        else:
            self.objects.pop(key_of(change.object), None)
