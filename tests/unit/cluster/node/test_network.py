from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from linkerd.cluster.node.netns.netlink import attribute
from linkerd.cluster.node.netns.network import Addresses, AddressesExhausted, interface_name


def test_addresses_rest_after_use() -> None:
    addresses = Addresses(IPv4Network("10.0.0.0/29"))
    first = addresses.take("a")
    assert first == IPv4Address("10.0.0.1")
    addresses.release(first)
    assert addresses.take("b") == IPv4Address("10.0.0.2")


def test_all_addresses_of_the_network_can_be_had_but_no_more() -> None:
    addresses = Addresses(IPv4Network("10.0.0.0/30"))
    assert {str(addresses.take("a")), str(addresses.take("b"))} == {"10.0.0.1", "10.0.0.2"}
    with pytest.raises(AddressesExhausted, match="all 2 addresses"):
        addresses.take("c")
    addresses.release(IPv4Address("10.0.0.1"))
    assert str(addresses.take("c")) == "10.0.0.1"


def test_interface_names_fit_the_kernel() -> None:
    assert interface_name(IPv4Address("10.244.0.7")) == "veth0af40007"
    assert len(interface_name(IPv4Address("255.255.255.255"))) <= 15


def test_attributes_are_padded_to_four_bytes() -> None:
    assert attribute(3, b"abc") == b"\x07\x00\x03\x00abc\x00"
