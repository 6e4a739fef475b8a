"""A small rtnetlink: just the messages that a pod's network needs, without a process per `ip` command.

Layouts and numbers: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h. Every request asks for an
acknowledgement, and a refusal is an OSError with the kernel's errno.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Self

_RTM_NEWLINK, _RTM_DELLINK, _RTM_SETLINK = 16, 17, 19
_RTM_NEWADDR, _RTM_NEWROUTE, _RTM_NEWNEIGH = 20, 24, 28
_REQUEST, _ACK, _EXCLUSIVE, _CREATE, _REPLACE = 0x1, 0x4, 0x200, 0x400, 0x100
_NLMSG_ERROR = 2
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80
_IFF_UP = 0x1
_TABLE_MAIN, _PROTOCOL_STATIC, _TYPE_UNICAST = 254, 4, 1
_SCOPE_UNIVERSE, _SCOPE_LINK = 0, 253
_RTNH_F_ONLINK = 0x4


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + b"\0" * (-length % 4)


def _name(kind: int, name: str) -> bytes:
    return attribute(kind, name.encode() + b"\0")


@dataclass
class Netlink:
    """A route socket in the network namespace that was current when it was opened."""

    sock: socket.socket
    _sequence: int = 0

    @classmethod
    def open(cls) -> Self:
        """In the current network namespace."""
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        sock.bind((0, 0))
        return cls(sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def add_veth(self, name: str, mac: bytes, peer: str, peer_mac: bytes, peer_ns: int, mtu: int) -> None:
        """A pair of virtual cables: `name` here, `peer` in the namespace behind the descriptor `peer_ns`."""
        far = (
            _link_header()
            + _name(_IFLA_IFNAME, peer)
            + attribute(_IFLA_ADDRESS, peer_mac)
            + attribute(_IFLA_MTU, struct.pack("=I", mtu))
            + attribute(_IFLA_NET_NS_FD, struct.pack("=I", peer_ns))
        )
        info = _name(_IFLA_INFO_KIND, "veth") + attribute(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, far))
        near = (
            _link_header()
            + _name(_IFLA_IFNAME, name)
            + attribute(_IFLA_ADDRESS, mac)
            + attribute(_IFLA_MTU, struct.pack("=I", mtu))
            + attribute(_IFLA_LINKINFO, info)
        )
        self._request(_RTM_NEWLINK, near, _CREATE | _EXCLUSIVE)

    def delete_link(self, name: str) -> None:
        """The interface, its peer and their routes; that there is none (any more) is fine."""
        try:
            self._request(_RTM_DELLINK, _link_header() + _name(_IFLA_IFNAME, name))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def set_up(self, index: int) -> None:
        """`ip link set up`."""
        self._request(_RTM_SETLINK, _link_header(index, _IFF_UP, _IFF_UP))

    def add_address(self, index: int, address: IPv4Address, prefix: int = 32) -> None:
        """`ip address replace`: an address already there is no error."""
        header = struct.pack("=BBBBI", socket.AF_INET, prefix, 0, _SCOPE_UNIVERSE, index)
        body = attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
        self._request(_RTM_NEWADDR, header + body, _CREATE | _REPLACE)

    def add_route(
        self,
        destination: IPv4Network,
        index: int,
        *,
        gateway: IPv4Address | None = None,
        source: IPv4Address | None = None,
    ) -> None:
        """`ip route replace DEST [via GATEWAY onlink] dev INDEX [src SOURCE]`."""
        scope = _SCOPE_UNIVERSE if gateway else _SCOPE_LINK
        flags = _RTNH_F_ONLINK if gateway else 0
        header = struct.pack(
            "=BBBBBBBBI",
            socket.AF_INET,
            destination.prefixlen,
            0,
            0,
            _TABLE_MAIN,
            _PROTOCOL_STATIC,
            scope,
            _TYPE_UNICAST,
            flags,
        )
        body = attribute(_RTA_OIF, struct.pack("=I", index))
        if destination.prefixlen:
            body += attribute(_RTA_DST, destination.network_address.packed)
        if gateway:
            body += attribute(_RTA_GATEWAY, gateway.packed)
        if source:
            body += attribute(_RTA_PREFSRC, source.packed)
        self._request(_RTM_NEWROUTE, header + body, _CREATE | _REPLACE)

    def add_neighbour(self, index: int, address: IPv4Address, mac: bytes) -> None:
        """A permanent neighbour, so that nothing has to be asked by ARP."""
        header = struct.pack("=BBHiHBB", socket.AF_INET, 0, 0, index, _NUD_PERMANENT, 0, 0)
        body = attribute(_NDA_DST, address.packed) + attribute(_NDA_LLADDR, mac)
        self._request(_RTM_NEWNEIGH, header + body, _CREATE | _REPLACE)

    def _request(self, kind: int, body: bytes, flags: int = 0) -> None:
        self._sequence += 1
        header = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, self._sequence, 0)
        self.sock.send(header + body)
        for answer, payload in _messages(self.sock.recv(65536)):
            if answer == _NLMSG_ERROR:
                code = struct.unpack_from("=i", payload)[0]
                if code:
                    raise OSError(-code, f"netlink request {kind}: {os.strerror(-code)}")


def _link_header(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, index, flags, change)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        yield kind, data[16:length]
        data = data[(length + 3) & ~3 :]
