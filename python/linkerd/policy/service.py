"""The gRPC shells of policy: inbound `GetPort` and `WatchPort`, outbound `Get` and `Watch`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NoReturn

import grpc
import grpc.aio
import orjson

from linkerd.core.authorities import AddressAuthority, ServiceAuthority, parse_authority
from linkerd.kit.logging import fields
from linkerd.kit.rpc import Stalled, StreamCount, TooManyStreams, client_name, peer_name, write
from linkerd.kit.snapshots import Snapshots, Subscription
from linkerd.policy import metrics
from linkerd.policy.inbound import InboundPolicy, WorkloadRef, inbound_policy
from linkerd.policy.index import Index, Source
from linkerd.policy.outbound import OutboundPolicy, outbound_policy
from linkerd.policy.translate.inbound import server_message
from linkerd.policy.translate.outbound import Translator
from linkerd.proto.inbound_pb2 import PortSpec
from linkerd.proto.outbound_pb2 import TrafficSpec

log = logging.getLogger(__name__)

_SYNC_TIMEOUT = 20.0
"""Seconds that a subscriber waits for us to know the cluster, before it is told to come back."""

Code = grpc.StatusCode


class InvalidRequest(ValueError):
    pass


def parse_workload(text: str) -> WorkloadRef:
    """`{"ns":"…","pod":"…"}`, `{"ns":"…","external_workload":"…"}` or the old form `ns:pod`. Raises InvalidRequest."""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        namespace, colon, name = text.partition(":")
        if not colon or not namespace or not name:
            raise InvalidRequest(f"workload `{text}` is neither JSON nor `ns:pod`") from None
        return WorkloadRef("pod", namespace, name)
    if isinstance(document, dict) and document.get("ns"):
        for field, kind in (("pod", "pod"), ("external_workload", "external")):
            if document.get(field):
                return WorkloadRef(kind, str(document["ns"]), str(document[field]))
    raise InvalidRequest(f"workload `{text}` names neither a pod nor an external workload")


def parse_source_namespace(text: str) -> str:
    """Of a client's workload string; an unknown one is from nowhere in particular. Raises InvalidRequest."""
    if not text:
        return ""
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return parse_workload(text).namespace
    if not isinstance(document, dict) or not document.get("ns"):
        raise InvalidRequest(f"source_workload `{text}` has no namespace")
    return str(document["ns"])


@dataclass(frozen=True, slots=True)
class _PortKey:
    workload: WorkloadRef
    port: int


@dataclass(frozen=True, slots=True)
class _TrafficKey:
    target: AddressAuthority | ServiceAuthority
    namespace: str


class PolicyService:
    """Answers from the index. `touch` tells which sources changed; `synced` is set once the cluster is known."""

    def __init__(self, index: Index, synced: asyncio.Event) -> None:
        self._index = index
        self._synced = synced
        self._streams = StreamCount()
        self._translator = Translator(index.settings.cluster_domain)
        # Equal policies share one serialised message: the thousand pods of a Deployment have one.
        self._inbound_bytes = _Interned()
        self._outbound_bytes = _Interned()
        self._ports: Snapshots[_PortKey, bytes | None] = Snapshots(self._compute_port, on_failure=_log_failure)
        self._traffic: Snapshots[_TrafficKey, bytes | None] = Snapshots(self._compute_traffic, on_failure=_log_failure)
        for direction, topics in (("inbound", self._ports), ("outbound", self._traffic)):
            metrics.TOPICS.labels(direction).set_function(topics.__len__)
            metrics.STREAMS.labels(direction).set_function(lambda topics=topics: topics.subscribers)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Responses go out as bytes: they were serialised when they were made."""
        inbound = {
            "GetPort": grpc.unary_unary_rpc_method_handler(self.get_port, request_deserializer=PortSpec.FromString),
            "WatchPort": grpc.unary_stream_rpc_method_handler(
                self.watch_port, request_deserializer=PortSpec.FromString
            ),
        }
        outbound = {
            "Get": grpc.unary_unary_rpc_method_handler(self.get, request_deserializer=TrafficSpec.FromString),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, request_deserializer=TrafficSpec.FromString),
        }
        return [
            grpc.method_handlers_generic_handler("io.linkerd.proxy.inbound.InboundServerPolicies", inbound),
            grpc.method_handlers_generic_handler("io.linkerd.proxy.outbound.OutboundPolicies", outbound),
        ]

    def touch(self, sources: Iterable[Source]) -> None:
        sources = set(sources)
        self._ports.touch(sources)
        self._traffic.touch(sources)

    async def get_port(self, request: PortSpec, context: grpc.aio.ServicerContext) -> bytes:
        subscriber = _Subscriber("inbound", f"{request.workload}:{request.port}", context)
        key = await self._port_key(request, subscriber)
        value, _ = self._compute_port(key)
        return value if value is not None else await subscriber.refuse(Code.NOT_FOUND, "unknown server")

    async def watch_port(self, request: PortSpec, context: grpc.aio.ServicerContext) -> None:
        subscriber = _Subscriber("inbound", f"{request.workload}:{request.port}", context)
        key = await self._port_key(request, subscriber)
        await self._serve(self._ports, key, subscriber, client_name(context, request.workload), "unknown server")

    async def get(self, request: TrafficSpec, context: grpc.aio.ServicerContext) -> bytes:
        subscriber = _Subscriber("outbound", _target_name(request), context)
        key = await self._traffic_key(request, subscriber)
        value, _ = self._compute_traffic(key)
        return value if value is not None else await subscriber.refuse(Code.NOT_FOUND, "no such service")

    async def watch(self, request: TrafficSpec, context: grpc.aio.ServicerContext) -> None:
        subscriber = _Subscriber("outbound", _target_name(request), context)
        key = await self._traffic_key(request, subscriber)
        client = client_name(context, request.source_workload)
        await self._serve(self._traffic, key, subscriber, client, "no such service")

    async def _serve(
        self, topics: Snapshots[Any, bytes | None], key: Any, subscriber: _Subscriber, client: str, missing: str
    ) -> None:
        try:
            with self._streams.stream(client), topics.subscribe(key) as subscription:
                await _send(subscription, subscriber, missing)
        except TooManyStreams as error:
            await subscriber.refuse(Code.RESOURCE_EXHAUSTED, str(error))

    async def _port_key(self, request: PortSpec, subscriber: _Subscriber) -> _PortKey:
        await self._wait_synced(subscriber)
        try:
            if not 0 < request.port < 65536:
                raise InvalidRequest(f"port {request.port}: 1 to 65535 can be")
            return _PortKey(parse_workload(request.workload), request.port)
        except InvalidRequest as error:
            await subscriber.refuse(Code.INVALID_ARGUMENT, str(error))

    async def _traffic_key(self, request: TrafficSpec, subscriber: _Subscriber) -> _TrafficKey:
        await self._wait_synced(subscriber)
        try:
            namespace = parse_source_namespace(request.source_workload)
            target = self._target(request)
        except ValueError as error:
            await subscriber.refuse(Code.INVALID_ARGUMENT, str(error))
        if target is None:
            await subscriber.refuse(Code.NOT_FOUND, "no such service")
        return _TrafficKey(target, namespace)

    def _target(self, request: TrafficSpec) -> AddressAuthority | ServiceAuthority | None:
        """Raises ValueError."""
        if request.WhichOneof("target") == "addr":
            if not 0 < request.addr.port < 65536:
                raise InvalidRequest(f"port {request.addr.port}: 1 to 65535 can be")
            return AddressAuthority(_ip(request.addr.ip), request.addr.port)
        if not request.authority:
            raise InvalidRequest("neither an address nor an authority is given")
        try:
            return parse_authority(request.authority, self._index.settings.cluster_domain)
        except ValueError:
            return self._short_name(request.authority)

    def _short_name(self, authority: str) -> ServiceAuthority | None:
        """`<svc>.<ns>.svc[:port]`, without the cluster's domain."""
        host, colon, port = authority.partition(":")
        if not host.endswith(".svc"):
            return None
        try:
            found = parse_authority(f"{host}.cluster.local{colon}{port}", "cluster.local")
        except ValueError:
            return None
        return found if isinstance(found, ServiceAuthority) else None

    async def _wait_synced(self, subscriber: _Subscriber) -> None:
        if self._synced.is_set():
            return
        try:
            async with asyncio.timeout(_SYNC_TIMEOUT):
                await self._synced.wait()
        except TimeoutError:
            await subscriber.refuse(Code.UNAVAILABLE, "the state of the cluster is not known yet")

    def _compute_port(self, key: _PortKey) -> tuple[bytes | None, set[Source]]:
        policy, sources = inbound_policy(self._index, key.workload, key.port)
        return self._encode_inbound(policy), sources

    def _encode_inbound(self, policy: InboundPolicy | None) -> bytes | None:
        if policy is None:
            return None
        message = server_message(policy, self._index.settings.trust_domain)
        return self._inbound_bytes.get(message.SerializeToString(deterministic=True))

    def _compute_traffic(self, key: _TrafficKey) -> tuple[bytes | None, set[Source]]:
        policy, sources = outbound_policy(self._index, key.target, key.namespace)
        return self._encode_outbound(policy), sources

    def _encode_outbound(self, policy: OutboundPolicy | None) -> bytes | None:
        if policy is None:
            return None
        message = self._translator.policy_message(policy)
        return self._outbound_bytes.get(message.SerializeToString(deterministic=True))


class _Interned:
    """One copy of equal messages, as long as they are not too many to remember."""

    _LIMIT = 10_000

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def get(self, message: bytes) -> bytes:
        if len(self._known) >= self._LIMIT:
            self._known.clear()
        return self._known.setdefault(message, message)


class _Subscriber:
    """One call: who it is, for the log, and the ways it ends."""

    def __init__(self, direction: str, target: str, context: grpc.aio.ServicerContext) -> None:
        self.direction = direction
        self.target = target
        self.context = context

    async def send(self, message: bytes) -> None:
        await write(self.context, message)
        metrics.MESSAGES.labels(self.direction).inc()

    async def refuse(self, code: Code, message: str) -> NoReturn:
        metrics.REFUSED.labels(self.direction, code.name).inc()
        level = logging.DEBUG if code == Code.NOT_FOUND else logging.INFO
        log.log(level, "subscription refused", extra=self._fields(code=code.name, error=message))
        await self.context.abort(code, message)
        raise AssertionError("abort raises")

    async def drop(self) -> NoReturn:
        metrics.STALLED.labels(self.direction).inc()
        log.warning("subscriber reads nothing, its stream is ended", extra=self._fields())
        await self.context.abort(Code.RESOURCE_EXHAUSTED, "the stream was not read")
        raise AssertionError("abort raises")

    def _fields(self, **more: object) -> dict[str, dict[str, Any]]:
        return fields(direction=self.direction, target=self.target, peer=peer_name(self.context), **more)


async def _send(subscription: Subscription[bytes | None], subscriber: _Subscriber, missing: str) -> None:
    """The policy now and whenever it changes; ends with NotFound when there is none (any more)."""
    told: bytes | None = None
    try:
        while True:
            current = subscription.read()
            if current is None:
                await subscriber.refuse(Code.NOT_FOUND, missing)
            if current != told:
                await subscriber.send(current)
                told = current
            await subscription.changed()
    except Stalled:
        await subscriber.drop()


def _ip(address: Any) -> IPv4Address | IPv6Address:
    match address.WhichOneof("ip"):
        case "ipv4":
            return IPv4Address(address.ipv4)
        case "ipv6":
            return IPv6Address(address.ipv6.first << 64 | address.ipv6.last)
        case _:
            raise InvalidRequest("the address is empty")


def _target_name(request: TrafficSpec) -> str:
    if request.WhichOneof("target") != "addr":
        return request.authority
    try:
        return f"{_ip(request.addr.ip)}:{request.addr.port}"
    except ValueError:
        return "?"


def _log_failure(key: object, error: Exception) -> None:
    metrics.FAILURES.inc()
    log.error("cannot compute a policy, the old one stays", extra=fields(key=key), exc_info=error)
