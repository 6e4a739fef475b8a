"""List, then watch, then resume: what every component that follows a resource needs.

`follow` is the mechanism: an endless stream of changes to one resource. `Reflector` keeps the objects and calls back.
A watch that ends is resumed from the last version seen; one whose version is too old is listed again, and the
difference to what was known comes out as ordinary changes, so that a follower never sees a gap or a doublet.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from linkerd.k8s.client import Client, Object
from linkerd.k8s.errors import ApiError, Gone, NotFound
from linkerd.k8s.resources import Resource

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace (empty for cluster resources) and name."""

_BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


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
) -> AsyncIterator[Change]:
    """Changes of a resource, for ever. API and network failures are logged and retried with back-off.

    With `optional`, a kind that the server does not have counts as an empty list, and is looked for again later.
    `strip` makes what is remembered and told out of each object (a smaller one, or a value of another type): of a
    thousand Pods most bytes are managed fields and status that no follower reads. An object of which it makes nothing
    (ValueError, KeyError, TypeError) is logged and counts as not being there.
    """
    known: dict[Key, _Known] = {}
    told = _guarded(resource, strip)
    synced = False
    version = ""
    failures = 0
    selectors = {"label_selector": label_selector, "field_selector": field_selector}
    while True:
        try:
            if not version:
                fresh, version = await _listed(client, resource, namespace, selectors, told)
                for change in _difference(known, fresh):
                    yield change
                if not synced:
                    synced = True
                    yield Change("synced", {})
            async for event in client.watch(resource, namespace, resource_version=version, **selectors):
                failures = 0
                version = parse_version(event["object"]) or version
                change = _change(known, event, told)
                if change is not None:
                    yield change
        except Gone:
            version = ""
        except NotFound as error:
            if not optional:
                log.warning("cannot watch %s: %s", resource.plural, error)
            version = ""
            for change in _difference(known, {}):
                yield change
            if optional and not synced:
                synced = True
                yield Change("synced", {})
            await asyncio.sleep(_pause(5))
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            # The server may have lost what we resumed from (restored from a backup, say): start from a list.
            version = "" if isinstance(error, ApiError) else version
            log.warning("watch of %s interrupted, trying again: %s", resource.plural, error or type(error).__name__)
            await asyncio.sleep(_pause(failures))
            failures += 1


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
