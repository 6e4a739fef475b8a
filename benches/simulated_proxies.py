"""Clients of destination and policy as proxies are: one connection to each, and the streams of a proxy on them.

A worker process holds many of them. It is asked over a pipe; what it keeps of a stream is what a proxy would.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import defaultdict
from dataclasses import dataclass
from ipaddress import IPv4Address
from multiprocessing.connection import Connection

import grpc.aio
from linkerd.proto.destination_pb2 import GetDestination, Update
from linkerd.proto.inbound_pb2 import PortSpec
from linkerd.proto.net_pb2 import IPAddress, TcpAddress
from linkerd.proto.outbound_pb2 import TrafficSpec
from watched_cluster import NAMESPACE, service_ip

_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.primary_user_agent", "bench"))
_OPENING = 200
"""Proxies that start at the same time."""

HOT = 0
"""The Service that one in five proxies talks to."""


@dataclass(frozen=True, slots=True)
class Load:
    first: int
    count: int
    services: int
    destination: str
    policy: str


class Proxies:
    def __init__(self, load: Load) -> None:
        self._load = load
        self.opened = 0
        self.known: dict[int, list[set[int]]] = defaultdict(list)
        self.heard: list[float] = []

    async def open(self, group: asyncio.TaskGroup) -> None:
        gate = asyncio.Semaphore(_OPENING)
        numbers = range(self._load.first, self._load.first + self._load.count)
        await asyncio.gather(*(self._open_one(number, group, gate) for number in numbers))

    async def _open_one(self, number: int, group: asyncio.TaskGroup, gate: asyncio.Semaphore) -> None:
        async with gate:
            destination = grpc.aio.insecure_channel(self._load.destination, options=_OPTIONS)
            policy = grpc.aio.insecure_channel(self._load.policy, options=_OPTIONS)
            pod = f"pod-{number}"
            context = f'{{"ns":"{NAMESPACE}","nodeName":"node-{number % 100}","pod":"{pod}"}}'
            workload = f'{{"ns":"{NAMESPACE}","pod":"{pod}"}}'
            targets = [(number * 3 + k) % self._load.services for k in range(3)]
            if number % 5 == 0:
                targets[0] = HOT
            first = service_ip(targets[0])
            address = TcpAddress(ip=IPAddress(ipv4=int(IPv4Address(first))), port=80)
            streams = [
                self._plain(destination, _GET_PROFILE, GetDestination(path=f"{first}:80", context_token=context)),
                self._plain(policy, _WATCH, TrafficSpec(source_workload=workload, addr=address)),
                *(self._plain(policy, _WATCH_PORT, PortSpec(workload=workload, port=port)) for port in (8080, 4191)),
                *(self._endpoints(destination, target, context) for target in targets),
            ]
            ready = [asyncio.Event() for _ in streams]
            for stream, event in zip(streams, ready, strict=True):
                group.create_task(stream(event))
            for event in ready:
                await event.wait()
            self.opened += 1

    def _plain(self, channel, method, request):
        async def read(ready: asyncio.Event) -> None:
            call = channel.unary_stream(method, request_serializer=type(request).SerializeToString)(request)
            async for _ in call:
                ready.set()

        return read

    def _endpoints(self, channel, target: int, context: str):
        known: set[int] = set()
        self.known[target].append(known)
        path = f"svc-{target}.{NAMESPACE}.svc.cluster.local:80"
        request = GetDestination(path=path, context_token=context)

        async def read(ready: asyncio.Event) -> None:
            call = channel.unary_stream(_GET, request_serializer=GetDestination.SerializeToString)(request)
            async for message in call:
                if target == HOT:
                    self.heard.append(time.monotonic())
                _apply(Update.FromString(message), known)
                ready.set()

        return read

    def state(self) -> dict[int, set[tuple[int, ...]]]:
        """By Service, each different set of endpoints that somebody believes."""
        return {target: {tuple(sorted(known)) for known in found} for target, found in self.known.items()}


def _apply(update: Update, known: set[int]) -> None:
    if update.HasField("no_endpoints"):
        known.clear()
    known.difference_update(address.ip.ipv4 for address in update.remove.addrs)
    known.update(added.addr.ip.ipv4 for added in update.add.addrs)


_GET = "/io.linkerd.proxy.destination.Destination/Get"
_GET_PROFILE = "/io.linkerd.proxy.destination.Destination/GetProfile"
_WATCH = "/io.linkerd.proxy.outbound.OutboundPolicies/Watch"
_WATCH_PORT = "/io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort"


def work(pipe: Connection, load: Load) -> None:
    """The main function of a worker process."""
    gc.disable()  # its pauses would be taken for those of the control plane
    asyncio.run(_serve(pipe, load))


async def _serve(pipe: Connection, load: Load) -> None:
    proxies = Proxies(load)
    async with asyncio.TaskGroup() as group:
        await proxies.open(group)
        pipe.send(proxies.opened)
        while True:
            asked = await asyncio.to_thread(pipe.recv)
            if asked == "heard":
                pipe.send(proxies.heard)
                proxies.heard = []
            elif asked == "state":
                pipe.send(proxies.state())
