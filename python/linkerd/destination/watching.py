"""The cluster's changes into the index, and from there to those who subscribed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import aiohttp

from linkerd.core.services import parse_endpoint_slice, parse_service
from linkerd.core.workloads import parse_namespace, parse_node, parse_pod
from linkerd.destination import metrics
from linkerd.destination.index import Index, Source, parse_server_port
from linkerd.destination.profiles import parse_service_profile, parse_traffic_split
from linkerd.k8s.client import Client, Object
from linkerd.k8s.errors import ApiError
from linkerd.k8s.resources import (
    ENDPOINT_SLICES,
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

_OLD_TRAFFIC_SPLITS = Resource("split.smi-spec.io", "v1alpha1", "trafficsplits", "TrafficSplit")


@dataclass(frozen=True, slots=True)
class _Watch:
    resource: Resource
    parse: Callable[[Object], Any]
    optional: bool = False


_WATCHES = (
    _Watch(PODS, parse_pod),
    _Watch(SERVICES, parse_service),
    _Watch(ENDPOINT_SLICES, parse_endpoint_slice),
    _Watch(NODES, parse_node),
    _Watch(NAMESPACES, parse_namespace),
    _Watch(SERVICE_PROFILES, parse_service_profile, optional=True),
    _Watch(TRAFFIC_SPLITS, parse_traffic_split, optional=True),
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
        resource = watch.resource
        if resource is TRAFFIC_SPLITS:
            resource = await _served_version(self._client, TRAFFIC_SPLITS, _OLD_TRAFFIC_SPLITS)
        events = metrics.EVENTS.labels(resource.plural)
        async for change in follow(self._client, resource, optional=watch.optional, strip=watch.parse):
            if change.type == "synced":
                self._waiting.discard(watch.resource.plural)
                if not self._waiting:
                    self.synced.set()
                    log.info("the cluster is known", extra=fields(seconds=round(time.monotonic() - self._began, 3)))
                continue
            events.inc()
            put = self._index.apply if change.type == "applied" else self._index.remove
            touch(put(change.object))


async def _served_version(client: Client, *versions: Resource) -> Resource:
    """The first of these versions that the server has; the first one when it has none, or cannot be asked."""
    try:
        group = await client.request("GET", f"/apis/{versions[0].group}")
    except (ApiError, aiohttp.ClientError, TimeoutError, OSError):
        return versions[0]  # following it will say what is wrong, or wait until it appears
    served = {version["version"] for version in group.get("versions") or []}
    return next((resource for resource in versions if resource.version in served), versions[0])
