"""Keeps a `PodIndex` true: three watches, two of them of metadata only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from linkerd.k8s.client import Client, Object
from linkerd.k8s.resources import JOBS, PODS, REPLICA_SETS, Resource
from linkerd.k8s.watching import Change, follow
from linkerd.viz.index import Owner, Pod, PodIndex, owner_of, pod_from_object

_OWNED = (REPLICA_SETS.metadata(), JOBS.metadata())
"""What may stand between a pod and the workload that a person knows."""


class PodWatch:
    """`index` may be read once `synced()`. `on_pod` hears of each pod that changed, after the index did."""

    def __init__(self, client: Client, on_pod: Callable[[Pod], None] | None = None) -> None:
        self.index = PodIndex()
        self._client = client
        self._on_pod = on_pod
        self._synced = asyncio.Event()
        self._pending = {PODS.plural, *(resource.plural for resource in _OWNED)}

    def synced(self) -> bool:
        """Whether the index has all that existed when `run` began."""
        return self._synced.is_set()

    async def wait_synced(self) -> None:
        await self._synced.wait()

    def _told_all(self, resource: Resource) -> None:
        self._pending.discard(resource.plural)
        if not self._pending:
            self._synced.set()

    async def run(self) -> None:
        """Follows for ever; cancel to end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_pods())
            for resource in _OWNED:
                group.create_task(self._follow_owned(resource))

    async def _follow_pods(self) -> None:
        async for change in follow(self._client, PODS, strip=_stripped_pod):
            if change.type == "synced":
                self._told_all(PODS)
            else:
                self._store_pod(change)

    def _store_pod(self, change: Change) -> None:
        pod: Pod = change.object["pod"]
        if change.type == "applied":
            self.index.apply(pod)
        else:
            self.index.delete(pod.namespace, pod.name)
        if self._on_pod is not None:
            self._on_pod(pod)

    async def _follow_owned(self, resource: Resource) -> None:
        kind = resource.kind.lower()
        async for change in follow(self._client, resource, strip=_stripped_owned):
            if change.type == "synced":
                self._told_all(resource)
                continue
            metadata = change.object["metadata"]
            child = Owner(kind, metadata["namespace"], metadata["name"])
            self.index.apply_parent(child, change.object["parent"] if change.type == "applied" else None)


def _identity(metadata: Object) -> Object:
    """What `follow` itself needs of an object."""
    return {key: metadata.get(key) or "" for key in ("namespace", "name", "resourceVersion")}


def _stripped_pod(obj: Object) -> Object:
    return {"metadata": _identity(obj["metadata"]), "pod": pod_from_object(obj)}


def _stripped_owned(obj: Object) -> Object:
    return {"metadata": _identity(obj["metadata"]), "parent": owner_of(obj["metadata"])}
