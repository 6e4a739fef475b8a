"""IP networks with exceptions, as policies and flags write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

IPNetwork = IPv4Network | IPv6Network
IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Network:
    """All addresses of `net` but those in `excepted`."""

    net: IPNetwork
    excepted: tuple[IPNetwork, ...] = ()

    def __contains__(self, ip: IPAddress) -> bool:
        return ip in self.net and not any(ip in excepted for excepted in self.excepted)

    def overlaps(self, other: Network) -> bool:
        """Whether some address is in both, as far as no exception covers all that they share."""
        if self.net.version != other.net.version or not self.net.overlaps(other.net):
            return False
        shared = max(self.net, other.net, key=lambda net: net.prefixlen)
        return not any(shared.subnet_of(excepted) for excepted in self.excepted + other.excepted)  # type: ignore[arg-type]


EVERYWHERE = (Network(ip_network("0.0.0.0/0")), Network(ip_network("::/0")))


def parse_cidr(text: str) -> IPNetwork:
    """`10.0.0.0/8`, `fd00::/8`, or one address. Raises ValueError."""
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"`{text}` is not a network: address/prefix length is wanted, as in `10.0.0.0/8`") from None


def parse_networks(text: str) -> tuple[Network, ...]:
    """Comma-separated. Raises ValueError."""
    return tuple(Network(parse_cidr(part)) for part in text.split(",") if part.strip())


def parse_network(entry: Mapping[str, Any]) -> Network:
    """`cidr` and `except` of a policy. Raises ValueError, also when an exception does not lie inside or covers all."""
    net = parse_cidr(entry["cidr"])
    excepted = tuple(parse_cidr(text) for text in entry.get("except") or [])
    for inner in excepted:
        if inner.version != net.version or not inner.subnet_of(net):  # type: ignore[arg-type]
            raise ValueError(f"except `{inner}` does not lie inside `{net}`")
        if inner == net:
            raise ValueError(f"except `{inner}` covers all of `{net}`")
    return Network(net, excepted)


def contains(networks: Iterable[Network], ip: IPAddress) -> bool:
    return any(ip in network for network in networks)
