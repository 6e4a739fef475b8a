"""Rigs of the viz tests: a real Prometheus over made-up proxies, a real API server with the objects that own them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from linkerd.k8s.client import Client
from linkerd.k8s.resources import DEPLOYMENTS, PODS, REPLICA_SETS, Resource
from linkerd.proto.viz_pb2_grpc import ApiStub
from linkerd.viz.metrics.objects import Objects
from linkerd.viz.metrics.prometheus import Prometheus
from linkerd.viz.metrics.service import MetricsApi
from linkerd.viz.metrics.service import serving as serving_api
from linkerd.viz.metrics.tables import Tables
from linkerd.viz.watching import PodWatch
from support.scraped import PROGRAM, Proxies, Scraped, running_prometheus, serving

MESHED = {"linkerd.io/control-plane-ns": "linkerd"}
WORKLOADS = {"web-1": "web", "web-2": "web", "api-1": "api"}


@pytest.fixture
async def scraped(tmp_path: Path, namespace: str) -> AsyncIterator[Scraped]:
    """Two pods of `web` and one of `api`, meshed and scraped for a moment already."""
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built (`make build`)")
    proxies = Proxies()
    for pod in WORKLOADS:
        proxies.start(pod, time.time() - 3600)
    pods = {pod: {"namespace": namespace, "deployment": deployment} for pod, deployment in WORKLOADS.items()}
    with serving(proxies) as port, running_prometheus(tmp_path, port, pods) as url:
        async with Prometheus(url) as prometheus:
            yield Scraped(proxies, prometheus, url)


@dataclass
class Viz:
    """The metrics API on a port of its own."""

    api: Any
    address: str
    client: Client
    namespace: str


@pytest.fixture
async def viz(scraped: Scraped, client: Client, namespace: str) -> AsyncIterator[Viz]:
    await create_workloads(client, namespace)
    watch = PodWatch(client)
    objects = Objects(client, watch.index, "cluster.local")
    tables = Tables(scraped.prometheus, objects, watch.index)
    api = MetricsApi(client, scraped.prometheus, watch.index, objects, tables, "linkerd")
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        watching = group.create_task(watch.run())
        stack.callback(watching.cancel)
        port = await stack.enter_async_context(serving_api(api, "127.0.0.1:0", grace=0))
        address = f"127.0.0.1:{port}"
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        async with asyncio.timeout(10):
            await watch.wait_synced()
        yield Viz(ApiStub(channel), address, client, namespace)


async def create_workloads(client: Client, namespace: str) -> None:
    """What a Deployment's controllers would make; and `plain`, which is not meshed."""
    for deployment in ("web", "api", "plain"):
        made = await _create_deployment(client, namespace, deployment)
        owner = await _create_owned(client, namespace, made)
        for pod in [p for p, d in WORKLOADS.items() if d == deployment] or [f"{deployment}-1"]:
            labels = {"app": deployment} | (MESHED if deployment != "plain" else {})
            await create_pod(client, namespace, pod, labels, owner)


async def _create_deployment(client: Client, namespace: str, name: str) -> dict[str, Any]:
    spec = {"selector": {"matchLabels": {"app": name}}, "template": _template({"app": name})}
    return await client.create(DEPLOYMENTS, {"metadata": {"name": name}, "spec": spec}, namespace)


async def _create_owned(client: Client, namespace: str, owner: dict[str, Any]) -> dict[str, Any]:
    name = owner["metadata"]["name"]
    spec = {"selector": {"matchLabels": {"app": name}}, "template": _template({"app": name})}
    metadata = {"name": f"{name}-5d9c", "ownerReferences": [reference(owner, DEPLOYMENTS)]}
    return await client.create(REPLICA_SETS, {"metadata": metadata, "spec": spec}, namespace)


async def create_pod(
    client: Client, namespace: str, name: str, labels: dict[str, str], owner: dict[str, Any], ip: str = ""
) -> None:
    metadata = {
        "name": name,
        "labels": labels,
        "annotations": {"viz.linkerd.io/tap-enabled": "true"},
        "ownerReferences": [reference(owner, REPLICA_SETS)],
    }
    await client.create(PODS, {"metadata": metadata, "spec": _template({})["spec"]}, namespace)
    status: dict[str, Any] = {"phase": "Running"} | ({"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {})
    await client.patch(PODS, name, {"status": status}, namespace, subresource="status")


def reference(owner: dict[str, Any], resource: Resource) -> dict[str, Any]:
    metadata = owner["metadata"]
    identity = {"name": metadata["name"], "uid": metadata["uid"], "controller": True}
    return {"apiVersion": resource.api_version, "kind": resource.kind, **identity}


def _template(labels: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "app"}]}}
