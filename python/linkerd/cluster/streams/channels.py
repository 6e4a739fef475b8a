"""The channel protocols that Kubernetes speaks inside a WebSocket: which of them, and one message of one channel.

A message is the channel's number and its bytes. In the binary protocols the number is a byte, in the base64 ones a
digit before base64 text. `v5` adds a message of the channel 255 by which a client closes one channel.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

SPDY_TUNNEL = "SPDY/3.1+portforward.k8s.io"

_CLOSE_SIGNAL = 255


class Channel(IntEnum):
    """The channels of exec and attach; port-forward has two (data, error) for each port instead."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4


class ChannelError(ValueError):
    """A message that the protocol does not allow; the connection cannot go on."""


@dataclass(frozen=True, slots=True)
class Message:
    """Bytes of a channel; with `closes` its end instead."""

    channel: int
    data: bytes = b""
    closes: bool = False


@dataclass(frozen=True, slots=True)
class ChannelProtocol:
    """One of the protocols. `name` is empty when the client asked for none."""

    name: str
    base64: bool = False
    status_as_json: bool = False
    half_close: bool = False

    def encode(self, message: Message) -> bytes | str:
        """The payload: text for base64, bytes otherwise."""
        if message.closes:
            return bytes((_CLOSE_SIGNAL, message.channel))
        if self.base64:
            return chr(ord("0") + message.channel) + base64.b64encode(message.data).decode()
        return bytes((message.channel,)) + message.data

    def decode(self, payload: bytes) -> Message | None:
        """None for an empty payload, which means nothing; raises ChannelError."""
        if not payload:
            return None
        if self.half_close and payload[0] == _CLOSE_SIGNAL:
            if len(payload) != 2:
                raise ChannelError("a close signal names exactly one channel")
            return Message(payload[1], closes=True)
        if not self.base64:
            return Message(payload[0], payload[1:])
        try:
            return Message((payload[0] - ord("0")) % 256, base64.b64decode(payload[1:], validate=True))
        except binascii.Error as error:
            raise ChannelError(f"not base64: {error}") from error


REMOTE_COMMAND_PROTOCOLS = (
    ChannelProtocol("v5.channel.k8s.io", status_as_json=True, half_close=True),
    ChannelProtocol("v4.channel.k8s.io", status_as_json=True),
    ChannelProtocol("v4.base64.channel.k8s.io", status_as_json=True, base64=True),
    ChannelProtocol("v3.channel.k8s.io"),
    ChannelProtocol("v2.channel.k8s.io"),
    ChannelProtocol("channel.k8s.io"),
    ChannelProtocol("base64.channel.k8s.io", base64=True),
    ChannelProtocol(""),
)

PORT_FORWARD_PROTOCOLS = (
    ChannelProtocol("v4.channel.k8s.io"),
    ChannelProtocol("v4.base64.channel.k8s.io", base64=True),
    ChannelProtocol("portforward.k8s.io"),
    ChannelProtocol(""),
)


def choose_protocol(offered: Iterable[str], supported: Iterable[ChannelProtocol]) -> ChannelProtocol | None:
    """The first that the client offers and the server has; without an offer the nameless one."""
    by_name = {protocol.name: protocol for protocol in supported}
    names = list(offered) or [""]
    return next((by_name[name] for name in names if name in by_name), None)
