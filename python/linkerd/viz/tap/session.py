"""One tap: a stream from every pod of the target, merged, labelled and bounded.

Pods that come while it runs are listened at, too, and a proxy that goes away or answers late is asked again; so a tap
can be left running over a rollout. Each stream gets a number of its own for its events' ids, because proxies count from
zero independently.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import grpc

from linkerd.core.identities import TrustDomain
from linkerd.proto import tap_pb2 as proxy
from linkerd.proto import viz_tap_pb2 as tap
from linkerd.viz.index import Pod, PodIndex
from linkerd.viz.tap import translate
from linkerd.viz.tap.admission import Admission
from linkerd.viz.tap.targets import Selection, Tappable, nothing_to_tap, tappable

log = logging.getLogger(__name__)

METHOD = "/io.linkerd.proxy.tap.Tap/Observe"
REQUIRED_IDENTITY = "l5d-require-id"

_QUEUE_EVENTS = 2000
_CONGESTED_EVENTS = 1000
"""From here on no new request is begun; the rest is room for the ends of those that were."""
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a tap's connections end with it
    ("grpc.enable_retries", 0),
)

Observe = Callable[[Pod, proxy.ObserveRequest], AsyncIterator[tap.TapEvent]]
"""The proxy's stream. Raises grpc.RpcError."""


class NothingToTap(Exception):
    """No pod of the target can be tapped; the text says why."""


@dataclass(frozen=True, slots=True)
class Dialer:
    """Calls a proxy's tap port by gRPC. The connection is plain here: our own pod's proxy makes the mTLS of it, and
    refuses to when the other side is not the one that the header names."""

    port: int
    trust_domain: TrustDomain

    async def __call__(self, pod: Pod, request: proxy.ObserveRequest) -> AsyncIterator[tap.TapEvent]:
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        identity = self.trust_domain.service_account(pod.namespace, pod.service_account)
        async with grpc.aio.insecure_channel(f"{host}:{self.port}", options=_CHANNEL_OPTIONS) as channel:
            call = channel.unary_stream(
                METHOD,
                request_serializer=proxy.ObserveRequest.SerializeToString,
                response_deserializer=translate.parse_event,
            )
            async for event in call(request, metadata=((REQUIRED_IDENTITY, identity),)):
                yield event


class Session:
    """`run` fills, `events` empties. `changed` is to be called when pods changed."""

    def __init__(
        self,
        request: tap.TapByResourceRequest,
        index: PodIndex,
        observe: Observe,
        *,
        control_plane: str,
        ignored_headers: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._request = request
        self._index = index
        self._observe = observe
        self._control_plane = control_plane
        self._ignored_headers = ignored_headers
        self._clock = clock
        self._pause = pause
        self._target = Selection(*translate.selection_from(request.target))
        self._sources = Selection(*translate.selection_from(request.sources)) if request.HasField("sources") else None
        self._admission = Admission(translate.max_rps_of(request))
        self._queue: asyncio.Queue[tap.TapEvent] = asyncio.Queue(_QUEUE_EVENTS)
        self._changed = asyncio.Event()
        self._numbers = itertools.count()
        self._observers: dict[str, asyncio.Task[None]] = {}
        self._asked: proxy.ObserveRequest | None = None
        self._refused = False
        translate.observe_request(request)  # what cannot be translated is refused before anything is sent

    @property
    def refused(self) -> bool:
        """Whether a proxy will not take the request as it is; asking again cannot help."""
        return self._refused

    def check(self) -> None:
        """Raises NothingToTap when there is nothing to listen at now."""
        found = self._tappable()
        if not found.pods:
            raise NothingToTap(nothing_to_tap(self._target.target, found))

    def changed(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        """Listens for ever; cancel to end."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                self._adjust(group)
                await self._changed.wait()
                await self._pause(0.2)  # a rollout changes many pods in a row

    async def next_events(self, timeout: float) -> list[tap.TapEvent]:
        """Waits for an event and gives all that are there; empty when none came in time."""
        try:
            async with asyncio.timeout(timeout):
                events = [await self._queue.get()]
        except TimeoutError:
            return []
        while not self._queue.empty():
            events.append(self._queue.get_nowait())
        return events

    def take_dropped(self) -> int:
        """Requests not shown since the last call."""
        return self._admission.take_dropped()

    def _tappable(self) -> Tappable:
        return tappable(self._target.pods(self._index), self._control_plane)

    def _adjust(self, group: asyncio.TaskGroup) -> None:
        """Starts and ends streams so that there is one for each pod, asking for what is wanted now."""
        request = translate.observe_request(self._request, self._source_ips())
        if request != self._asked:
            self._end(list(self._observers))
            self._asked = request
        pods = {pod.ip: pod for pod in self._tappable().pods}
        self._end([ip for ip in self._observers if ip not in pods])
        for ip, pod in pods.items():
            if ip not in self._observers:
                self._observers[ip] = group.create_task(self._follow(pod, request))

    def _end(self, addresses: list[str]) -> None:
        for ip in addresses:
            self._observers.pop(ip).cancel()

    def _source_ips(self) -> list[str] | None:
        if self._sources is None:
            return None
        return sorted({pod.ip for pod in self._sources.pods(self._index) if pod.ip and not pod.host_network})

    async def _follow(self, pod: Pod, request: proxy.ObserveRequest) -> None:
        failures = 0
        while True:
            number = next(self._numbers)
            began = self._clock()
            try:
                async for event in self._observe(pod, request):
                    failures = 0
                    self._take(event, number)
            except grpc.RpcError as error:
                self._failed(pod, error, failures)
                failures += 1
            self._admission.forget(number)
            # A proxy that bounds its streams ends them; asked again at once it would be asked without pause.
            rest = 0.05 if not failures else _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS)) - 1]
            await self._pause(max(0.0, rest - (0 if failures else self._clock() - began)))

    def _failed(self, pod: Pod, error: grpc.RpcError, failures: int) -> None:
        code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
        details = f"{code.name}: {error.details()}" if code is not None else str(error)
        log.info("the proxy of %s/%s cannot be tapped: %s", pod.namespace, pod.name, details)
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            if not self._refused:  # the others will say the same
                self._note(f"the proxy of pod {pod.name} does not take this tap: {error.details() or code.name}")
            self._refused = True
        elif failures == 1:  # once may be a connection that was closed in passing
            self._note(f"pod {pod.name} cannot be tapped at the moment: {details}")

    def _note(self, text: str) -> None:
        if self._request.notes and not self._queue.full():
            self._queue.put_nowait(tap.TapEvent(note=text))

    def _take(self, event: tap.TapEvent, number: int) -> None:
        """From a proxy into the queue, unless it is one too many."""
        self._admission.dropped += event.dropped
        if not self._admitted(event, number) or self._queue.full():
            return
        translate.add_labels(event, self._index)
        translate.drop_headers(event, self._ignored_headers)
        event.dropped = self._admission.take_dropped()
        self._queue.put_nowait(event)

    def _admitted(self, event: tap.TapEvent, number: int) -> bool:
        if event.WhichOneof("event") != "http":
            return not self._congested()
        part = event.http.WhichOneof("event")
        if part is None:
            return False
        stream_id = getattr(event.http, part).id
        stream_id.base = number
        stream = (number, stream_id.stream)
        if part == "request_init":
            return self._admission.begins(stream, self._clock(), congested=self._congested())
        return self._admission.ends(stream) if part == "response_end" else self._admission.continues(stream)

    def _congested(self) -> bool:
        return self._queue.qsize() >= _CONGESTED_EVENTS
