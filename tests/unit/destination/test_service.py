"""Many subscribers, some of them slow."""

from __future__ import annotations

import asyncio

import pytest
from linkerd.core.labels import CONTROL_PLANE_NS
from linkerd.core.services import EndpointSlice, Service, ServicePort, SliceEndpoint
from linkerd.core.workloads import Pod
from linkerd.destination.index import Index, Settings
from linkerd.destination.service import ClientContext, DestinationService, parse_context
from linkerd.proto.destination_pb2 import GetDestination, Update


class Stream:
    """A subscriber's end of a call; it takes messages only while `open` is set."""

    def __init__(self, *, reads: bool = True) -> None:
        self.messages: list[bytes] = []
        self.open = asyncio.Event()
        self.taken = asyncio.Condition()
        if reads:
            self.open.set()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()

    async def write(self, message: bytes) -> None:
        await self.open.wait()
        async with self.taken:
            self.messages.append(message)
            self.taken.notify_all()

    async def wait_messages(self, number: int) -> list[Update]:
        async with asyncio.timeout(2), self.taken:
            await self.taken.wait_for(lambda: len(self.messages) >= number)
        return [Update.FromString(message) for message in self.messages]


def pod(number: int, *, ready: bool = True) -> Pod:
    labels = {CONTROL_PLANE_NS: "linkerd"}
    return Pod("shop", f"web-{number}", ips=(f"10.0.0.{number}",), labels=labels, ready=ready)


def known_after(updates: list[Update]) -> set[int]:
    known: set[int] = set()
    for update in updates:
        if update.HasField("no_endpoints"):
            known.clear()
        known -= {a.ip.ipv4 & 255 for a in update.remove.addrs}
        known |= {a.addr.ip.ipv4 & 255 for a in update.add.addrs}
    return known


@pytest.fixture
def index() -> Index:
    index = Index(Settings())
    index.apply(Service("shop", "web", ports=(ServicePort(80, "http"),)))
    endpoints = tuple(
        SliceEndpoint((f"10.0.0.{n}",), target_kind="Pod", target=("shop", f"web-{n}")) for n in range(1, 6)
    )
    index.apply(EndpointSlice("shop", "web-1", "web", ports=(("http", 8080),), endpoints=endpoints))
    for number in range(1, 4):
        index.apply(pod(number))
    return index


async def test_a_slow_subscriber_delays_nobody_and_catches_up_in_one_step(index: Index):
    synced = asyncio.Event()
    synced.set()
    service = DestinationService(index, synced, "cluster.local")
    request = GetDestination(path="web.shop.svc.cluster.local:80")
    fast, slow = Stream(), Stream(reads=False)
    calls = [asyncio.ensure_future(service.get(request, stream)) for stream in (fast, slow)]  # type: ignore[arg-type]
    await fast.wait_messages(1)
    changes = [pod(1, ready=False), pod(4), pod(2, ready=False), pod(2)]
    for number, change in enumerate(changes, start=2):
        service.touch(index.apply(change))
        await fast.wait_messages(number)
    assert slow.messages == []
    slow.open.set()
    updates = await slow.wait_messages(3)
    assert known_after(updates) == known_after(await fast.wait_messages(5)) == {2, 3, 4}
    assert len(updates) == 3  # what it was owed at first, then one removal and one addition for all that followed
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_change_is_serialised_once_for_all(index: Index):
    synced = asyncio.Event()
    synced.set()
    service = DestinationService(index, synced, "cluster.local")
    request = GetDestination(path="web.shop.svc.cluster.local:80")
    streams = [Stream() for _ in range(5)]
    calls = [asyncio.ensure_future(service.get(request, stream)) for stream in streams]  # type: ignore[arg-type]
    for stream in streams:
        await stream.wait_messages(1)
    service.touch(index.apply(pod(4)))
    for stream in streams:
        await stream.wait_messages(2)
    assert all(stream.messages[1] is streams[0].messages[1] for stream in streams)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ('{"ns":"shop","nodeName":"n","pod":"p"}', ClientContext("shop", "n", "p")),
        ('{"ns":"shop","future":1}', ClientContext("shop")),
        ("ns:shop", ClientContext("shop")),
        ("", ClientContext()),
        ("[1]", ClientContext()),
        ("nonsense", ClientContext()),
    ],
)
def test_what_a_client_says_of_itself_is_read_or_unknown(token, expected):
    assert parse_context(token) == expected
