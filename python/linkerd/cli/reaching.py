"""Ways from the command line to what runs in the cluster: components behind port-forwards, pods of a workload."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from linkerd.cli.context import Context
from linkerd.cli.errors import UserError
from linkerd.core.kinds import Target, TargetError, UnknownKind, parse_targets

if TYPE_CHECKING:
    import grpc

    from linkerd.k8s.client import Client

# gRPC's library writes about closed connections on stderr, which is for people here; it looks when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

VIZ_LABEL = "linkerd.io/extension=viz"
VIZ_HINT = "validate the install with `linkerd viz check`; install with `linkerd viz install | kubectl apply -f -`"
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # a table of some ten thousand pods


def targets(arguments: Sequence[str], namespace: str) -> list[Target]:
    """The resources that the arguments name. Raises UserError."""
    try:
        return parse_targets(arguments, namespace)
    except UnknownKind as error:
        raise UserError(str(error), "kinds are deploy, pod, ns, sts, ds, job, svc and so on, as with kubectl") from None
    except TargetError as error:
        raise UserError(str(error)) from None


async def viz_namespace(ctx: Context, client: Client) -> str:
    """Where viz is installed. Raises UserError when it is not."""
    from linkerd.k8s.resources import NAMESPACES

    if ctx.viz_namespace:
        return ctx.viz_namespace
    found = await client.list(NAMESPACES.metadata(), label_selector=VIZ_LABEL)
    if not found:
        raise UserError(
            'cannot connect to Linkerd Viz: namespace with label "linkerd.io/extension: viz" not found', VIZ_HINT
        )
    return found[0]["metadata"]["name"]


async def running_pod(client: Client, namespace: str, deployment: str) -> str:
    """The name of a running pod of the deployment, a ready one if there is. Raises UserError."""
    from linkerd.k8s.resources import PODS, REPLICA_SETS

    sets = await client.list(REPLICA_SETS.metadata(), namespace)
    owned = {s["metadata"]["name"] for s in sets if _controller(s) == ("Deployment", deployment)}
    running = [
        pod
        for pod in await client.list(PODS, namespace, field_selector="status.phase=Running")
        if _controller(pod)[0] == "ReplicaSet"
        and _controller(pod)[1] in owned
        and not pod["metadata"].get("deletionTimestamp")
    ]
    if not running:
        raise UserError(
            f"no running pods found for {deployment}", f"see `kubectl get pods -n {namespace}` and `linkerd check`"
        )
    return str(max(running, key=_is_ready)["metadata"]["name"])


def _controller(obj: dict[str, Any]) -> tuple[str, str]:
    for owner in obj["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            return owner["kind"], owner["name"]
    return "", ""


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@asynccontextmanager
async def channel(
    ctx: Context, client: Client, namespace: str, deployment: str, port: int, *, pod: str = ""
) -> AsyncIterator[grpc.aio.Channel]:
    """gRPC to a port of a deployment's pod (of `pod`, if given). Raises UserError, ApiError."""
    from linkerd.k8s.portforward import listen

    chosen = pod or await running_pod(client, namespace, deployment)
    async with listen(client, namespace, chosen, port) as listener, _open(f"127.0.0.1:{listener.port}") as opened:
        yield opened


def _open(address: str) -> grpc.aio.Channel:
    import grpc

    options = [("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES), ("grpc.enable_http_proxy", 0)]
    return grpc.aio.insecure_channel(address, options=options)


@asynccontextmanager
async def metrics_api(ctx: Context) -> AsyncIterator[Any]:
    """The stub of the metrics API, at `--api-addr` if given. Raises UserError when viz is not there."""
    from linkerd.proto.viz_pb2_grpc import ApiStub

    if ctx.api_addr:
        async with _open(ctx.api_addr) as opened:
            yield ApiStub(opened)
        return
    async with ctx.client() as client:
        namespace = await viz_namespace(ctx, client)
        async with channel(ctx, client, namespace, "metrics-api", 8085) as opened:
            yield ApiStub(opened)


@asynccontextmanager
async def rpc_errors(name: str, hint: str = VIZ_HINT) -> AsyncIterator[None]:
    """Turns a failed call into `<name> API error: <message>`."""
    import grpc

    try:
        yield
    except grpc.aio.AioRpcError as error:
        kind = error.code()
        told = hint if kind in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED) else ""
        raise UserError(f"{name} API error: {error.details()}", told) from None
