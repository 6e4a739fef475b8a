"""A tap over real gRPC streams of made-up proxies."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from linkerd.core.identities import TrustDomain
from linkerd.proto import tap_pb2 as proxy
from linkerd.proto import viz_tap_pb2 as tap
from linkerd.viz.index import Owner, PodIndex, pod_from_object
from linkerd.viz.tap.session import Dialer, NothingToTap, Session
from support.tapping import Request, TappedProxy, serving_proxy


def pod(name: str, ip: str, *, meshed: bool = True, enabled: bool = True, labels: dict | None = None):
    workload = name.rpartition("-")[0]
    annotations = {"viz.linkerd.io/tap-enabled": "true"} if enabled else {}
    metadata = {
        "name": name,
        "namespace": "shop",
        "labels": ({"linkerd.io/control-plane-ns": "linkerd"} if meshed else {}) | (labels or {}),
        "annotations": annotations,
        "ownerReferences": [{"kind": "ReplicaSet", "name": f"{workload}-5d9c", "controller": True}],
    }
    spec = {"serviceAccountName": workload, "containers": []}
    return pod_from_object({"metadata": metadata, "spec": spec, "status": {"phase": "Running", "podIP": ip}})


def index_of(*pods) -> PodIndex:
    index = PodIndex()
    for one in pods:
        index.apply(one)
        workload = one.name.rpartition("-")[0]
        index.apply_parent(Owner("replicaset", "shop", f"{workload}-5d9c"), Owner("deployment", "shop", workload))
    return index


def request_for(name: str = "web", kind: str = "deployment", **more) -> tap.TapByResourceRequest:
    message = tap.TapByResourceRequest(notes=True, **more)
    message.target.resource.namespace, message.target.resource.type, message.target.resource.name = "shop", kind, name
    return message


@asynccontextmanager
async def tapping(request, *pods):
    """A running session and the proxies of the pods, by address."""
    async with AsyncExitStack() as stack:
        proxies = {one.ip: TappedProxy() for one in pods}
        port = 0
        for ip, tapped in proxies.items():
            port = await stack.enter_async_context(serving_proxy(tapped, ip, port))
        index = index_of(*pods)
        session = Session(request, index, Dialer(port, TrustDomain()), control_plane="linkerd")
        group = await stack.enter_async_context(asyncio.TaskGroup())
        running = group.create_task(session.run())
        stack.callback(running.cancel)
        yield session, proxies, index


async def events_of(session: Session, count: int) -> list[tap.TapEvent]:
    found: list[tap.TapEvent] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found += await session.next_events(1)
    return found


async def test_labels_events_with_the_pods_behind_the_addresses():
    web, client = pod("web-1", "127.0.0.2"), pod("client-1", "127.0.0.9")
    async with tapping(request_for(), web, client) as (session, proxies, _):
        proxies["127.0.0.2"].see(Request(path="/cart"))
        first, *_ = await events_of(session, 3)
    assert first.http.request_init.path == "/cart"
    assert dict(first.source_meta.labels) == {
        "tls": "true",
        "pod": "client-1",
        "deployment": "client",
        "namespace": "shop",
        "serviceaccount": "client",
        "control_plane_ns": "linkerd",
    }
    assert first.destination_meta.labels["deployment"] == "web"


async def test_streams_of_two_pods_keep_their_own_numbers():
    async with tapping(request_for(), pod("web-1", "127.0.0.2"), pod("web-2", "127.0.0.3")) as (session, proxies, _):
        for tapped in proxies.values():
            tapped.see(Request(stream=7))
        events = await events_of(session, 6)
    ids = [getattr(event.http, event.http.WhichOneof("event")).id for event in events]
    assert len({one.base for one in ids}) == 2
    assert {one.stream for one in ids} == {7}


async def test_asks_the_proxy_under_its_identity_for_an_endless_bounded_stream():
    wanted = request_for(maxRps=50)
    wanted.filter.path_regex = "/a.*"
    async with tapping(wanted, pod("web-1", "127.0.0.2")) as (_, proxies, _index):
        tapped = proxies["127.0.0.2"]
        await tapped.observed.wait()
    assert tapped.identities == ["web.shop.serviceaccount.identity.linkerd.cluster.local"]
    assert tapped.asked[0].limit == 2**32 - 1
    assert (tapped.asked[0].filter.path_regex, tapped.asked[0].filter.max_rps) == ("/a.*", 50)


async def test_counts_what_it_does_not_show():
    async with tapping(request_for(maxRps=2), pod("web-1", "127.0.0.2")) as (session, proxies, _):
        for stream in range(5):
            proxies["127.0.0.2"].see(Request(stream=stream))
        proxies["127.0.0.2"].tell(proxy.TapEvent(dropped=10, http=proxy.TapEvent.Http()))
        events = await events_of(session, 6)
        dropped = sum(event.dropped for event in events) + session.take_dropped()
        while dropped < 13:
            await session.next_events(0.05)
            dropped += session.take_dropped()
    assert dropped == 13
    assert {event.http.WhichOneof("event") for event in events} == {"request_init", "response_init", "response_end"}


async def test_listens_on_at_a_proxy_that_ends_the_stream():
    async with tapping(request_for(), pod("web-1", "127.0.0.2")) as (session, proxies, _):
        tapped = proxies["127.0.0.2"]
        tapped.see(Request())
        tapped.end_stream()
        tapped.see(Request())
        events = await events_of(session, 6)
    bases = {getattr(event.http, event.http.WhichOneof("event")).id.base for event in events}
    assert len(bases) == 2


async def test_listens_at_pods_that_come_later():
    web, later = pod("web-1", "127.0.0.2"), pod("web-2", "127.0.0.3")
    async with AsyncExitStack() as stack:
        session, proxies, index = await stack.enter_async_context(tapping(request_for(), web, later))
        index.delete("shop", "web-2")
        await proxies["127.0.0.2"].observed.wait()
        index.apply(later)
        session.changed()
        async with asyncio.timeout(5):
            await proxies["127.0.0.3"].observed.wait()


async def test_only_requests_from_the_sources_are_asked_for():
    wanted = request_for()
    wanted.sources.resource.namespace, wanted.sources.resource.type = "shop", "deployment"
    wanted.sources.resource.name = "client"
    pods = [pod("web-1", "127.0.0.2"), pod("client-1", "127.0.0.9"), pod("client-2", "127.0.0.10")]
    async with tapping(wanted, *pods) as (_, proxies, _index):
        await proxies["127.0.0.2"].observed.wait()
    matches = proxies["127.0.0.2"].asked[0].match.all.matches
    masks = [match.source.netmask for match in matches[0].any.matches]
    assert [(mask.ip.ipv4 & 0xFF, mask.mask) for mask in masks] == [(10, 32), (9, 32)]


async def test_tells_of_a_pod_that_cannot_be_reached():
    async with tapping(request_for(), pod("web-1", "127.0.0.2")) as (session, _, index):
        index.apply(pod("web-2", "127.0.0.4"))
        session.changed()
        (event,) = await events_of(session, 1)
    assert event.note.startswith("pod web-2 cannot be tapped at the moment: UNAVAILABLE")


async def test_a_tap_that_a_proxy_does_not_take_is_over():
    async with tapping(request_for(), pod("web-1", "127.0.0.2")) as (session, proxies, _):
        proxies["127.0.0.2"].refuse("path_regex: unclosed group")
        (event,) = await events_of(session, 1)
    assert event.note == "the proxy of pod web-1 does not take this tap: path_regex: unclosed group"
    assert session.refused


@pytest.mark.parametrize(
    ("pods", "message"),
    [
        ([], 'no pods to tap for type="deployment" name="web"\n'),
        ([pod("web-1", "127.0.0.2", meshed=False)], 'no pods to tap for type="deployment" name="web"\n'),
        ([pod("web-1", "127.0.0.2", enabled=False)], "1 pods found with tap not enabled:\n\t* web-1\n"),
    ],
)
def test_says_why_there_is_nothing_to_tap(pods, message):
    session = Session(request_for(), index_of(*pods), Dialer(4190, TrustDomain()), control_plane="linkerd")
    with pytest.raises(NothingToTap) as refusal:
        session.check()
    assert message in str(refusal.value)
