"""The cluster's changes into the index, and from there to those who subscribed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from linkerd.core.services import parse_endpoint_slice, parse_service
from linkerd.core.workloads import parse_external_workload, parse_namespace, parse_node, parse_pod
from linkerd.destination import metrics
from linkerd.destination.index import Index, Source, parse_server_port
from linkerd.destination.profiles import parse_service_profile, parse_traffic_split
from linkerd.k8s.client import Client, Object
from linkerd.k8s.resources import (
    ENDPOINT_SLICES,
    EXTERNAL_WORKLOADS,
    NAMESPACES,
    NODES,
    PODS,
    SERVERS,
    SERVICE_PROFILES,
    SERVICES,
    TRAFFIC_SPLITS,
    Resource,
)
from linkerd.k8s.watching import follow
from linkerd.kit.logging import fields

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Watch:
    resource: Resource
    parse: Callable[[Object], Any]
    optional: bool = False
    versions: tuple[str, ...] = ()
    """Others that a cluster may serve instead; their objects are read the same way."""


_WATCHES = (
    _Watch(PODS, parse_pod),
    _Watch(SERVICES, parse_service),
    _Watch(ENDPOINT_SLICES, parse_endpoint_slice),
    _Watch(NODES, parse_node),
    _Watch(NAMESPACES, parse_namespace),
    _Watch(SERVICE_PROFILES, parse_service_profile, optional=True),
    _Watch(TRAFFIC_SPLITS, parse_traffic_split, optional=True, versions=("v1alpha1",)),
    _Watch(EXTERNAL_WORKLOADS, parse_external_workload, optional=True, versions=("v1alpha1",)),
    _Watch(SERVERS, parse_server_port, optional=True),
)


class ClusterWatch:
    """Keeps the index; `synced` is set when everything that was there at the start is in it."""

    def __init__(self, client: Client, index: Index) -> None:
        self._client = client
        self._index = index
        self._waiting = {watch.resource.plural for watch in _WATCHES}
        self._began = time.monotonic()
        self.synced = asyncio.Event()

    def missing(self) -> list[str]:
        """The resources that are not known yet."""
        return sorted(self._waiting)

    def tasks(self, touch: Callable[[set[Source]], None]) -> list[Coroutine[Any, Any, None]]:
        """One for each resource; each runs for ever."""
        return [self._follow(watch, touch) for watch in _WATCHES]

    async def _follow(self, watch: _Watch, touch: Callable[[set[Source]], None]) -> None:
        events = metrics.EVENTS.labels(watch.resource.plural)
        changes = follow(
            self._client, watch.resource, optional=watch.optional, strip=watch.parse, versions=watch.versions
        )
        async for change in changes:
            if change.type == "synced":
                self._waiting.discard(watch.resource.plural)
                if not self._waiting:
                    self.synced.set()
                    log.info("the cluster is known", extra=fields(seconds=round(time.monotonic() - self._began, 3)))
                continue
            events.inc()
            put = self._index.apply if change.type == "applied" else self._index.remove
            touch(put(change.object))
