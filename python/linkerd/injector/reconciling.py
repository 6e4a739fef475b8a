"""Pods that should be meshed and are not: made while the injector was away, or before somebody asked for the proxy.

A pod cannot be meshed after it was made. So all that can be done is to tell: by an Event on the workload, which a
restart would mend, and by a metric.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import Gauge

from linkerd.injector import annotations as names
from linkerd.injector.inject import Owner, obstacle
from linkerd.injector.owners import controller_of, deployment_of_replica_set
from linkerd.injector.service import EventRecorder, reference
from linkerd.k8s.client import Client
from linkerd.k8s.resources import PODS
from linkerd.k8s.watching import Change, Key, follow
from linkerd.kit.logging import fields

log = logging.getLogger(__name__)

Object = dict[str, Any]

UNMESHED = Gauge("proxy_inject_unmeshed_pods", "Pods that should be meshed and are not", ["namespace"])

_GATHER = 5.0
"""Seconds: a rollout is judged as a whole, and a pod's namespace may come after it."""

_OPTED_OUT = "config.linkerd.io/admission-webhooks"
_COMPONENTS = ("linkerd.io/control-plane-component", "linkerd.io/cni-resource")


@dataclass(frozen=True, slots=True)
class Candidate:
    """What of a pod says whether it should be meshed."""

    namespace: str
    name: str
    owner: Owner
    wish: str | None  # its own `linkerd.io/inject`
    counts: bool  # it runs, is not meshed, could be, and is no part of the mesh itself

    @property
    def key(self) -> Key:
        return self.namespace, self.name


def parse_candidate(pod: Object) -> Candidate:
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    labels = metadata.get("labels") or {}
    direct = controller_of(pod)
    owner = (deployment_of_replica_set(pod, direct) if direct.kind == "ReplicaSet" else None) or direct
    return Candidate(
        metadata["namespace"],
        metadata["name"],
        owner,
        (metadata.get("annotations") or {}).get(names.INJECT),
        counts=obstacle(spec) is None
        and not metadata.get("deletionTimestamp")
        and status.get("phase") not in ("Succeeded", "Failed")
        and not any(label in labels for label in _COMPONENTS),
    )


def should_be_meshed(candidate: Candidate, namespace: Object | None, excluded: tuple[str, ...]) -> bool:
    """Whether the webhook would have meshed it, had it been asked."""
    if not candidate.counts or namespace is None or candidate.namespace in excluded:
        return False
    metadata = namespace["metadata"]
    if (metadata.get("labels") or {}).get(_OPTED_OUT) == "disabled":
        return False
    wish = candidate.wish or (metadata.get("annotations") or {}).get(names.INJECT)
    return wish in ("enabled", "ingress")


class Reconciler:
    """Follows all pods. `namespaces` are the ones that are known now, by key."""

    def __init__(
        self,
        client: Client,
        namespaces: Mapping[Key, Object],
        events: EventRecorder,
        excluded: Callable[[], tuple[str, ...]],
    ) -> None:
        self._client = client
        self._namespaces = namespaces
        self._events = events
        self._excluded = excluded
        self._candidates: dict[Key, Candidate] = {}
        self._told: set[tuple[str, str, str]] = set()
        self._changed = asyncio.Event()

    async def follow(self) -> None:
        """For ever; cancel to end."""
        async for change in follow(self._client, PODS, strip=parse_candidate):
            self.note(change)

    def note(self, change: Change) -> None:
        if change.type == "applied":
            self._candidates[change.object.key] = change.object
        elif change.type == "deleted":
            self._candidates.pop(change.object.key, None)
        self._changed.set()

    async def report(self) -> None:
        """For ever; cancel to end."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER)
            self._changed.clear()
            self.tell()

    def tell(self) -> None:
        """Counts them all, and names each workload once for as long as it has such pods."""
        found = list(self.unmeshed())
        UNMESHED.clear()
        for candidate in found:
            UNMESHED.labels(candidate.namespace).inc()
        workloads = {_workload(candidate): candidate for candidate in found}
        for workload in workloads.keys() - self._told:
            self._tell_one(workloads[workload])
        self._told = set(workloads)

    def unmeshed(self) -> Iterator[Candidate]:
        excluded = self._excluded()
        for candidate in self._candidates.values():
            if should_be_meshed(candidate, self._namespaces.get(("", candidate.namespace)), excluded):
                yield candidate

    def _tell_one(self, candidate: Candidate) -> None:
        kind, name = candidate.owner.kind or "Pod", candidate.owner.name or candidate.name
        message = f"pod {candidate.name} should be meshed and has no proxy: it was made without; replace it"
        log.warning("%s", message, extra=fields(namespace=candidate.namespace, owner=f"{kind.lower()}/{name}"))
        involved = reference(candidate.owner, {"metadata": {"name": candidate.name}})
        self._events.record(candidate.namespace, involved, "Warning", "NotMeshed", message)


def _workload(candidate: Candidate) -> tuple[str, str, str]:
    return candidate.namespace, candidate.owner.kind, candidate.owner.name or candidate.name
