"""Agreeing on a protocol over SPDY/3.1 (`k8s.io/streaming/pkg/httpstream`, `Handshake`)."""

from __future__ import annotations

from collections.abc import Sequence

from linkerd.cluster.streams.http1 import Header, HttpError, Request

_OFFER = "x-stream-protocol-version"


def negotiate_spdy(request: Request, supported: Sequence[str]) -> tuple[str, list[Header]]:
    """The first protocol of the client's that is supported, and the headers of the 101 answer. Raises HttpError.

    A client that offers none is one from before the negotiation: it speaks the last of the list.
    """
    if not request.upgrades_to("spdy/3.1"):
        raise HttpError(400, "unable to upgrade: missing upgrade headers in request")
    switch = [(b"upgrade", b"SPDY/3.1")]
    offered = request.header_list(_OFFER)
    if not offered:
        return supported[-1], switch
    chosen = next((name for name in offered if name in supported), None)
    if chosen is None:
        message = f"unable to upgrade: unable to negotiate protocol: client supports {offered}, server accepts"
        accepted = [(b"x-accepted-stream-protocol-versions", name.encode()) for name in supported]
        raise HttpError(403, f"{message} {list(supported)}", accepted)
    return chosen, [*switch, (_OFFER.encode(), chosen.encode())]
