"""All pods that the scheduler has given to this node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from linkerd.cluster.node.context import NodeContext
from linkerd.cluster.node.pods import Pod
from linkerd.cluster.node.spawning import SpawnerGone
from linkerd.cluster.node.statuses import Object
from linkerd.k8s import resources
from linkerd.k8s.watching import Change, Key, follow, key_of

log = logging.getLogger(__name__)

_RETRY = 10.0  # seconds after a pod's task has failed for a reason of ours


class AssignedPods:
    """One task per pod, from its assignment until its object is gone."""

    def __init__(self, node: NodeContext) -> None:
        self.node = node
        self._by_uid: dict[str, Pod] = {}
        self._uids: dict[Key, str] = {}
        self._finished: set[str] = set()
        self.synced = asyncio.Event()

    def __iter__(self) -> Iterator[Pod]:
        return iter(list(self._by_uid.values()))

    def find(self, namespace: str, name: str, uid: str | None = None) -> Pod | None:
        """The pod of that name, if it is (still) on this node."""
        found = self._by_uid.get(self._uids.get((namespace, name), ""))
        return found if found is not None and uid in (None, "", found.uid) else None

    async def run(self) -> None:
        """Follow the assignments for ever."""
        selector = f"spec.nodeName={self.node.settings.node_name}"
        async with asyncio.TaskGroup() as group:
            async for change in follow(self.node.client, resources.PODS, field_selector=selector):
                self._take(change, group)

    def reference_changed(self, kind: str, namespace: str, name: str) -> None:
        """A ConfigMap or Secret has changed: tell the pods that may be made of it."""
        for pod in self._by_uid.values():
            if pod.object["metadata"]["namespace"] == namespace:
                pod.reference_changed(kind, name)

    def _take(self, change: Change, group: asyncio.TaskGroup) -> None:
        match change.type:
            case "synced":
                self.synced.set()
            case "applied":
                self._apply(change.object, group)
            case "deleted":
                self._forget(key_of(change.object), change.object["metadata"]["uid"])

    def _apply(self, obj: Object, group: asyncio.TaskGroup) -> None:
        key, uid = key_of(obj), obj["metadata"]["uid"]
        before = self._uids.get(key)
        if before is not None and before != uid:
            self._forget(key, before)  # deleted and made anew while nobody was watching
        if uid in self._by_uid:
            self._by_uid[uid].update(obj)
        elif uid not in self._finished:
            self._uids[key] = uid
            self._by_uid[uid] = pod = Pod(self.node, obj)
            group.create_task(self._live(pod, key, group))

    def _forget(self, key: Key, uid: str) -> None:
        self._finished.discard(uid)
        if self._uids.get(key) == uid:
            del self._uids[key]
        if pod := self._by_uid.get(uid):
            pod.forget()

    async def _live(self, pod: Pod, key: Key, group: asyncio.TaskGroup) -> None:
        """One pod's task. A failure of ours in it must not end the other pods: it is begun anew after a while."""
        try:
            await pod.live()
        except* SpawnerGone:
            raise
        except* Exception:
            log.exception("pod %s failed on this node; it is started anew", pod.title)
            pod.event("Warning", "FailedSync", "error determining status: the node agent failed, see its log")
            await asyncio.sleep(_RETRY)
            again = True
        else:
            again = False
        self._by_uid.pop(pod.uid, None)
        if self._uids.get(key) != pod.uid:
            return
        if again:
            self._apply(pod.object, group)
        else:
            self._finished.add(pod.uid)
