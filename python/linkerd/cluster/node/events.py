"""Events about pods and the node, aggregated as kubelet does: the same words again raise a count.

Recording never waits: a queue and one sender. An event is news, not state; if the API refuses it, it is logged and
dropped. A source that repeats itself without end is held back (a burst, then one per five minutes for each object).
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp

from linkerd.k8s import resources
from linkerd.k8s.client import MERGE_PATCH, Client
from linkerd.k8s.errors import ApiError, Forbidden, NotFound

log = logging.getLogger(__name__)

Object = dict[str, Any]

BURST = 25  # events about one object before the slow rate applies
REFILL_SECONDS = 300.0
_MAX_KEYS = 4096


@dataclass
class Bucket:
    """A token bucket in seconds of a monotonic clock."""

    tokens: float = BURST
    updated: float = 0.0

    def take(self, now: float) -> bool:
        """Whether one more may pass."""
        self.tokens = min(BURST, self.tokens + max(0.0, now - self.updated) / REFILL_SECONDS)
        self.updated = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass
class _Known:
    name: str
    count: int


@dataclass
class Recorder:
    """Events of this node's agent. `run()` sends them."""

    client: Client
    node_name: str
    _queue: asyncio.Queue[tuple[Object, str, str, str]] = field(default_factory=asyncio.Queue)
    _known: OrderedDict[tuple[str, ...], _Known] = field(default_factory=OrderedDict)
    _buckets: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)

    def object_event(self, obj: Object, kind: str, reason: str, message: str, field_path: str = "") -> None:
        """About any object of a namespace, or a part of it."""
        metadata = obj["metadata"]
        about = {key: obj[key] for key in ("apiVersion", "kind")}
        about |= {key: metadata.get(key, "") for key in ("namespace", "name", "uid", "resourceVersion")}
        if field_path:
            about["fieldPath"] = field_path
        self._record(about, kind, reason, message)

    def pod_event(self, pod: Object, kind: str, reason: str, message: str, container_path: str = "") -> None:
        """About a pod, or about one of its containers (`spec.containers{name}`)."""
        self.object_event({"apiVersion": "v1", "kind": "Pod", **pod}, kind, reason, message, container_path)

    def node_event(self, kind: str, reason: str, message: str) -> None:
        """About the node; such events live in the namespace `default`."""
        about = {"kind": "Node", "name": self.node_name, "uid": self.node_name, "apiVersion": "v1"}
        self._record(about, kind, reason, message)

    def _record(self, about: Object, kind: str, reason: str, message: str) -> None:
        bucket = _recent(self._buckets, about["uid"], Bucket)
        if bucket.take(time.monotonic()):
            self._queue.put_nowait((about, kind, reason, message))

    async def run(self) -> None:
        """Send events for ever."""
        while True:
            about, kind, reason, message = await self._queue.get()
            try:
                await self._send(about, kind, reason, message)
            except Forbidden as error:
                log.debug("event %s about %s was not wanted: %s", reason, about["name"], error)  # its namespace ends
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("event %s about %s was not recorded: %s", reason, about["name"], error)

    async def _send(self, about: Object, kind: str, reason: str, message: str) -> None:
        key = (about["uid"], about.get("fieldPath", ""), kind, reason, message)
        namespace = about.get("namespace", "default")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        known = self._known.get(key)
        if known is not None:
            known.count += 1
            change = {"count": known.count, "lastTimestamp": now}
            try:
                await self.client.patch(resources.EVENTS, known.name, change, namespace, content_type=MERGE_PATCH)
                return
            except NotFound:
                pass  # its hour is over (the API server's --event-ttl): tell it anew
        name = f"{about['name']}.{uuid.uuid4().hex[:16]}"
        body = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": "kubelet", "host": self.node_name},
            "reportingComponent": "kubelet",
            "reportingInstance": self.node_name,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self.client.create(resources.EVENTS, body, namespace)
        self._known.pop(key, None)
        _recent(self._known, key, lambda: _Known(name, 1))


def _recent(cache: OrderedDict[Any, Any], key: Any, make: Any) -> Any:
    if key not in cache:
        cache[key] = make()
        if len(cache) > _MAX_KEYS:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]
