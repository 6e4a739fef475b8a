"""Finds what an installation consists of, by its labels, so that it can be deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from linkerd.cli.context import Context
from linkerd.k8s.client import Client
from linkerd.k8s.errors import NotFound
from linkerd.k8s.resources import (
    API_SERVICES,
    AUTHORIZATION_POLICIES,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CRON_JOBS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    HTTP_ROUTES,
    JOBS,
    MESH_TLS_AUTHENTICATIONS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NETWORK_AUTHENTICATIONS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVER_AUTHORIZATIONS,
    SERVERS,
    SERVICE_ACCOUNTS,
    SERVICE_PROFILES,
    SERVICES,
    STATEFUL_SETS,
    VALIDATING_WEBHOOKS,
    Resource,
)

Object = dict[str, Any]

_KINDS = (
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    ROLES,
    ROLE_BINDINGS,
    CUSTOM_RESOURCE_DEFINITIONS,
    API_SERVICES,
    MUTATING_WEBHOOKS,
    VALIDATING_WEBHOOKS,
    NAMESPACES,
)
"""In the order of deletion: what calls into the namespace goes before it. The rest goes with the namespace."""

_PRUNED = (
    CONFIG_MAPS,
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    MESH_TLS_AUTHENTICATIONS,
    NETWORK_AUTHENTICATIONS,
    SECRETS,
    SERVICES,
    SERVICE_PROFILES,
    STATEFUL_SETS,
    ROLES,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
    POD_DISRUPTION_BUDGETS,
    SERVERS,
    SERVER_AUTHORIZATIONS,
    AUTHORIZATION_POLICIES,
    HTTP_ROUTES,
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    API_SERVICES,
    MUTATING_WEBHOOKS,
    VALIDATING_WEBHOOKS,
    CUSTOM_RESOURCE_DEFINITIONS,
)
"""The kinds that an installation makes, but for its namespace."""

_VIZ = "linkerd.io/extension in (viz,linkerd-viz)"


async def control_plane_objects(ctx: Context) -> list[Object]:
    async with ctx.client() as client:
        return await _stubs(client, _KINDS, f"linkerd.io/control-plane-ns={ctx.linkerd_namespace}")


async def stale_control_plane_objects(ctx: Context, rendered: Iterable[Object]) -> list[Object]:
    """What is labelled as the control plane's, and is not among what an upgrade would apply."""
    async with ctx.client() as client:
        found = await _stubs(client, _PRUNED, f"linkerd.io/control-plane-ns={ctx.linkerd_namespace}")
    return stale(found, rendered)


async def stale_viz_objects(ctx: Context, rendered: Iterable[Object]) -> list[Object]:
    async with ctx.client() as client:
        return stale(await _stubs(client, _PRUNED, _VIZ), rendered)


def stale(found: Iterable[Object], rendered: Iterable[Object]) -> list[Object]:
    """Those found that are not rendered. An object is known by its group, kind, namespace and name: the version in
    which it was applied says nothing."""
    wanted = {_key(obj) for obj in rendered}
    return [obj for obj in found if _key(obj) not in wanted]


def _key(obj: Object) -> tuple[str, str, str, str]:
    metadata = obj["metadata"]
    group = obj["apiVersion"].rpartition("/")[0]
    return group, obj["kind"], metadata.get("namespace") or "", metadata["name"]


async def viz_objects(ctx: Context) -> list[Object]:
    async with ctx.client() as client:
        policies = (AUTHORIZATION_POLICIES, HTTP_ROUTES, SERVERS)
        return await _stubs(client, (*_KINDS, *policies), _VIZ)


async def _stubs(client: Client, kinds: tuple[Resource, ...], selector: str) -> list[Object]:
    """What names each object, and no more."""
    found: list[Object] = []
    for resource in kinds:
        try:
            items = await client.list(resource, label_selector=selector)
        except NotFound:
            continue  # the kind itself is not there any more
        for item in items:
            metadata = {key: item["metadata"][key] for key in ("name", "namespace") if item["metadata"].get(key)}
            found.append({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata})
    return found


async def obstacles(ctx: Context) -> list[str]:
    """What an uninstallation would leave broken: extensions, and pods whose proxies would lose the control plane."""
    async with ctx.client() as client:
        extensions = await client.list(NAMESPACES, label_selector="linkerd.io/extension")
        pods = await client.list(PODS, label_selector=f"linkerd.io/control-plane-ns={ctx.linkerd_namespace}")
    own = {ctx.linkerd_namespace, *(item["metadata"]["name"] for item in extensions)}
    meshed = [pod["metadata"] for pod in pods if pod["metadata"]["namespace"] not in own]
    lines: list[str] = []
    if extensions:
        lines.append("Please uninstall the following extensions before uninstalling the control-plane:")
        lines += [f"  * {item['metadata']['labels']['linkerd.io/extension']}" for item in extensions]
    if meshed:
        lines.append("Please uninject the following pods before uninstalling the control-plane:")
        lines += [f"  * {metadata['namespace']}/{metadata['name']}" for metadata in meshed]
    return lines
