"""Kubernetes Events about certificates, few enough that a rollout of a thousand pods does not flood the API server."""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp

from linkerd.identity.metrics import EVENTS_DROPPED
from linkerd.k8s.client import Client, Object
from linkerd.k8s.errors import ApiError
from linkerd.k8s.resources import EVENTS

log = logging.getLogger(__name__)

_WAITING = 20
_APART = 0.2
"""Seconds between two Events: at most five a second, and what does not wait in the queue is counted only."""


@dataclass(frozen=True, slots=True)
class Event:
    reason: str
    message: str
    namespace: str
    kind: str
    name: str
    api_version: str = "v1"
    type: str = "Normal"


class Recorder:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: asyncio.Queue[Event] = asyncio.Queue(_WAITING)

    def record_nowait(self, event: Event) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            EVENTS_DROPPED.inc()

    async def run(self) -> None:
        """Writes for ever. A refused Event is logged: nobody's certificate depends on it."""
        while True:
            event = await self._queue.get()
            try:
                await self._client.create(EVENTS, _object(event, datetime.now(UTC)), event.namespace)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("cannot write Event %s of %s/%s: %s", event.reason, event.namespace, event.name, error)
            await asyncio.sleep(_APART)


def _object(event: Event, now: datetime) -> Object:
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"name": f"{event.name}.{uuid.uuid4().hex[:16]}", "namespace": event.namespace},
        "involvedObject": {
            "apiVersion": event.api_version,
            "kind": event.kind,
            "namespace": event.namespace,
            "name": event.name,
        },
        "reason": event.reason,
        "message": event.message,
        "type": event.type,
        "source": {"component": "linkerd-identity"},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
