"""`linkerd2.viz.Api` over gRPC: requests in, tables out, failures as the codes that clients act on."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import grpc

from linkerd.core import kinds
from linkerd.k8s import resources
from linkerd.k8s.client import Client
from linkerd.k8s.errors import AlreadyExists, ApiError, BadRequest, Forbidden, Invalid, NotFound, Unauthorized
from linkerd.proto import viz_pb2 as pb
from linkerd.proto.viz_pb2_grpc import ApiServicer, add_ApiServicer_to_server
from linkerd.viz.index import PodIndex
from linkerd.viz.metrics import queries, translate
from linkerd.viz.metrics.objects import Objects, UnsupportedKind
from linkerd.viz.metrics.pods import pod_message
from linkerd.viz.metrics.prometheus import Prometheus, PrometheusError
from linkerd.viz.metrics.tables import Tables, together
from linkerd.viz.metrics.translate import InvalidRequest

log = logging.getLogger(__name__)

_API_CODES: tuple[tuple[type[ApiError], grpc.StatusCode], ...] = (
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (AlreadyExists, grpc.StatusCode.ALREADY_EXISTS),
    (Forbidden, grpc.StatusCode.PERMISSION_DENIED),
    (Unauthorized, grpc.StatusCode.PERMISSION_DENIED),
    (Invalid, grpc.StatusCode.INVALID_ARGUMENT),
    (BadRequest, grpc.StatusCode.INVALID_ARGUMENT),
)


def code_of(error: Exception) -> grpc.StatusCode:
    """Whose fault it is, as gRPC says it."""
    if isinstance(error, UnsupportedKind):
        return grpc.StatusCode.UNIMPLEMENTED
    if isinstance(error, TimeoutError):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    if isinstance(error, ApiError):
        return next((code for kind, code in _API_CODES if isinstance(error, kind)), grpc.StatusCode.UNKNOWN)
    return grpc.StatusCode.UNAVAILABLE


_EXPECTED = (UnsupportedKind, ApiError, PrometheusError, aiohttp.ClientError, TimeoutError)


@asynccontextmanager
async def _failures(context: Any) -> AsyncIterator[None]:
    try:
        yield
    except _EXPECTED as error:
        log.warning("request failed: %s", error)
        await context.abort(code_of(error), str(error) or type(error).__name__)


class MetricsApi(ApiServicer):  # type: ignore[misc]
    """Questions that can never be answered get an error in the response, as Linkerd's clients expect it; what may work
    a moment later, or with other rights, is the call's status."""

    def __init__(
        self,
        client: Client,
        prometheus: Prometheus,
        pods: PodIndex,
        objects: Objects,
        tables: Tables,
        control_plane: str,
    ) -> None:
        self._client = client
        self._prometheus = prometheus
        self._pods = pods
        self._objects = objects
        self._tables = tables
        self._control_plane = control_plane

    async def StatSummary(self, request: pb.StatSummaryRequest, context: Any) -> pb.StatSummaryResponse:
        async with _failures(context):
            try:
                return translate.stat_ok(await self._tables.stat(request))
            except InvalidRequest as error:
                return pb.StatSummaryResponse(error=_error(request.selector, error))

    async def Edges(self, request: pb.EdgesRequest, context: Any) -> pb.EdgesResponse:
        async with _failures(context):
            try:
                selector = translate.target_from(request.selector.resource)
                found = await self._tables.edges(selector)
            except InvalidRequest as error:
                return pb.EdgesResponse(error=_error(request.selector, error))
            messages = [translate.edge_message(edge, selector.kind) for edge in found]
            return pb.EdgesResponse(ok=pb.EdgesResponse.Ok(edges=messages))

    async def TopRoutes(self, request: pb.TopRoutesRequest, context: Any) -> pb.TopRoutesResponse:
        async with _failures(context):
            try:
                found = await self._tables.routes(request)
            except InvalidRequest as error:
                return pb.TopRoutesResponse(error=_error(request.selector, error))
            return pb.TopRoutesResponse(ok=pb.TopRoutesResponse.Ok(routes=found))

    async def Authz(self, request: pb.AuthzRequest, context: Any) -> pb.AuthzResponse:
        async with _failures(context):
            try:
                rows = await self._tables.authz(request)
            except InvalidRequest as error:
                return pb.AuthzResponse(error=_error(request.resource, error))
            table = pb.StatTable(pod_group=pb.StatTable.PodGroup(rows=rows))
            return pb.AuthzResponse(ok=pb.AuthzResponse.Ok(stat_table=table))

    async def ListPods(self, request: pb.ListPodsRequest, context: Any) -> pb.ListPodsResponse:
        async with _failures(context):
            try:
                target = self._pods_target(request.selector.resource)
            except InvalidRequest as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            namespace = target.name if target.kind is kinds.NAMESPACE else target.namespace
            samples = await self._prometheus.query(queries.pods_query(namespace))
            started = {(s.labels.get("namespace", ""), s.labels.get("pod", "")): s.value for s in samples}
            chosen = await self._chosen_pods(target, request.selector.label_selector)
            now = time.time()
            return pb.ListPodsResponse(
                pods=[pod_message(pod, self._pods, self._control_plane, started, now) for pod in chosen]
            )

    def _pods_target(self, resource: pb.Resource) -> kinds.Target:
        """Without a type: the pods of the namespace."""
        if resource.type:
            return translate.target_from(resource)
        return kinds.Target(kinds.POD, "", resource.namespace)

    async def _chosen_pods(self, target: kinds.Target, label_selector: str) -> list[Any]:
        chosen = self._objects.pods_of(target)
        if label_selector:
            matching = set(await self._objects.keys(kinds.Target(kinds.POD, "", target.namespace), label_selector))
            chosen = [pod for pod in chosen if (pod.namespace, pod.name) in matching]
        return sorted(chosen, key=lambda pod: (pod.namespace, pod.name))

    async def ListServices(self, request: pb.ListServicesRequest, context: Any) -> pb.ListServicesResponse:
        async with _failures(context):
            items = await self._client.list(resources.SERVICES.metadata(), request.namespace or None)
            services = [pb.Service(name=i["metadata"]["name"], namespace=i["metadata"]["namespace"]) for i in items]
            return pb.ListServicesResponse(services=services)

    async def SelfCheck(self, request: pb.SelfCheckRequest, context: Any) -> pb.SelfCheckResponse:
        checks = (
            ("kubernetes", "linkerd viz can talk to Kubernetes", self._client.request("GET", "/version")),
            ("prometheus", "linkerd viz can talk to Prometheus", self._prometheus.ready()),
        )
        return pb.SelfCheckResponse(results=await together(_check(*check) for check in checks))


async def _check(subsystem: str, description: str, attempt: Any) -> pb.CheckResult:
    result = pb.CheckResult(SubsystemName=subsystem, CheckDescription=description, Status=pb.OK)
    try:
        await attempt
    except _EXPECTED as error:
        result.Status = pb.ERROR
        result.FriendlyMessageToUser = f"Error calling {subsystem}: {error}"
    return result


def _error(selection: pb.ResourceSelection, error: InvalidRequest) -> pb.ResourceError:
    return pb.ResourceError(resource=selection.resource, error=str(error))


@asynccontextmanager
async def serving(api: MetricsApi, address: str, *, grace: float = 2.0) -> AsyncIterator[int]:
    """Serves plaintext gRPC on `host:port` (the pod's proxy adds mTLS) while the block runs; gives the bound port."""
    server = grpc.aio.server()
    add_ApiServicer_to_server(api, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace)
