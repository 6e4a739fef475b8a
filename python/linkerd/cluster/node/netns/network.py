"""The pod network: a routed veth pair per pod, no bridge, so that conntrack sees pod-to-pod traffic.

Each pod has one /32 address and a default route to 169.254.1.1, which is nobody's real address: both ends of the
cable know each other by permanent neighbours. The node has a /32 route per pod. There is no way out of the cluster.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

from linkerd.cluster.node import syscalls
from linkerd.cluster.node.netns.netlink import Netlink

GATEWAY = IPv4Address("169.254.1.1")
POD_SYSCTLS = {
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
    "net.ipv6.conf.default.disable_ipv6": "1",
}
"""Set in each pod's network namespace: as containerd sets them (low ports and ping for any user), single-stack."""

_NODE_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv6/conf/default/disable_ipv6": "1",
}
_NODE_MAC = bytes.fromhex("eeeeeeeeeeee")
_MTU = 1500
"""As on a real network. Large sends stay whole on a veth all the same (segmentation offload)."""

T = TypeVar("T")


@dataclass
class Namespace:
    """The network namespace the agent itself lives in, to come back to after a visit to another one."""

    own: int

    @classmethod
    def current(cls) -> Namespace:
        """That of this thread."""
        return cls(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    @contextmanager
    def visiting(self, other: int) -> Iterator[None]:
        """Be in another network namespace: what is opened meanwhile belongs to it. Never `await` inside."""
        syscalls.setns(other, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(self.own, syscalls.CLONE_NEWNET)

    def call(self, other: int, function: Callable[[], T]) -> T:
        """`function()` there."""
        with self.visiting(other):
            return function()


def prepare_node(node_ip: IPv4Address) -> None:
    """Forwarding, and the gateway's address on lo, so that it answers to ping and traceroute."""
    for name, value in _NODE_SYSCTLS.items():
        path = Path("/proc/sys") / name
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)
    with Netlink.open() as netlink:
        loopback = socket.if_nametoindex("lo")
        netlink.set_up(loopback)
        for address in (node_ip, GATEWAY):
            netlink.add_address(loopback, address)


def interface_name(address: IPv4Address) -> str:
    """The node's end of a pod's cable: `veth` and the address in hex, which tells them apart when looking."""
    return f"veth{address.packed.hex()}"


def connect_pod(namespace: Namespace, pod_ns: int, address: IPv4Address, node_ip: IPv4Address) -> None:
    """Make the cable of one pod and the routes at both ends."""
    name = interface_name(address)
    pod_mac = b"\x0a\x58" + address.packed
    with Netlink.open() as netlink:
        if _exists(name):
            # Of a pod that was killed a moment ago: the kernel takes namespaces down in the background.
            netlink.delete_link(name)
        netlink.add_veth(name, _NODE_MAC, "eth0", pod_mac, pod_ns, _MTU)
        near = socket.if_nametoindex(name)
        netlink.set_up(near)
        with namespace.visiting(pod_ns):
            _configure_pod(address)
        netlink.add_neighbour(near, address, pod_mac)
        netlink.add_route(IPv4Network(address), near, source=node_ip)


def _configure_pod(address: IPv4Address) -> None:
    with Netlink.open() as netlink:
        netlink.set_up(socket.if_nametoindex("lo"))
        index = socket.if_nametoindex("eth0")
        netlink.add_address(index, address)
        netlink.set_up(index)
        netlink.add_neighbour(index, GATEWAY, _NODE_MAC)
        netlink.add_route(IPv4Network(GATEWAY), index)
        netlink.add_route(IPv4Network("0.0.0.0/0"), index, gateway=GATEWAY)


def disconnect_pod(address: IPv4Address) -> None:
    """Remove the cable; the routes go with it. One that is gone already (its namespace ended first) is fine."""
    with Netlink.open() as netlink:
        netlink.delete_link(interface_name(address))


def _exists(name: str) -> bool:
    return any(name == known for _, known in socket.if_nameindex())


class AddressesExhausted(RuntimeError):
    """The node's pod network has no free address."""


class Addresses:
    """Which pod has which address of the node's range. Handed out round-robin, so that an address rests after use."""

    def __init__(self, network: IPv4Network) -> None:
        self.network = network
        self._taken: dict[IPv4Address, str] = {}
        self._next = 1

    def take(self, uid: str) -> IPv4Address:
        """The next free address. Raises AddressesExhausted."""
        usable = self.network.num_addresses - 2
        for step in range(usable):
            offset = (self._next - 1 + step) % usable + 1
            address = self.network[offset]
            if address not in self._taken:
                self._next = offset + 1
                self._taken[address] = uid
                return address
        raise AddressesExhausted(f"all {usable} addresses of {self.network} are in use")

    def release(self, address: IPv4Address) -> None:
        """Give it back."""
        self._taken.pop(address, None)
