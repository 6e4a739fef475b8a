"""The gRPC shell of destination: `Get` and `GetProfile` as streams over shared snapshots."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import grpc
import grpc.aio
import orjson

from linkerd.core.authorities import AddressAuthority, ServiceAuthority, parse_authority
from linkerd.destination import metrics
from linkerd.destination.index import Address, Ambiguous, Endpoint, Index, Source, Table
from linkerd.destination.translate import profile_message, updates
from linkerd.kit.logging import fields
from linkerd.kit.rpc import MOST_STREAMS, Stalled, StreamCount, TooManyStreams, client_name, peer_name, write
from linkerd.kit.snapshots import Memo, Snapshots, Subscription
from linkerd.proto.destination_pb2 import GetDestination

log = logging.getLogger(__name__)

_SYNC_TIMEOUT = 20.0
"""Seconds that a subscriber waits for us to know the cluster, before it is told to come back."""

_NAMED = 5
"""Endpoints that a log line names; it counts the others."""

Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class ClientContext:
    """Who asks, as it says itself: a routing hint, not an authentication."""

    namespace: str = ""
    node: str = ""
    pod: str = ""


def parse_context(token: str) -> ClientContext:
    """JSON of `ns`, `nodeName`, `pod`, or the old form `ns:<ns>`; what cannot be read counts as unknown."""
    try:
        document = orjson.loads(token)
    except orjson.JSONDecodeError:
        return ClientContext(token.removeprefix("ns:")) if token.startswith("ns:") else ClientContext()
    if not isinstance(document, dict):
        return ClientContext()
    return ClientContext(*(str(document.get(key) or "") for key in ("ns", "nodeName", "pod")))


class Endpoints:
    """What clients of one place see of one Service's port; its messages are made once, for all of them."""

    _serials = itertools.count()

    def __init__(self, table: Table, labels: Mapping[str, str], zone: str, endpoints: dict[Address, Endpoint]) -> None:
        self.table = table
        self.labels = labels
        self.zone = zone
        self.endpoints = endpoints
        self.made = time.monotonic()
        self._serial = next(self._serials)
        self._messages: dict[int | None, tuple[bytes, ...]] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Endpoints):
            return NotImplemented
        return self is other or (self.endpoints == other.endpoints and self.table.exists == other.table.exists)

    __hash__ = None  # type: ignore[assignment]

    def messages(self, told: Endpoints | None) -> tuple[bytes, ...]:
        """What takes a subscriber from what it was told to this: nothing if that comes to the same."""
        if told == self:
            return ()
        key = told._serial if told else None
        found = self._messages.get(key)
        if found is None:
            before = told.endpoints if told else None
            exists = self.table.exists
            made = updates(before, self.endpoints, labels=self.labels, zone=self.zone, exists=exists)
            found = self._messages[key] = tuple(update.SerializeToString() for update in made)
            if told is not None:
                self._log_difference(told)
        return found

    def _log_difference(self, told: Endpoints) -> None:
        """Once per change, however many subscribers hear of it."""
        before, now = told.endpoints, self.endpoints
        log.info(
            "endpoints changed",
            extra=fields(
                service=f"{self.labels['namespace']}/{self.labels['service']}",
                added=_names(e for address, e in now.items() if before.get(address) != e),
                removed=_names(e for address, e in before.items() if address not in now),
                total=len(now),
            ),
        )


@dataclass(frozen=True, slots=True)
class _EndpointsKey:
    authority: ServiceAuthority
    node: str


@dataclass(frozen=True, slots=True)
class _ViewKey:
    authority: ServiceAuthority
    zone: str
    node: str


@dataclass(frozen=True, slots=True)
class _ProfileKey:
    target: AddressAuthority | ServiceAuthority
    namespace: str
    node: str


@dataclass(frozen=True, slots=True)
class _EncodedProfile:
    message: bytes
    made: float = field(default_factory=time.monotonic, compare=False)


class DestinationService:
    """Answers from the index. `touch` tells which sources changed; `synced` is set once the cluster is known."""

    def __init__(
        self, index: Index, synced: asyncio.Event, cluster_domain: str, *, most_streams: int = MOST_STREAMS
    ) -> None:
        self._index = index
        self._synced = synced
        self._streams = StreamCount(most_streams)
        self._domain = cluster_domain
        self._tables: Memo[ServiceAuthority, Table] = Memo(index.table)
        self._views: Memo[_ViewKey, Endpoints] = Memo(self._compute_view)
        self._endpoints: Snapshots[_EndpointsKey, Endpoints] = Snapshots(
            self._compute_endpoints, on_failure=_log_failure
        )
        self._profiles: Snapshots[_ProfileKey, _EncodedProfile] = Snapshots(
            self._compute_profile, on_failure=_log_failure
        )
        for kind, topics in (("endpoints", self._endpoints), ("profile", self._profiles)):
            metrics.TOPICS.labels(kind).set_function(topics.__len__)
            metrics.STREAMS.labels(kind).set_function(lambda topics=topics: topics.subscribers)

    def handler(self) -> grpc.GenericRpcHandler:
        """Responses go out as bytes: they were serialised when they were made."""
        methods = {"Get": self.get, "GetProfile": self.get_profile}
        return grpc.method_handlers_generic_handler(
            "io.linkerd.proxy.destination.Destination",
            {
                name: grpc.unary_stream_rpc_method_handler(
                    method, request_deserializer=GetDestination.FromString, response_serializer=None
                )
                for name, method in methods.items()
            },
        )

    def touch(self, sources: Iterable[Source]) -> None:
        sources = set(sources)
        self._tables.touch(sources)
        self._views.touch(sources)
        self._endpoints.touch(sources)
        self._profiles.touch(sources)

    async def get(self, request: GetDestination, context: grpc.aio.ServicerContext) -> None:
        subscriber = _Subscriber("endpoints", request, context)
        await self._wait_synced(subscriber)
        try:
            authority = parse_authority(request.path, self._domain)
        except ValueError as error:
            await subscriber.refuse(Code.INVALID_ARGUMENT, str(error))
        if isinstance(authority, AddressAuthority):
            await subscriber.refuse(Code.INVALID_ARGUMENT, "an address has no endpoints: ask for a Service's name")
        key = _EndpointsKey(authority, subscriber.client.node)
        try:
            with self._streams.stream(subscriber.name), self._endpoints.subscribe(key) as subscription:
                await self._check_service(authority, subscription.read(), subscriber)
                subscriber.opened()
                await _send_endpoints(subscription, subscriber)
        except TooManyStreams as error:
            await subscriber.refuse(Code.RESOURCE_EXHAUSTED, str(error))
        except Stalled:
            await subscriber.drop()

    async def get_profile(self, request: GetDestination, context: grpc.aio.ServicerContext) -> None:
        subscriber = _Subscriber("profile", request, context)
        await self._wait_synced(subscriber)
        try:
            target = parse_authority(request.path, self._domain)
            # The profile of a Service is the same wherever its client is.
            node = "" if isinstance(target, ServiceAuthority) and not target.hostname else subscriber.client.node
            key = _ProfileKey(target, subscriber.client.namespace, node)
            with self._streams.stream(subscriber.name), self._profiles.subscribe(key) as subscription:
                subscriber.opened()
                await _send_profiles(subscription, subscriber)
        except Stalled:
            await subscriber.drop()
        except TooManyStreams as error:
            await subscriber.refuse(Code.RESOURCE_EXHAUSTED, str(error))
        except Ambiguous as error:
            await subscriber.refuse(Code.FAILED_PRECONDITION, str(error))
        except ValueError as error:
            await subscriber.refuse(Code.INVALID_ARGUMENT, str(error))

    async def _wait_synced(self, subscriber: _Subscriber) -> None:
        if self._synced.is_set():
            return
        try:
            async with asyncio.timeout(_SYNC_TIMEOUT):
                await self._synced.wait()
        except TimeoutError:
            await subscriber.refuse(Code.UNAVAILABLE, "the state of the cluster is not known yet")

    async def _check_service(self, authority: ServiceAuthority, endpoints: Endpoints, subscriber: _Subscriber) -> None:
        name = f"{authority.namespace}/{authority.service}"
        if not endpoints.table.exists:
            await subscriber.refuse(Code.NOT_FOUND, f"Service {name} not found")
        if endpoints.table.external:
            await subscriber.refuse(Code.INVALID_ARGUMENT, f"Service {name} is an ExternalName")

    def _compute_endpoints(self, key: _EndpointsKey) -> tuple[Endpoints, set[Source]]:
        table, sources = self._tables.get(key.authority)
        node = key.node if table.local_only else ""
        view, more = self._views.get(_ViewKey(key.authority, self._index.zone(key.node), node))
        return view, {*sources, *more, ("node", key.node)}

    def _compute_view(self, key: _ViewKey) -> tuple[Endpoints, frozenset[Source]]:
        table, sources = self._tables.get(key.authority)
        labels = {"service": key.authority.service, "namespace": key.authority.namespace}
        return Endpoints(table, labels, key.zone, table.view(key.zone, key.node)), sources

    def _compute_profile(self, key: _ProfileKey) -> tuple[_EncodedProfile, set[Source]]:
        profile, sources = self._index.profile(key.target, key.namespace)
        zone = self._index.zone(key.node)
        message = profile_message(profile, zone=zone, cluster_domain=self._domain)
        return _EncodedProfile(message.SerializeToString(deterministic=True)), {*sources, ("node", key.node)}


class _Subscriber:
    """One stream: who it is, for the log, and the ways it ends."""

    def __init__(self, kind: str, request: GetDestination, context: grpc.aio.ServicerContext) -> None:
        self.kind = kind
        self.path = request.path
        self.client = parse_context(request.context_token)
        self.context = context

    @property
    def name(self) -> str:
        return client_name(self.context, f"{self.client.namespace}/{self.client.pod}")

    def opened(self) -> None:
        log.debug("subscribed", extra=self._fields())

    async def send(self, message: bytes) -> None:
        await write(self.context, message)
        metrics.MESSAGES.labels(self.kind).inc()

    async def refuse(self, code: Code, message: str) -> None:
        """Ends the call, by an exception of gRPC's."""
        metrics.REFUSED.labels(self.kind, code.name).inc()
        log.info("subscription refused", extra=self._fields(code=code.name, error=message))
        await self.context.abort(code, message)

    async def drop(self) -> None:
        metrics.STALLED.labels(self.kind).inc()
        log.warning("subscriber reads nothing, its stream is ended", extra=self._fields())
        await self.context.abort(Code.RESOURCE_EXHAUSTED, "the stream was not read")

    def _fields(self, **more: object) -> dict[str, dict[str, object]]:
        pod = f"{self.client.namespace}/{self.client.pod}" if self.client.pod else self.client.namespace
        return fields(kind=self.kind, target=self.path, client=pod, peer=peer_name(self.context), **more)


async def _send_endpoints(subscription: Subscription[Endpoints], subscriber: _Subscriber) -> None:
    told: Endpoints | None = None
    while True:
        current = subscription.read()
        for message in current.messages(told):
            await subscriber.send(message)
        if told is not None:
            metrics.LAG.observe(time.monotonic() - current.made)
        told = current
        await subscription.changed()


async def _send_profiles(subscription: Subscription[_EncodedProfile], subscriber: _Subscriber) -> None:
    told: bytes | None = None
    while True:
        current = subscription.read()
        if current.message != told:
            await subscriber.send(current.message)
            if told is not None:
                metrics.LAG.observe(time.monotonic() - current.made)
            told = current.message
        await subscription.changed()


def _names(endpoints: Iterable[Endpoint]) -> str:
    found = [f"{e.pod[1] if e.pod else e.ip}:{e.port}" for e in endpoints]
    return ",".join(found[:_NAMED]) + (f",+{len(found) - _NAMED}" if len(found) > _NAMED else "")


def _log_failure(key: object, error: Exception) -> None:
    metrics.FAILURES.inc()
    log.error("cannot compute an answer, the old one stays", extra=fields(key=key, error=repr(error)), exc_info=error)
