"""`linkerd diagnostics policy`: the policy of a pod's port, or of what is sent to a service."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.output import json
from linkerd.cli.reaching import channel, rpc_errors
from linkerd.core import kinds
from linkerd.core.kinds import Target, UnknownKind, parse_kind

if TYPE_CHECKING:
    import grpc

_HINT = "is the control plane well? see `linkerd check`"


@click.command(short_help="The inbound policy of a pod, the outbound policy of a service")
@click.argument("arguments", nargs=-1, required=True, metavar="(po|svc)/NAME PORT")
@click.option("-n", "--namespace", default="default", metavar="NAMESPACE", help="Namespace (default: default).")
@click.option("--destination-pod", default="", metavar="POD", help="Ask this pod of the control plane.")
@click.option("--token", default="default:diagnostics", help="The workload on whose behalf is asked.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Output format.")
@pass_context
def command(
    ctx: Context, arguments: Sequence[str], namespace: str, destination_pod: str, token: str, output: str
) -> None:
    """Print the policy that a pod enforces on a port, or that is followed towards a service.

    \b
    linkerd diagnostics policy -n production svc/api-service 8080
    linkerd diagnostics policy -n production po/<pod-name> 8080 -o json
    """
    target, port = _parse(arguments, namespace)
    policy = ctx.run(_policy(ctx, target, port, destination_pod, token))
    if output == "json":
        sys.stdout.write(json.indented(policy))
        return
    import yaml

    yaml.safe_dump(policy, sys.stdout, sort_keys=True)


def _parse(arguments: Sequence[str], namespace: str) -> tuple[Target, int]:
    """`po/web 8080` or `po web 8080`."""
    words = [word for argument in arguments[:-1] for word in argument.split("/")]
    if len(words) != 2 or not all(words):
        raise UserError("resource type and name are required", "as in `po/web-5d9c-x2x1z 8080`")
    if not arguments[-1].isdigit() or not 0 < int(arguments[-1]) < 65536:
        raise UserError(f"`{arguments[-1]}` is not a port")
    try:
        kind = parse_kind(words[0])
    except UnknownKind:
        kind = kinds.ALL
    if kind not in (kinds.POD, kinds.SERVICE):
        raise UserError(f"invalid resource type {words[0]}; must be one of Pod or Service")
    return Target(kind, words[1], namespace), int(arguments[-1])


async def _policy(ctx: Context, target: Target, port: int, pod: str, token: str) -> dict[str, Any]:
    from linkerd.cli.output.messages import go_struct

    async with ctx.client() as client:
        reached = channel(ctx, client, ctx.linkerd_namespace, "linkerd-destination", 8090, pod=pod)
        async with reached as opened, rpc_errors("Policy", _HINT):
            ask = _inbound if target.kind is kinds.POD else _outbound
            return go_struct(await ask(opened, target, port, token))


async def _inbound(opened: grpc.aio.Channel, target: Target, port: int, _: str) -> Any:
    from linkerd.proto import inbound_pb2
    from linkerd.proto.inbound_pb2_grpc import InboundServerPoliciesStub

    request = inbound_pb2.PortSpec(workload=f"{target.namespace}:{target.name}", port=port)
    return await InboundServerPoliciesStub(opened).GetPort(request)


async def _outbound(opened: grpc.aio.Channel, target: Target, port: int, token: str) -> Any:
    from linkerd.proto import outbound_pb2
    from linkerd.proto.outbound_pb2_grpc import OutboundPoliciesStub

    authority = f"{target.name}.{target.namespace}.svc:{port}"
    request = outbound_pb2.TrafficSpec(source_workload=token, authority=authority)
    return await OutboundPoliciesStub(opened).Get(request)
