"""A gRPC server on the process's event loop: limits against what the network may push, and a bounded end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

import grpc
import grpc.aio

_LARGEST_REQUEST = 256 * 1024  # bytes; a certificate request with its token is below 20 KB
_OPTIONS = (
    ("grpc.max_receive_message_length", _LARGEST_REQUEST),
    ("grpc.max_metadata_size", 32 * 1024),
    # A peer that vanished without a word is noticed within 80 s, and its streams are released.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Proxies ping every 10 s; the default would end their connection with ENHANCE_YOUR_CALM.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
    # After a restart every proxy subscribes at once. The library would answer CANCELLED from 1,000 waiting calls on;
    # each costs us a few KB, so they may wait (for at most 30 s) instead.
    ("grpc.server.max_pending_requests", 50_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
)
_STALLED = 30.0
"""Seconds that a subscriber may take no byte of its stream before it is dropped."""


MOST_STREAMS = 5_000
"""Of one client. A proxy has three for each Service that it talks to."""


class Stalled(Exception):
    """A subscriber does not read its stream."""


@asynccontextmanager
async def serve_rpc(
    address: str, handlers: Iterable[grpc.GenericRpcHandler], *, grace: float = 1.0
) -> AsyncIterator[int]:
    """Serves on `host:port` while the block runs; gives the port that was bound. Raises RuntimeError if it is taken.

    At the end new calls are refused and running ones get `grace` seconds: subscriptions never end by themselves.
    """
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers(tuple(handlers))
    port = server.add_insecure_port(address if not address.startswith(":") else f"[::]{address}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace)


class TooManyStreams(Exception):
    """A client has as many streams as it may."""


class StreamCount:
    """How many streams each client has, and no more than it may."""

    def __init__(self, limit: int = MOST_STREAMS) -> None:
        self._limit = limit
        self._open: dict[str, int] = {}

    @contextmanager
    def stream(self, client: str) -> Iterator[None]:
        """Raises TooManyStreams."""
        if self._open.get(client, 0) >= self._limit:
            raise TooManyStreams(f"more than {self._limit} streams of `{client}`")
        self._open[client] = self._open.get(client, 0) + 1
        try:
            yield
        finally:
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]


def client_name(context: grpc.aio.ServicerContext, workload: str) -> str:
    """Who has a stream: the identity that the proxy in front of us saw, else the address; and the pod it says it is.

    What it says is no proof. But a client that is not itself can only take what a pod of its own identity may have.
    """
    metadata = dict(context.invocation_metadata() or ())
    identity = metadata.get("l5d-client-id") or peer_name(context).rpartition(":")[0]
    return f"{identity} {workload}"


async def write(context: grpc.aio.ServicerContext, message: bytes) -> None:
    """One message to a subscriber, as fast as it reads. Raises Stalled when it does not read at all."""
    try:
        async with asyncio.timeout(_STALLED):
            await context.write(message)
    except TimeoutError:
        raise Stalled from None


def peer_name(context: grpc.aio.ServicerContext) -> str:
    """The subscriber's address, for the log."""
    return context.peer().removeprefix("ipv4:").removeprefix("ipv6:")
