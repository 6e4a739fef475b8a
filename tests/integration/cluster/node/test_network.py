"""Two pods and a node: the test's process stands in a network namespace of its own for the node."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from linkerd.cluster.node import syscalls
from linkerd.cluster.node.netns import network

from .conftest import Rig

NODE = IPv4Address("192.168.127.1")


@pytest.fixture
def node_namespace() -> Iterator[network.Namespace]:
    """The thread is in a new network namespace while the test runs."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    syscalls.unshare(syscalls.CLONE_NEWNET)
    network.prepare_node(NODE)
    yield network.Namespace.current()
    syscalls.setns(before, syscalls.CLONE_NEWNET)
    os.close(before)


@pytest.fixture
async def pods(node_namespace: network.Namespace, rig: Rig) -> dict[str, int]:
    """The network namespaces of two connected pods, by address."""
    found = {}
    for number in (5, 6):
        address = IPv4Address(f"10.244.0.{number}")
        sandbox = await rig.spawner.make_sandbox("pod", network=True, sysctls=network.POD_SYSCTLS)
        network.connect_pod(node_namespace, sandbox.net, address, NODE)
        found[str(address)] = sandbox.net
    return found


async def source_seen(listener: socket.socket, client: socket.socket, address: tuple[str, int]) -> str:
    """The peer address that the listening side sees."""
    loop = asyncio.get_running_loop()
    for sock in (listener, client):
        sock.setblocking(False)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        accepting = group.create_task(loop.sock_accept(listener))
        await loop.sock_connect(client, address)
    accepted, peer = accepting.result()
    accepted.close()
    return str(peer[0])


def listening() -> socket.socket:
    return socket.create_server(("0.0.0.0", 8080))


async def test_pods_reach_each_other_with_their_own_addresses(
    node_namespace: network.Namespace, pods: dict[str, int]
) -> None:
    with (
        node_namespace.call(pods["10.244.0.5"], listening) as listener,
        node_namespace.call(pods["10.244.0.6"], socket.socket) as client,
    ):
        assert await source_seen(listener, client, ("10.244.0.5", 8080)) == "10.244.0.6"


async def test_the_node_reaches_pods_as_the_node(node_namespace: network.Namespace, pods: dict[str, int]) -> None:
    with node_namespace.call(pods["10.244.0.5"], listening) as listener, socket.socket() as client:
        assert await source_seen(listener, client, ("10.244.0.5", 8080)) == str(NODE)


async def test_a_pod_reaches_itself_by_its_address(node_namespace: network.Namespace, pods: dict[str, int]) -> None:
    own = pods["10.244.0.5"]
    with node_namespace.call(own, listening) as listener, node_namespace.call(own, socket.socket) as client:
        assert await source_seen(listener, client, ("10.244.0.5", 8080)) == "10.244.0.5"


async def test_a_disconnected_pod_leaves_nothing(node_namespace: network.Namespace, pods: dict[str, int]) -> None:
    address = IPv4Address("10.244.0.5")
    network.disconnect_pod(address)
    network.disconnect_pod(address)
    names = [name for _, name in socket.if_nameindex()]
    assert network.interface_name(address) not in names
    assert network.interface_name(IPv4Address("10.244.0.6")) in names
