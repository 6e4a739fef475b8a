"""List, then watch, then resume: what every component that follows a resource needs.

`follow` is the mechanism: an endless stream of changes to one resource. `Reflector` keeps the objects and calls back.
A watch that ends is resumed from the last version seen; one whose version is too old is listed again, and the
difference to what was known comes out as ordinary changes, so that a follower never sees a gap or a doublet.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable
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
    object: Object


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
    strip: Callable[[Object], Object] | None = None,
) -> AsyncIterator[Change]:
    """Changes of a resource, for ever. API and network failures are logged and retried with back-off.

    With `optional`, a kind that the server does not have counts as an empty list, and is looked for again later.
    `strip` makes what is remembered and told out of each object (its `metadata` must keep namespace, name and
    resourceVersion): of a thousand Pods most bytes are managed fields and status that no follower reads.
    """
    known: dict[Key, Object] = {}
    synced = False
    version = ""
    failures = 0
    selectors = {"label_selector": label_selector, "field_selector": field_selector}
    while True:
        try:
            if not version:
                items, version = await client.list_with_version(resource, namespace, **selectors)
                if strip is not None:
                    items = [strip(item) for item in items]
                for change in _difference(known, items):
                    yield change
                if not synced:
                    synced = True
                    yield Change("synced", {})
            async for event in client.watch(resource, namespace, resource_version=version, **selectors):
                failures = 0
                version = parse_version(event["object"]) or version
                if strip is not None and event["type"] != "BOOKMARK":
                    event["object"] = strip(event["object"])
                change = _change(known, event)
                if change is not None:
                    yield change
        except Gone:
            version = ""
        except NotFound as error:
            if not optional:
                log.warning("cannot watch %s: %s", resource.plural, error)
            version = ""
            for change in _difference(known, []):
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


def _difference(known: dict[Key, Object], items: Iterable[Object]) -> list[Change]:
    fresh = {key_of(item): item for item in items}
    changes = [Change("deleted", known.pop(key)) for key in list(known) if key not in fresh]
    for key, item in fresh.items():
        if key not in known or parse_version(known[key]) != parse_version(item):
            known[key] = item
            changes.append(Change("applied", item))
    return changes


def _change(known: dict[Key, Object], event: Object) -> Change | None:
    kind, obj = event["type"], event["object"]
    if kind in ("ADDED", "MODIFIED"):
        known[key_of(obj)] = obj
        return Change("applied", obj)
    if kind == "DELETED":
        known.pop(key_of(obj), None)
        return Change("deleted", obj)
    return None


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
