"""Statuses to the API server: what we make of routes and policies, told to those who wrote them.

Every replica writes the same, and only what differs from what is there, so no leader is needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import aiohttp

from linkerd.k8s.client import Client
from linkerd.k8s.errors import ApiError, NotFound
from linkerd.k8s.resources import (
    EGRESS_NETWORKS,
    GATEWAY_GRPC_ROUTES,
    GATEWAY_HTTP_ROUTES,
    HTTP_LOCAL_RATE_LIMIT_POLICIES,
    HTTP_ROUTES,
    Resource,
)
from linkerd.kit.logging import fields
from linkerd.policy import metrics
from linkerd.policy.index import Index, Source
from linkerd.policy.statuses import Status, all_statuses
from linkerd.policy.values import GATEWAY_GROUP, POLICY_GROUP, Ref

log = logging.getLogger(__name__)

TLS_ROUTES = Resource(GATEWAY_GROUP, "v1alpha2", "tlsroutes", "TLSRoute")
TCP_ROUTES = Resource(GATEWAY_GROUP, "v1alpha2", "tcproutes", "TCPRoute")

_RESOURCES = {
    (resource.group, resource.kind): resource
    for resource in (
        HTTP_ROUTES,
        GATEWAY_HTTP_ROUTES,
        GATEWAY_GRPC_ROUTES,
        TLS_ROUTES,
        TCP_ROUTES,
        EGRESS_NETWORKS,
        HTTP_LOCAL_RATE_LIMIT_POLICIES,
    )
}
_GATHER = 0.3
"""Seconds: what is applied together is judged together."""

_AGAIN = 10.0
"""Seconds until a status that could not be written is tried again."""

_RELEVANT = ("routes", "inbound", "service", "egress")


class StatusWriter:
    def __init__(self, client: Client, index: Index, synced: asyncio.Event) -> None:
        self._client = client
        self._index = index
        self._synced = synced
        self._changed = asyncio.Event()
        self._written: dict[Ref, Status] = {}

    def touch(self, sources: Iterable[Source]) -> None:
        """Something changed; statuses may have to."""
        if any(source[0] in _RELEVANT for source in sources):
            self._changed.set()

    async def run(self) -> None:
        """Writes for ever."""
        await self._synced.wait()
        while True:
            await self._changed.wait()
            await asyncio.sleep(_GATHER)
            self._changed.clear()
            if not await self._write_all():
                await asyncio.sleep(_AGAIN)
                self._changed.set()

    async def _write_all(self) -> bool:
        """Whether all could be written."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        complete = True
        for ref, reported, wanted in list(all_statuses(self._index, now)):
            if _same(reported, wanted):
                self._written.pop(ref, None)
                continue
            # What we wrote may not have come back through the watch yet.
            if _same(self._written.get(ref, {}), wanted):
                continue
            complete &= await self._write(ref, wanted)
        return complete

    async def _write(self, ref: Ref, status: Status) -> bool:
        resource = _RESOURCES[ref.group or POLICY_GROUP, ref.kind]
        route = self._index.routes.get((ref.group, ref.kind, *ref.key))
        if route is not None:
            resource = replace(resource, version=route.version)
        try:
            await self._client.patch(resource, ref.name, {"status": status}, ref.namespace, subresource="status")
        except NotFound:
            return True  # deleted meanwhile
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            metrics.STATUS_WRITES.labels("failed").inc()
            log.warning("cannot write a status", extra=fields(kind=ref.kind, resource="/".join(ref.key), error=error))
            return False
        self._written[ref] = status
        metrics.STATUS_WRITES.labels("ok").inc()
        log.info("status written", extra=fields(kind=ref.kind, resource="/".join(ref.key), status=_summary(status)))
        return True


def _same(one: Status, other: Status) -> bool:
    return _without_times(one) == _without_times(other)


def _without_times(value: object) -> object:
    """Times of transition say when, not what."""
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key != "lastTransitionTime"}
    if isinstance(value, list):
        return [_without_times(inner) for inner in value]
    return value


def _summary(status: Status) -> str:
    conditions = list(status.get("conditions") or [])
    for parent in status.get("parents") or []:
        conditions += parent["conditions"]
    return ",".join(dict.fromkeys(f"{c['type']}={c['status']}:{c['reason']}" for c in conditions))
