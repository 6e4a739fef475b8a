"""What a shell is told when somebody presses tab at a resource: kinds, and names from the cluster.

A completion must be quick and must never fail aloud: without a cluster, or with a slow one, there are just no names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.context import Context

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from linkerd.k8s.resources import Resource as KubernetesResource

_SECONDS = 2.0

KINDS = ("cronjob", "daemonset", "deploy", "job", "namespace", "pod", "replicaset", "rc", "service", "statefulset")
_MORE = ("authorizationpolicy", "httproute", "server", "serverauthorization", "trafficsplit")


class Resource(click.ParamType):
    """`TYPE/NAME`, or `TYPE` and names after it."""

    name = "resource"

    def __init__(self, *, policies: bool = False) -> None:
        self._kinds = (*KINDS, *_MORE) if policies else KINDS

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        kind, slash, name = incomplete.partition("/")
        if slash:
            return _items((f"{kind}/{found}" for found in _names(ctx, kind)), f"{kind}/{name}")
        earlier = ctx.params.get(param.name or "")
        if isinstance(earlier, tuple) and earlier and _kind(earlier[0]) is not None:
            return _items(_names(ctx, earlier[0]), incomplete)
        return _items(self._kinds, incomplete)


class Name(click.ParamType):
    """The name of an object of one kind."""

    name = "name"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return _items(_names(ctx, self._kind), incomplete)


RESOURCE = Resource()
ANY_RESOURCE = Resource(policies=True)
POD = Name("pod")
SERVICE = Name("service")
NAMESPACE = Name("namespace")


def _items(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _kind(text: str) -> Any:
    from linkerd.core.kinds import UnknownKind, parse_kind

    try:
        return parse_kind(text)
    except UnknownKind:
        return None


def _resource(kind: str) -> KubernetesResource | None:
    from linkerd.core import kinds
    from linkerd.k8s import resources
    from linkerd.viz.metrics.objects import RESOURCES

    more = {kinds.TRAFFIC_SPLIT: resources.TRAFFIC_SPLITS, kinds.HTTP_ROUTE: resources.HTTP_ROUTES}
    return (RESOURCES | more).get(_kind(kind))


def _names(ctx: click.Context, kind: str) -> list[str]:
    """Those of the chosen namespace, sorted; none when they cannot be had in time."""
    resource = _resource(kind)
    if resource is None:
        return []
    import asyncio

    state = ctx.ensure_object(Context)
    try:
        return asyncio.run(_listed(state, resource, ctx.params.get("namespace") or ""))
    except Exception:  # noqa: BLE001 - whatever is wrong, a shell that completes is no place to say it
        return []


async def _listed(state: Context, resource: KubernetesResource, namespace: str) -> list[str]:
    import asyncio

    async with asyncio.timeout(_SECONDS), state.client() as client:
        where = state.namespace(namespace) if resource.namespaced else None
        found = await client.list(resource.metadata(), where)
    return sorted(item["metadata"]["name"] for item in found)
