"""Destination against a real API server, asked as a proxy asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from linkerd.core.ports import parse_port_set
from linkerd.destination.index import Index, Settings
from linkerd.destination.service import DestinationService
from linkerd.destination.watching import ClusterWatch
from linkerd.k8s.client import Client
from linkerd.k8s.resources import PODS, SERVICE_PROFILES, TRAFFIC_SPLITS
from linkerd.kit.rpc import serve_rpc
from linkerd.proto.destination_pb2 import GetDestination
from linkerd.proto.destination_pb2_grpc import DestinationStub
from support.destination_objects import create_pod, create_service, put_slice, set_ready
from support.watches import CUT_OFF, running

pytestmark = CUT_OFF


@asynccontextmanager
async def destination(client: Client, most_streams: int = 5000) -> AsyncIterator[DestinationStub]:
    index = Index(Settings(opaque_ports=parse_port_set("3306")))
    watch = ClusterWatch(client, index)
    service = DestinationService(index, watch.synced, "cluster.local", most_streams=most_streams)
    async with (
        running(watch.tasks(service.touch)),
        serve_rpc("127.0.0.1:0", [service.handler()], grace=0) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield DestinationStub(channel)


def addresses(update) -> list[str]:
    chosen = update.add.addrs if update.WhichOneof("update") == "add" else update.remove.addrs
    numbers = [a.addr.ip.ipv4 if hasattr(a, "addr") else a.ip.ipv4 for a in chosen]
    return [".".join(str(n >> shift & 255) for shift in (24, 16, 8, 0)) for n in numbers]


async def test_the_first_answer_lists_the_endpoints_with_their_identity(client: Client, namespace: str):
    await create_service(client, namespace, "web")
    await create_pod(client, namespace, "web-1", "10.1.0.1")
    await put_slice(client, namespace, "web", {"web-1": "10.1.0.1"})
    async with destination(client) as stub:
        stream = stub.Get(GetDestination(path=f"web.{namespace}.svc.cluster.local:80"))
        update = await asyncio.wait_for(stream.read(), 10)
        assert addresses(update) == ["10.1.0.1"]
        assert dict(update.add.metric_labels) == {"namespace": namespace, "service": "web"}
        endpoint = update.add.addrs[0]
        assert endpoint.addr.port == 8080
        assert endpoint.tls_identity.dns_like_identity.name == (
            f"web.{namespace}.serviceaccount.identity.linkerd.cluster.local"
        )
        assert endpoint.protocol_hint.WhichOneof("protocol") == "h2"
        assert endpoint.protocol_hint.opaque_transport.inbound_port == 4143
        assert dict(endpoint.metric_labels) == {
            "pod": "web-1",
            "deployment": "web",
            "serviceaccount": "web",
            "control_plane_ns": "linkerd",
            "pod_template_hash": "abc12",
            "zone_locality": "unknown",
        }


async def test_a_service_without_endpoints_is_answered_at_once(client: Client, namespace: str):
    await create_service(client, namespace, "web")
    async with destination(client) as stub:
        stream = stub.Get(GetDestination(path=f"web.{namespace}.svc.cluster.local:80"))
        update = await asyncio.wait_for(stream.read(), 10)
        assert update.no_endpoints.exists


async def test_changes_reach_a_subscriber_in_order_and_within_a_second(client: Client, namespace: str):
    await create_service(client, namespace, "web")
    for number in (1, 2):
        await create_pod(client, namespace, f"web-{number}", f"10.2.0.{number}")
    await put_slice(client, namespace, "web", {"web-1": "10.2.0.1", "web-2": "10.2.0.2"})
    async with destination(client) as stub:
        stream = stub.Get(GetDestination(path=f"web.{namespace}.svc.cluster.local:80"))
        assert sorted(addresses(await asyncio.wait_for(stream.read(), 10))) == ["10.2.0.1", "10.2.0.2"]
        await set_ready(client, namespace, "web-1", "10.2.0.1", ready=False)
        began = time.monotonic()
        update = await asyncio.wait_for(stream.read(), 5)
        assert (update.WhichOneof("update"), addresses(update)) == ("remove", ["10.2.0.1"])
        assert time.monotonic() - began < 1
        await set_ready(client, namespace, "web-1", "10.2.0.1")
        update = await asyncio.wait_for(stream.read(), 5)
        assert (update.WhichOneof("update"), addresses(update)) == ("add", ["10.2.0.1"])
        await client.delete(PODS, "web-2", namespace, grace_period_seconds=30)
        update = await asyncio.wait_for(stream.read(), 5)
        assert (update.WhichOneof("update"), addresses(update)) == ("remove", ["10.2.0.2"])


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("10.1.2.3:80", grpc.StatusCode.INVALID_ARGUMENT),
        ("example.com:80", grpc.StatusCode.INVALID_ARGUMENT),
        ("web.nowhere.svc.cluster.local:x", grpc.StatusCode.INVALID_ARGUMENT),
        ("web.nowhere.svc.cluster.local:80", grpc.StatusCode.NOT_FOUND),
    ],
)
async def test_what_is_no_service_is_refused(client: Client, path: str, code: grpc.StatusCode):
    async with destination(client) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Get(GetDestination(path=path)).read()
        assert refused.value.code() == code


async def test_the_profile_of_a_cluster_ip_follows_profile_and_split(client: Client, namespace: str):
    service = await create_service(client, namespace, "web")
    ip = service["spec"]["clusterIP"]
    fqn = f"web.{namespace}.svc.cluster.local"
    async with destination(client) as stub:
        stream = stub.GetProfile(GetDestination(path=f"{ip}:80"))
        profile = await asyncio.wait_for(stream.read(), 10)
        assert profile.fully_qualified_name == fqn
        assert profile.parent_ref.resource.name == "web"
        assert not profile.routes
        routes = [{"name": "GET /x", "condition": {"method": "GET", "pathRegex": "/x"}}]
        await client.create(SERVICE_PROFILES, {"metadata": {"name": fqn}, "spec": {"routes": routes}}, namespace)
        profile = await asyncio.wait_for(stream.read(), 5)
        assert profile.routes[0].metrics_labels["route"] == "GET /x"
        backends = [{"service": "web-stable", "weight": 90}, {"service": "web-canary", "weight": 10}]
        split = {"metadata": {"name": "web"}, "spec": {"service": "web", "backends": backends}}
        await client.create(TRAFFIC_SPLITS, split, namespace)
        profile = await asyncio.wait_for(stream.read(), 5)
        assert [(d.authority, d.weight) for d in profile.dst_overrides] == [
            (f"web-stable.{namespace}.svc.cluster.local:80", 900000),
            (f"web-canary.{namespace}.svc.cluster.local:80", 100000),
        ]


async def test_the_profile_of_a_pod_is_one_endpoint(client: Client, namespace: str):
    await create_pod(client, namespace, "web-1", "10.3.0.1")
    async with destination(client) as stub:
        stream = stub.GetProfile(GetDestination(path="10.3.0.1:8080"))
        profile = await asyncio.wait_for(stream.read(), 10)
        assert profile.endpoint.metric_labels["pod"] == "web-1"
        assert profile.endpoint.metric_labels["namespace"] == namespace
        assert not profile.fully_qualified_name


async def test_a_client_with_too_many_streams_gets_no_more_and_others_are_served(client: Client, namespace: str):
    await create_service(client, namespace, "web")
    path = f"web.{namespace}.svc.cluster.local:80"
    greedy, other = (GetDestination(path=path, context_token=f'{{"ns":"x","pod":"{pod}"}}') for pod in ("a", "b"))
    async with destination(client, most_streams=50) as stub:
        streams = [stub.Get(greedy) for _ in range(200)]
        codes = await asyncio.gather(*(_first_code(stream) for stream in streams))
        assert (codes.count(None), codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED)) == (50, 150)
        assert await _first_code(stub.Get(other)) is None
        for stream in streams:
            stream.cancel()
        # The server hears of it a moment later.
        answers = [await _first_code(stub.Get(greedy)) for _ in range(100)]
        assert None in answers


async def _first_code(stream) -> grpc.StatusCode | None:
    """None once the stream has told something."""
    try:
        await asyncio.wait_for(stream.read(), 10)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


async def test_a_request_of_the_future_is_understood_as_far_as_it_can_be(client: Client, namespace: str):
    """Fields that we do not know, from a proxy newer than we are."""
    await create_service(client, namespace, "web")
    known = GetDestination(path=f"web.{namespace}.svc.cluster.local:80").SerializeToString()
    unknown = b"\xba\x3e\x05hello" + b"\xc0\x3e\x07"  # fields 999 (bytes) and 1000 (a number)
    request = GetDestination.FromString(known + unknown)
    async with destination(client) as stub:
        assert await _first_code(stub.Get(request)) is None
