"""The admission webhook: reviews in, patches out.

It never refuses an object: what cannot be meshed runs unmeshed, with a warning to whoever applied it and an Event on
the workload.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from prometheus_client import Counter, Histogram

from linkerd.injector.inject import Injection, Owner, inject, with_opaque_ports
from linkerd.injector.patch import Patch, difference
from linkerd.injector.settings import Settings
from linkerd.k8s.client import Client
from linkerd.k8s.errors import ApiError
from linkerd.k8s.resources import EVENTS
from linkerd.kit.logging import fields

log = logging.getLogger(__name__)

Object = dict[str, Any]

REQUESTS = Counter(
    "proxy_inject_admission_requests", "Pods and Services that the API server asked about.", ["namespace"]
)
RESPONSES = Counter("proxy_inject_admission_responses", "What became of them.", ["namespace", "skip", "skip_reason"])
DURATION = Histogram(
    "proxy_inject_admission_duration_seconds",
    "Time from a review to its answer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0),
)

_MAX_REVIEW_BYTES = 8 * 1024 * 1024  # twice the API server's own limit of a request
_EVENT_QUEUE = 1000

NamespaceAnnotations = Callable[[str], Awaitable[Mapping[str, str]]]
OwnerOf = Callable[[Object, str], Awaitable[Owner]]


class EventRecorder:
    """Writes Events in the background: admission does not wait for them; a full queue drops them with a log line."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._queue: asyncio.Queue[tuple[str, Object]] = asyncio.Queue(_EVENT_QUEUE)

    def record(self, namespace: str, involved: Object, kind: str, reason: str, message: str) -> None:
        """`kind` is Normal or Warning."""
        try:
            self._queue.put_nowait((namespace, event(namespace, involved, kind, reason, message)))
        except asyncio.QueueFull:
            log.warning("event dropped, too many are waiting", extra=fields(namespace=namespace, reason=reason))

    async def run(self) -> None:
        """For ever; cancel to end."""
        while True:
            namespace, body = await self._queue.get()
            try:
                await self._client.create(EVENTS, body, namespace)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("event not written: %s", error, extra=fields(namespace=namespace))


def event(namespace: str, involved: Object, kind: str, reason: str, message: str) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "metadata": {"generateName": f"{involved['name'][:200]}.", "namespace": namespace},
        "involvedObject": {"namespace": namespace, **involved},
        "type": kind,
        "reason": reason,
        "message": message,
        "source": {"component": "linkerd-proxy-injector"},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


class Webhook:
    """Answers admission reviews. `settings` is asked each time, since the configuration may change."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        namespace_annotations: NamespaceAnnotations,
        owner_of: OwnerOf,
        events: EventRecorder,
    ) -> None:
        self._settings = settings
        self._namespace_annotations = namespace_annotations
        self._owner_of = owner_of
        self._events = events

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_MAX_REVIEW_BYTES)
        app.add_routes([web.post("/", self._handle)])
        return app

    async def _handle(self, request: web.Request) -> web.Response:
        started = time.monotonic()
        try:
            review = orjson.loads(await request.read())
            admission = review["request"]
            uid, obj = admission["uid"], admission["object"]
        except (ValueError, KeyError, TypeError) as error:
            return web.Response(status=400, text=f"not an AdmissionReview: {error!r}\n")
        patch, warnings = await self._patch(admission, obj)
        DURATION.observe(time.monotonic() - started)
        return _reviewed(review, uid, patch, warnings)

    async def _patch(self, admission: Object, obj: Object) -> tuple[Patch, list[str]]:
        namespace, kind = admission.get("namespace") or "default", admission["kind"]["kind"]
        REQUESTS.labels(namespace).inc()
        settings = self._settings()
        annotations = await self._namespace_annotations(namespace)
        if kind == "Service":
            return difference(obj, with_opaque_ports(obj, annotations, settings)), []
        if kind != "Pod":
            return [], []
        owner = await self._owner_of(obj, namespace)
        injection = inject(obj, namespace, annotations, owner, settings)
        self._tell(injection, obj, namespace, owner, dry_run=bool(admission.get("dryRun")))
        return difference(obj, injection.pod), injection.warnings

    def _tell(self, injection: Injection, pod: Object, namespace: str, owner: Owner, *, dry_run: bool) -> None:
        reason = injection.reason
        skip = "false" if reason is None else "true"
        RESPONSES.labels(namespace, skip, reason.name.lower() if reason else "").inc()
        name = owner.name or pod["metadata"].get("name") or pod["metadata"].get("generateName", "")
        where = fields(namespace=namespace, owner=f"{(owner.kind or 'Pod').lower()}/{name}")
        if reason is None:
            log.info("proxy injected", extra=where)
        else:
            log.info("injection skipped: %s", reason.value, extra=where)
        for warning in injection.warnings:
            log.warning("%s", warning, extra=where)
        if dry_run or not name:
            return
        involved = reference(owner, pod)
        if reason is not None and reason.worth_an_event:
            message = f"Linkerd sidecar proxy injection skipped: {reason.value}"
            self._events.record(namespace, involved, "Warning", "InjectionSkipped", message)
        elif reason is None and owner.kind:
            self._events.record(namespace, involved, "Normal", "Injected", "Linkerd sidecar proxy injected")


_API_VERSIONS = {
    "Deployment": "apps/v1",
    "ReplicaSet": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "ReplicationController": "v1",
}


def reference(owner: Owner, pod: Object) -> Object:
    """What an Event about a pod is put on: its workload, or itself."""
    if owner.kind in _API_VERSIONS:
        return {"apiVersion": _API_VERSIONS[owner.kind], "kind": owner.kind, "name": owner.name}
    metadata = pod["metadata"]
    name = metadata.get("name") or metadata.get("generateName", "").rstrip("-")
    return {"apiVersion": "v1", "kind": "Pod", "name": name}


def _reviewed(review: Object, uid: str, patch: Patch, warnings: list[str]) -> web.Response:
    response: Object = {"uid": uid, "allowed": True}
    if patch:
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(orjson.dumps(patch)).decode()}
    if warnings:
        response["warnings"] = warnings
    answer = {"apiVersion": review.get("apiVersion"), "kind": "AdmissionReview", "response": response}
    return web.Response(body=orjson.dumps(answer), content_type="application/json")
