"""The Kubernetes objects behind the rows of a table, asked for when a table is made: an answer then includes what was
created a moment ago, and an idle process watches nothing but pods."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from linkerd.core import kinds
from linkerd.core.kinds import Kind, Target
from linkerd.k8s import resources
from linkerd.k8s.client import Client, Object
from linkerd.k8s.errors import NotFound
from linkerd.k8s.resources import Resource
from linkerd.viz.index import Pod, PodIndex
from linkerd.viz.metrics.summary import Key

RESOURCES: Mapping[Kind, Resource] = {
    kinds.CRON_JOB: resources.CRON_JOBS,
    kinds.DAEMON_SET: resources.DAEMON_SETS,
    kinds.DEPLOYMENT: resources.DEPLOYMENTS,
    kinds.JOB: resources.JOBS,
    kinds.NAMESPACE: resources.NAMESPACES,
    kinds.POD: resources.PODS,
    kinds.REPLICATION_CONTROLLER: resources.REPLICATION_CONTROLLERS,
    kinds.REPLICA_SET: resources.REPLICA_SETS,
    kinds.STATEFUL_SET: resources.STATEFUL_SETS,
    kinds.SERVICE: resources.SERVICES,
    kinds.SERVER: resources.SERVERS,
    kinds.SERVER_AUTHORIZATION: resources.SERVER_AUTHORIZATIONS,
    kinds.AUTHORIZATION_POLICY: resources.AUTHORIZATION_POLICIES,
}

_HTTP_ROUTE_RESOURCES = (resources.HTTP_ROUTES, resources.GATEWAY_HTTP_ROUTES)


class UnsupportedKind(Exception):
    """There are no rows of this kind."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(f"unimplemented resource type: {kind.name}")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A backend of a split, with its weight as it was written."""

    namespace: str
    apex: str
    name: str
    weight: str
    split: str = ""


@dataclass(frozen=True, slots=True)
class Profile:
    """A service and the route names of its ServiceProfile (none without one)."""

    name: str
    service: str
    namespace: str
    routes: tuple[str, ...] = ()


class Objects:
    def __init__(self, client: Client, pods: PodIndex, cluster_domain: str) -> None:
        self._client = client
        self._pods = pods
        self._domain = cluster_domain

    async def keys(self, target: Target, label_selector: str = "") -> list[Key]:
        """Namespace and name of each object. Raises NotFound for a name that does not exist, UnsupportedKind."""
        if target.kind is kinds.HTTP_ROUTE:
            return await self._http_routes(target, label_selector)
        resource = RESOURCES.get(target.kind)
        if resource is None:
            raise UnsupportedKind(target.kind)
        return await self._keys(resource, target, label_selector)

    async def _keys(self, resource: Resource, target: Target, label_selector: str) -> list[Key]:
        field_selector = f"metadata.name={target.name}" if target.name else ""
        items = await self._client.list(
            resource.metadata(),
            target.namespace or None,
            label_selector=label_selector,
            field_selector=field_selector,
        )
        if target.name and not items and not label_selector:
            raise NotFound(404, "NotFound", f'{resource.plural} "{target.name}" not found')
        return [(item["metadata"].get("namespace") or "", item["metadata"]["name"]) for item in items]

    async def _http_routes(self, target: Target, label_selector: str) -> list[Key]:
        """Of both groups; neither needs to be installed."""
        found: set[Key] = set()
        for resource in _HTTP_ROUTE_RESOURCES:
            try:
                found.update(await self._keys(resource, target, label_selector))
            except NotFound:
                continue
        if target.name and not found:
            raise NotFound(404, "NotFound", f'httproutes "{target.name}" not found')
        return sorted(found)

    async def splits(self, target: Target) -> list[Leaf]:
        """The backends of TrafficSplits; none where the kind is not installed."""
        items = await self._optional(resources.TRAFFIC_SPLITS, target.namespace)
        leaves = [leaf for item in items for leaf in leaves_from_split(item)]
        if target.kind is kinds.TRAFFIC_SPLIT and target.name:
            leaves = [leaf for leaf in leaves if leaf.split == target.name]
            if not leaves:
                raise NotFound(404, "NotFound", f'trafficsplits "{target.name}" not found')
        return leaves

    async def overrides(self, target: Target) -> list[Leaf]:
        """Where the traffic of a service is led, by its ServiceProfile or a TrafficSplit."""
        profiles, splits = await asyncio.gather(
            self._optional(resources.SERVICE_PROFILES, target.namespace), self.splits(target)
        )
        leaves = [leaf for item in profiles for leaf in leaves_from_profile(item, self._domain)]
        return [leaf for leaf in (*leaves, *splits) if not target.name or leaf.apex == target.name]

    async def profiles(self, target: Target, client_namespace: str) -> list[Profile]:
        """Of every service that selects the target's pods (of the service itself, if it is one)."""
        services = await self._client.list(resources.SERVICES, target.namespace or None)
        if target.kind is kinds.SERVICE:
            chosen = [s for s in services if not target.name or s["metadata"]["name"] == target.name]
        else:
            pods = self.pods_of(target)
            chosen = [s for s in services if any(_selects(s, pod) for pod in pods)]
        known = {
            (item["metadata"]["namespace"], item["metadata"]["name"]): item
            for item in await self._optional(resources.SERVICE_PROFILES, "")
        }
        return [self._profile(service, known, client_namespace) for service in chosen]

    def _profile(self, service: Object, known: Mapping[Key, Object], client_namespace: str) -> Profile:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        fqdn = f"{name}.{namespace}.svc.{self._domain}"
        profile = known.get((client_namespace, fqdn)) or known.get((namespace, fqdn)) or {}
        routes = [route["name"] for route in (profile.get("spec") or {}).get("routes") or [] if route.get("name")]
        return Profile(fqdn, name, namespace, tuple(dict.fromkeys(routes)))

    def pods_of(self, target: Target) -> list[Pod]:
        groups = self._pods.by_workload(target.kind.name, target.namespace)
        if target.name:
            namespace = "" if target.kind is kinds.NAMESPACE else target.namespace
            return groups.get((namespace, target.name), [])
        return [pod for pods in groups.values() for pod in pods]

    async def _optional(self, resource: Resource, namespace: str) -> list[Object]:
        try:
            return await self._client.list(resource, namespace or None)
        except NotFound:
            return []


def leaves_from_split(split: Object) -> list[Leaf]:
    metadata, spec = split["metadata"], split.get("spec") or {}
    apex = (spec.get("service") or "").partition(".")[0]
    return [
        Leaf(
            metadata["namespace"], apex, backend.get("service") or "", str(backend.get("weight", "")), metadata["name"]
        )
        for backend in spec.get("backends") or []
    ]


def leaves_from_profile(profile: Object, domain: str) -> list[Leaf]:
    name: str = profile["metadata"]["name"]
    service, _, rest = name.removesuffix(f".svc.{domain}").partition(".")
    overrides: list[Any] = (profile.get("spec") or {}).get("dstOverrides") or []
    return [
        Leaf(
            rest or profile["metadata"]["namespace"],
            service,
            (override.get("authority") or "").partition(".")[0],
            str(override.get("weight", "")),
        )
        for override in overrides
    ]


def _selects(service: Object, pod: Pod) -> bool:
    selector = (service.get("spec") or {}).get("selector") or {}
    same_namespace = service["metadata"]["namespace"] == pod.namespace
    return bool(selector) and same_namespace and selector.items() <= pod.labels.items()
