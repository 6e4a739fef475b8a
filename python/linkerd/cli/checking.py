"""Puts the categories of `check` and `viz check` together, and runs them for people or programs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import Any

from linkerd import VERSION
from linkerd.checks import certificates, control_plane, data_plane, kubernetes, viz
from linkerd.checks.cluster import Cluster
from linkerd.checks.model import Category, Check, CheckFailure, Outcome, Report
from linkerd.checks.runner import Runner
from linkerd.cli.connections import connections_of
from linkerd.cli.context import Context
from linkerd.cli.errors import UserError
from linkerd.cli.output.check import Printer, as_json
from linkerd.cli.progress import spinning
from linkerd.cli.reaching import VIZ_LABEL, channel
from linkerd.install import crds
from linkerd.k8s.client import Client
from linkerd.k8s.config import ConfigError
from linkerd.k8s.errors import ApiError
from linkerd.k8s.resources import (
    API_SERVICES,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CUSTOM_RESOURCE_DEFINITIONS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    VALIDATING_WEBHOOKS,
    Resource,
)

Object = dict[str, Any]

_CLUSTER_KINDS: dict[str, Resource] = {
    resource.kind: resource
    for resource in (
        API_SERVICES,
        CLUSTER_ROLE_BINDINGS,
        CLUSTER_ROLES,
        CUSTOM_RESOURCE_DEFINITIONS,
        MUTATING_WEBHOOKS,
        NAMESPACES,
        VALIDATING_WEBHOOKS,
    )
}

Categories = Callable[[Cluster, Client], Any]
"""A coroutine function that lists the categories to run."""


async def run(ctx: Context, categories: Categories, *, wait: float, output: str) -> int:
    """The exit code: 0 when nothing failed; warnings are no failure."""
    try:
        ctx.config()
    except ConfigError as error:
        return await _run(ctx, [_unusable(error)], None, wait, output)
    async with ctx.client() as client:
        cluster = Cluster(client, ctx.linkerd_namespace)
        first = kubernetes.reachable(cluster)
        try:
            rest = await categories(cluster, client)
        except (ApiError, OSError):
            rest = []  # the first category will say why, in its own words
        return await _run(ctx, [*first, *rest], cluster, wait, output)


def _unusable(error: ConfigError) -> Category:
    async def fail() -> None:
        raise CheckFailure(str(error))

    hint = "set KUBECONFIG, pass `--kubeconfig`, or start a local cluster with `linkerd cluster start`"
    return Category("kubernetes-api", [Check("can initialize the client", "k8s-api", fail, hint)])


async def wait_control_plane(cluster: Cluster, wait: float) -> None:
    """Until the control plane is there and ready, `wait` seconds at the most. Raises UserError."""
    told = False

    def waiting(_: str) -> None:
        nonlocal told
        if not told:
            print("Waiting for control plane to become available", file=sys.stderr)
        told = True

    runner = Runner(asyncio.get_running_loop().time() + wait, cluster.forget, waiting)
    async for result in runner.run([control_plane.existence(cluster)]):
        if result.outcome is Outcome.FAILED:
            raise UserError(f"Cannot find Linkerd: {result.error}", "validate the install with `linkerd check`")


async def _run(ctx: Context, categories: Iterable[Category], cluster: Cluster | None, wait: float, output: str) -> int:
    report, printer = Report(), Printer(short=output == "short")
    async with spinning("") as spinner:

        def waiting(message: str) -> None:
            spinner.message = message

        forget = cluster.forget if cluster is not None else lambda: None
        runner = Runner(asyncio.get_running_loop().time() + wait, forget, waiting)
        async for result in runner.run(categories):
            report.results.append(result)
            if output != "json":
                spinner.clear()
                printer.add(result)
    if output == "json":
        sys.stdout.write(as_json(report))
    else:
        printer.end(report.success)
    return 0 if report.success else 1


# Categories


async def core_categories(cluster: Cluster, client: Client, *, proxy: bool, namespace: str | None) -> list[Category]:
    """Those of `check` and `check --proxy`, without extensions."""
    wanted = crds.VERSIONS
    found = [
        control_plane.existence(cluster),
        control_plane.configuration(cluster, wanted),
        certificates.identity(cluster),
        certificates.webhooks(cluster),
    ]
    if proxy:
        found.append(certificates.data_plane(cluster, namespace))
    found += [
        control_plane.versions(cluster, VERSION),
        control_plane.proxies(cluster, VERSION),
        data_plane.mutual_tls(cluster, namespace, lambda pods: connections_of(client, pods)),
    ]
    if proxy:
        found.append(data_plane.data_plane(cluster, namespace, VERSION))
    found.append(control_plane.high_availability(cluster))
    if not proxy:
        found.append(control_plane.extensions(cluster))
    return found


def definition_categories(cluster: Cluster) -> list[Category]:
    check = control_plane.definitions(cluster, crds.VERSIONS, retry=True)
    return [Category("linkerd-crd", [check])]


def before_installation(cluster: Cluster, documents: Iterable[Object]) -> list[Category]:
    """`documents`: what would be installed."""
    objects = [
        (_CLUSTER_KINDS[document["kind"]], document) for document in documents if document["kind"] in _CLUSTER_KINDS
    ]
    return [kubernetes.before_installation(cluster, objects)]


async def viz_categories(
    ctx: Context, cluster: Cluster, client: Client, *, proxy: bool, namespace: str | None, required: bool
) -> list[Category]:
    """Those of the viz extension; none when it is not installed, unless `required`."""
    viz_namespace = ctx.viz_namespace
    if not viz_namespace:
        labelled = await cluster.list(NAMESPACES, None, VIZ_LABEL)
        viz_namespace = labelled[0]["metadata"]["name"] if labelled else ""
    if not viz_namespace and not required:
        return []

    async def self_check() -> list[str]:
        return await _self_check(ctx, client, viz_namespace)

    async def scraped(namespace: str | None) -> set[str]:
        return await _scraped_pods(ctx, client, viz_namespace, namespace)

    found = [viz.viz(cluster, viz_namespace, VERSION, self_check, scraped)]
    if proxy:
        found.append(viz.data_plane(cluster, namespace, scraped))
    return found


async def _self_check(ctx: Context, client: Client, viz_namespace: str) -> list[str]:
    from linkerd.proto import viz_pb2

    answer = await _ask(ctx, client, viz_namespace, "SelfCheck", viz_pb2.SelfCheckRequest())
    return [
        f"[{result.SubsystemName}] {result.CheckDescription}: {result.FriendlyMessageToUser}"
        for result in answer.results
        if result.Status != viz_pb2.OK
    ]


async def _scraped_pods(ctx: Context, client: Client, viz_namespace: str, namespace: str | None) -> set[str]:
    from linkerd.proto import viz_pb2

    resource = viz_pb2.Resource(namespace=namespace or "")
    request = viz_pb2.ListPodsRequest(selector=viz_pb2.ResourceSelection(resource=resource))
    answer = await _ask(ctx, client, viz_namespace, "ListPods", request)
    return {pod.name for pod in answer.pods if pod.added}


async def _ask(ctx: Context, client: Client, viz_namespace: str, method: str, request: Any) -> Any:
    """A call of metrics-api. Raises CheckFailure."""
    import grpc

    from linkerd.proto.viz_pb2_grpc import ApiStub

    try:
        async with channel(ctx, client, viz_namespace, "metrics-api", 8085) as opened:
            return await getattr(ApiStub(opened), method)(request)
    except grpc.aio.AioRpcError as error:
        raise CheckFailure(f"metrics-api: {error.details()}") from None
    except UserError as error:
        raise CheckFailure(error.message) from None
