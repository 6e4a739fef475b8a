"""The pods of what a command line names, and the metrics of their proxies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from linkerd.cli.errors import UserError
from linkerd.core import kinds
from linkerd.core.kinds import Target
from linkerd.viz.index import Owner, Pod, PodIndex, owner_of, pod_from_object

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from linkerd.k8s.client import Client
    from linkerd.k8s.portforward import Listener

ADMIN_PORT = 4191
_TIMEOUT_SECONDS = 30.0


async def pod_index(client: Client, namespace: str = "") -> PodIndex:
    """All pods of the namespace (of the cluster) and the workloads that own them, as of now."""
    from linkerd.k8s.resources import JOBS, PODS, REPLICA_SETS

    index = PodIndex()
    owned = (REPLICA_SETS.metadata(), JOBS.metadata())
    pods, *parents = await asyncio.gather(
        client.list(PODS, namespace or None), *(client.list(resource, namespace or None) for resource in owned)
    )
    for pod in pods:
        index.apply(pod_from_object(pod))
    for resource, objects in zip(owned, parents, strict=True):
        for obj in objects:
            metadata = obj["metadata"]
            child = Owner(resource.kind.lower(), metadata["namespace"], metadata["name"])
            index.apply_parent(child, owner_of(metadata))
    return index


async def pods_of(client: Client, target: Target) -> list[Pod]:
    """The pods of one workload, by name. Raises UserError when there are none."""
    index = await pod_index(client, target.namespace)
    namespace = "" if target.kind is kinds.NAMESPACE else target.namespace
    found = index.by_workload(target.kind.name, target.namespace).get((namespace, target.name), [])
    if not found:
        raise UserError(
            f"no pods found for {target} in namespace {target.namespace}",
            f"is it the right namespace? see `kubectl get {target.kind.plural} -A`",
        )
    return sorted(found, key=lambda pod: pod.name)


class ScrapeError(Exception):
    """An admin port did not give what was asked; the text says why."""


class Scraper:
    """Reads admin ports, each through a port-forward of its own that stays open. `timeout` is that of one answer."""

    def __init__(self, client: Client, *, timeout: float = _TIMEOUT_SECONDS) -> None:
        self._client = client
        self._timeout = timeout

    @asynccontextmanager
    async def open(self, pod: Pod) -> AsyncIterator[AdminPort]:
        """The pod's proxy. Raises OSError when no local port can be had."""
        async with self.open_port(pod.namespace, pod.name, pod.admin_port or ADMIN_PORT) as admin:
            yield admin

    @asynccontextmanager
    async def open_port(self, namespace: str, pod: str, port: int) -> AsyncIterator[AdminPort]:
        """Raises OSError when no local port can be had."""
        import aiohttp

        from linkerd.k8s.portforward import listen

        timeout = aiohttp.ClientTimeout(total=self._timeout)
        async with (
            listen(self._client, namespace, pod, port) as listener,
            aiohttp.ClientSession(timeout=timeout) as session,
        ):
            yield AdminPort(session, listener)


class AdminPort:
    """HTTP to one container."""

    def __init__(self, session: ClientSession, listener: Listener) -> None:
        self._session = session
        self._listener = listener

    async def read(self, path: str = "/metrics") -> str:
        """The text of a page. Raises ScrapeError."""
        import aiohttp

        url = f"http://127.0.0.1:{self._listener.port}{path}"
        try:
            async with self._session.get(url) as response:
                if response.status != 200:
                    raise ScrapeError(f"{path} answered with HTTP status {response.status}")
                return await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = self._listener.failure
            raise ScrapeError(failure or str(error) or "no answer in time") from error
