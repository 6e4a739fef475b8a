"""The gRPC service of the shop, and the call to it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import grpc

from linkerd_demo import ledger_pb2, ledger_pb2_grpc
from linkerd_demo.faults import FaultFile
from linkerd_demo.topology import PORT

log = logging.getLogger(__name__)

_CALL_TIMEOUT_SECONDS = 5
_channels: dict[str, grpc.aio.Channel] = {}


class LedgerError(Exception):
    """The ledger answered with an error, or not at all."""


async def book(host: str, cents: int) -> int:
    """Books an amount; returns the number of the entry. Raises LedgerError."""
    if host not in _channels:
        _channels[host] = grpc.aio.insecure_channel(f"{host}:{PORT}")
    stub = ledger_pb2_grpc.LedgerStub(_channels[host])
    try:
        reply = await stub.Book(ledger_pb2.BookRequest(cents=cents), timeout=_CALL_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise LedgerError(f"{host}: {error.code().name}: {error.details()}") from error
    return reply.entry


class Ledger(ledger_pb2_grpc.LedgerServicer):
    """Keeps a sum; nothing is stored."""

    def __init__(self, faults: FaultFile) -> None:
        self._faults = faults
        self._cents = 0
        self._entries = 0

    async def Book(self, request, context):
        await self._suffer("/shop.Ledger/Book", context)
        self._entries += 1
        self._cents += request.cents
        return ledger_pb2.BookReply(entry=self._entries)

    async def Balance(self, request, context):
        await self._suffer("/shop.Ledger/Balance", context)
        return ledger_pb2.BalanceReply(cents=self._cents)

    async def _suffer(self, path: str, context: grpc.aio.ServicerContext) -> None:
        for fault in self._faults.matching(path):
            if fault.crash:
                log.error("error: crashing, as the fault asks")
                os._exit(1)
            if fault.latency_ms:
                await asyncio.sleep(fault.latency_ms / 1000)
            if fault.fails():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "fault")


async def serve_ledger(name: str) -> None:
    """Serves until SIGTERM."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    server = grpc.aio.server()
    ledger_pb2_grpc.add_LedgerServicer_to_server(Ledger(FaultFile(name)), server)
    server.add_insecure_port(f"[::]:{PORT}")
    await server.start()
    log.info("%s listens on %d", name, PORT)
    await ended.wait()
    await server.stop(grace=20)
