"""The cluster's changes into the index, and from there to those who subscribed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from linkerd.core.identities import TrustDomain
from linkerd.core.labels import CONTROL_PLANE_NS
from linkerd.core.services import parse_service
from linkerd.core.workloads import parse_external_workload, parse_namespace, parse_pod
from linkerd.k8s.client import Client, Object
from linkerd.k8s.resources import (
    AUTHORIZATION_POLICIES,
    EGRESS_NETWORKS,
    EXTERNAL_WORKLOADS,
    GATEWAY_GRPC_ROUTES,
    GATEWAY_HTTP_ROUTES,
    HTTP_LOCAL_RATE_LIMIT_POLICIES,
    HTTP_ROUTES,
    MESH_TLS_AUTHENTICATIONS,
    NAMESPACES,
    NETWORK_AUTHENTICATIONS,
    PODS,
    SERVER_AUTHORIZATIONS,
    SERVERS,
    SERVICES,
    Resource,
)
from linkerd.k8s.watching import follow
from linkerd.kit.logging import fields
from linkerd.policy import metrics
from linkerd.policy.index import Index, Source
from linkerd.policy.parsing import (
    parse_authorization_policy,
    parse_egress_network,
    parse_mesh_tls_authentication,
    parse_network_authentication,
    parse_rate_limit,
    parse_route,
    parse_server,
    parse_server_authorization,
)
from linkerd.policy.reporting import TCP_ROUTES, TLS_ROUTES

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Watch:
    resource: Resource
    parse: Callable[[Object], Any]
    optional: bool = True
    label_selector: str = ""
    versions: tuple[str, ...] = ()
    """Others that a cluster may serve instead; their objects are read the same way."""

    @property
    def name(self) -> str:
        return self.resource.name


def _watches(trust: TrustDomain) -> list[_Watch]:
    return [
        _Watch(PODS, parse_pod, optional=False, label_selector=CONTROL_PLANE_NS),
        _Watch(NAMESPACES, parse_namespace, optional=False),
        _Watch(SERVICES, parse_service, optional=False),
        _Watch(EXTERNAL_WORKLOADS, parse_external_workload, versions=("v1alpha1",)),
        _Watch(SERVERS, parse_server),
        _Watch(SERVER_AUTHORIZATIONS, partial(parse_server_authorization, trust=trust)),
        _Watch(AUTHORIZATION_POLICIES, parse_authorization_policy),
        _Watch(MESH_TLS_AUTHENTICATIONS, partial(parse_mesh_tls_authentication, trust=trust)),
        _Watch(NETWORK_AUTHENTICATIONS, parse_network_authentication),
        _Watch(HTTP_LOCAL_RATE_LIMIT_POLICIES, parse_rate_limit),
        _Watch(EGRESS_NETWORKS, parse_egress_network),
        _Watch(HTTP_ROUTES, parse_route),
        _Watch(GATEWAY_HTTP_ROUTES, parse_route, versions=("v1beta1",)),
        _Watch(GATEWAY_GRPC_ROUTES, parse_route, versions=("v1alpha2",)),
        _Watch(TLS_ROUTES, parse_route, versions=("v1alpha3", "v1")),
        _Watch(TCP_ROUTES, parse_route),
    ]


class ClusterWatch:
    """Keeps the index; `synced` is set when everything that was there at the start is in it."""

    def __init__(self, client: Client, index: Index) -> None:
        self._client = client
        self._index = index
        self._watches = _watches(index.settings.trust_domain)
        self._waiting = {watch.name for watch in self._watches}
        self._began = time.monotonic()
        self.synced = asyncio.Event()

    def missing(self) -> list[str]:
        """The resources that are not known yet."""
        return sorted(self._waiting)

    def tasks(self, touch: Callable[[set[Source]], None]) -> list[Coroutine[Any, Any, None]]:
        """One for each resource; each runs for ever."""
        return [self._follow(watch, touch) for watch in self._watches]

    async def _follow(self, watch: _Watch, touch: Callable[[set[Source]], None]) -> None:
        events = metrics.EVENTS.labels(watch.name)
        changes = follow(
            self._client,
            watch.resource,
            optional=watch.optional,
            strip=watch.parse,
            label_selector=watch.label_selector,
            versions=watch.versions,
        )
        async for change in changes:
            if change.type == "synced":
                self._waiting.discard(watch.name)
                if not self._waiting:
                    self.synced.set()
                    log.info("the cluster is known", extra=fields(seconds=round(time.monotonic() - self._began, 3)))
                continue
            events.inc()
            put = self._index.apply if change.type == "applied" else self._index.remove
            touch(put(change.object))
