"""Policy against a real API server, asked as a proxy asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import grpc
import grpc.aio
import pytest
from linkerd.core.networks import parse_networks
from linkerd.core.ports import parse_port_set
from linkerd.k8s.client import Client
from linkerd.k8s.resources import (
    AUTHORIZATION_POLICIES,
    HTTP_ROUTES,
    MESH_TLS_AUTHENTICATIONS,
    PODS,
    SERVERS,
    SERVICES,
)
from linkerd.kit.rpc import serve_rpc
from linkerd.policy.index import Index, Settings, Source
from linkerd.policy.reporting import StatusWriter
from linkerd.policy.service import PolicyService
from linkerd.policy.watching import ClusterWatch
from linkerd.proto.inbound_pb2 import PortSpec
from linkerd.proto.inbound_pb2_grpc import InboundServerPoliciesStub
from linkerd.proto.net_pb2 import IPAddress, TcpAddress
from linkerd.proto.outbound_pb2 import TrafficSpec
from linkerd.proto.outbound_pb2_grpc import OutboundPoliciesStub
from support.destination_objects import create_pod, create_service
from support.watches import CUT_OFF, running

pytestmark = CUT_OFF


@asynccontextmanager
async def policy(client: Client) -> AsyncIterator[grpc.aio.Channel]:
    settings = Settings(cluster_networks=parse_networks("10.0.0.0/8"), opaque_ports=parse_port_set("3306"))
    index = Index(settings)
    watch = ClusterWatch(client, index)
    service = PolicyService(index, watch.synced)
    statuses = StatusWriter(client, index, watch.synced)

    def touch(sources: set[Source]) -> None:
        service.touch(sources)
        statuses.touch(sources)

    async with (
        running((*watch.tasks(touch), statuses.run())),
        serve_rpc("127.0.0.1:0", service.handlers(), grace=0) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield channel


async def read(stream):
    return await asyncio.wait_for(stream.read(), 10)


def watch_port(channel, namespace: str, pod: str, port: int):
    workload = f'{{"ns":"{namespace}","pod":"{pod}"}}'
    return InboundServerPoliciesStub(channel).WatchPort(PortSpec(workload=workload, port=port))


def traffic(namespace: str, ip: str, port: int) -> TrafficSpec:
    address = TcpAddress(ip=IPAddress(ipv4=int(ip_address(ip))), port=port)
    return TrafficSpec(source_workload=f'{{"ns":"{namespace}","pod":"client"}}', addr=address)


async def test_a_port_without_server_has_the_default_policy(client: Client, namespace: str):
    await create_pod(client, namespace, "web-1", "10.4.0.1")
    async with policy(client) as channel:
        server = await read(watch_port(channel, namespace, "web-1", 8080))
        assert dict(server.labels) == {"group": "", "kind": "default", "name": "all-unauthenticated"}
        assert server.protocol.WhichOneof("kind") == "detect"
        (authz,) = server.authorizations
        assert authz.metadata.default == "all-unauthenticated"
        assert authz.authentication.HasField("unauthenticated")
        assert {n.net.prefix_len for n in authz.networks} == {0}
        (route,) = server.protocol.detect.http_routes
        assert route.metadata.default == "default"


async def test_an_unknown_pod_is_not_found_and_a_bad_port_is_invalid(client: Client, namespace: str):
    async with policy(client) as channel:
        for pod_port, code in ((80, grpc.StatusCode.NOT_FOUND), (70000, grpc.StatusCode.INVALID_ARGUMENT)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await read(watch_port(channel, namespace, "nobody", pod_port))
            assert refused.value.code() == code


async def test_servers_and_authorizations_reach_a_watching_proxy(client: Client, namespace: str):
    await create_pod(client, namespace, "web-1", "10.4.0.2")
    async with policy(client) as channel:
        stream = watch_port(channel, namespace, "web-1", 8080)
        assert (await read(stream)).labels["kind"] == "default"
        spec = {"podSelector": {"matchLabels": {"app": "web-1"}}, "port": 8080, "proxyProtocol": "HTTP/1"}
        await client.create(SERVERS, {"metadata": {"name": "web"}, "spec": spec}, namespace)
        server = await read(stream)
        assert dict(server.labels) == {"group": "policy.linkerd.io", "kind": "server", "name": "web"}
        assert server.protocol.WhichOneof("kind") == "http1"
        assert not server.authorizations
        authn = {"metadata": {"name": "friends"}, "spec": {"identities": ["*.friends.example"]}}
        await client.create(MESH_TLS_AUTHENTICATIONS, authn, namespace)
        refs = [{"group": "policy.linkerd.io", "kind": "MeshTLSAuthentication", "name": "friends"}]
        target = {"group": "policy.linkerd.io", "kind": "Server", "name": "web"}
        spec = {"targetRef": target, "requiredAuthenticationRefs": refs}
        await client.create(AUTHORIZATION_POLICIES, {"metadata": {"name": "friends"}, "spec": spec}, namespace)
        (authz,) = (await read(stream)).authorizations
        assert authz.metadata.resource.kind == "authorizationpolicy"
        (suffix,) = authz.authentication.meshTLS.identities.suffixes
        assert list(suffix.parts) == ["friends", "example"]
        await client.delete(SERVERS, "web", namespace)
        assert (await read(stream)).labels["kind"] == "default"


async def test_a_stream_ends_when_its_pod_is_gone(client: Client, namespace: str):
    await create_pod(client, namespace, "web-1", "10.4.0.3")
    async with policy(client) as channel:
        stream = watch_port(channel, namespace, "web-1", 8080)
        await read(stream)
        await client.delete(PODS, "web-1", namespace, grace_period_seconds=0)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await read(stream)
        assert ended.value.code() == grpc.StatusCode.NOT_FOUND


async def test_the_policy_of_a_service_names_its_balancer(client: Client, namespace: str):
    service = await create_service(client, namespace, "web")
    async with policy(client) as channel:
        stream = OutboundPoliciesStub(channel).Watch(traffic(namespace, service["spec"]["clusterIP"], 80))
        found = await read(stream)
        assert found.metadata.resource.name == "web"
        assert found.metadata.resource.port == 80
        for protocol in (found.protocol.detect.http1, found.protocol.detect.http2):
            (route,) = protocol.routes
            (backend,) = route.rules[0].backends.first_available.backends
            path = backend.backend.balancer.discovery.dst.path
            assert path == f"web.{namespace}.svc.cluster.local:80"
        assert found.protocol.detect.opaque.routes[0].metadata.default == "opaq"


async def test_routes_and_annotations_shape_the_policy_of_a_service(client: Client, namespace: str):
    service = await create_service(client, namespace, "web")
    await create_service(client, namespace, "canary")
    async with policy(client) as channel:
        stream = OutboundPoliciesStub(channel).Watch(traffic(namespace, service["spec"]["clusterIP"], 80))
        await read(stream)
        annotations = {
            "balancer.linkerd.io/failure-accrual": "consecutive",
            "retry.linkerd.io/http": "5xx",
            "timeout.linkerd.io/request": "3s",
        }
        await client.patch(SERVICES, "web", {"metadata": {"annotations": annotations}}, namespace)
        http1 = (await read(stream)).protocol.detect.http1
        assert http1.failure_accrual.consecutive_failures.max_failures == 7
        rule = http1.routes[0].rules[0]
        assert rule.timeouts.request.seconds == 3
        assert [(r.start, r.end) for r in rule.retry.conditions.status_ranges] == [(500, 599)]
        backends = [{"name": "web", "port": 80, "weight": 9}, {"name": "canary", "port": 80, "weight": 1}]
        parent = {"group": "core", "kind": "Service", "name": "web", "port": 80}
        spec = {"parentRefs": [parent], "rules": [{"backendRefs": backends}]}
        await client.create(HTTP_ROUTES, {"metadata": {"name": "split"}, "spec": spec}, namespace)
        (route,) = (await read(stream)).protocol.detect.http1.routes
        assert route.metadata.resource.name == "split"
        weights = [b.weight for b in route.rules[0].backends.random_available.backends]
        assert weights == [9, 1]


async def test_what_no_service_declares_is_forbidden_passed_on_or_unknown(client: Client, namespace: str):
    service = await create_service(client, namespace, "web")
    async with policy(client) as channel:
        stub = OutboundPoliciesStub(channel)
        undeclared = await stub.Get(traffic(namespace, service["spec"]["clusterIP"], 81))
        assert undeclared.protocol.opaque.routes[0].metadata.default == "undefined-port"
        assert undeclared.protocol.opaque.routes[0].rules[0].filters[0].HasField("forbidden")
        outside = await stub.Get(traffic(namespace, "93.184.216.34", 443))
        assert outside.metadata.default == "egress-fallback"
        forward = outside.protocol.detect.opaque.routes[0].rules[0].backends.first_available.backends[0]
        assert forward.backend.forward.addr.port == 443
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.Get(traffic(namespace, "10.4.9.9", 80))
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


async def conditions_of(client: Client, namespace: str, name: str, *, until: str) -> dict[str, str]:
    """The reasons by type of a route's only parent, once the given reason is among them."""
    async with asyncio.timeout(10):
        while True:
            route = await client.get(HTTP_ROUTES, name, namespace)
            parents = (route.get("status") or {}).get("parents") or [{"conditions": []}]
            reasons = {c["type"]: c["reason"] for c in parents[0]["conditions"]}
            if until in reasons.values():
                return reasons
            await asyncio.sleep(0.05)


async def test_routes_are_told_what_becomes_of_them(client: Client, namespace: str):
    parent = {"group": "core", "kind": "Service", "name": "web", "port": 80}
    spec = {"parentRefs": [parent], "rules": [{"backendRefs": [{"name": "canary", "port": 80}]}]}
    async with policy(client):
        await client.create(HTTP_ROUTES, {"metadata": {"name": "split"}, "spec": spec}, namespace)
        reasons = await conditions_of(client, namespace, "split", until="NoMatchingParent")
        assert reasons["ResolvedRefs"] == "BackendNotFound"
        await create_service(client, namespace, "web")
        await create_service(client, namespace, "canary")
        reasons = await conditions_of(client, namespace, "split", until="ResolvedRefs")
        assert reasons == {"Accepted": "Accepted", "ResolvedRefs": "ResolvedRefs"}
