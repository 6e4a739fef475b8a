"""`linkerd diagnostics profile`: what the control plane tells a proxy of an address."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.output import json
from linkerd.cli.reaching import channel, rpc_errors

_ANSWER_SECONDS = 5.0
_HINT = "is the control plane well? see `linkerd check`"


@click.command(short_help="What the destination service tells of an address")
@click.argument("address", metavar="ADDRESS")
@click.option("--destination-pod", default="", metavar="POD", help="Ask this pod of the control plane.")
@click.option("--token", default="", help="The context token that a proxy would send.")
@pass_context
def command(ctx: Context, address: str, destination_pod: str, token: str) -> None:
    """Print the profile of an address, as a proxy is told of it.

    \b
    linkerd diagnostics profile api-service.production.svc.cluster.local:8080
    """
    sys.stdout.write(json.indented(ctx.run(_profile(ctx, address, destination_pod, token))))


async def _profile(ctx: Context, address: str, pod: str, token: str) -> dict[str, Any]:
    from linkerd.cli.output.messages import go_struct
    from linkerd.proto import destination_pb2
    from linkerd.proto.destination_pb2_grpc import DestinationStub

    request = destination_pb2.GetDestination(path=address, context_token=token)
    async with ctx.client() as client:
        reached = channel(ctx, client, ctx.linkerd_namespace, "linkerd-destination", 8086, pod=pod)
        async with reached as opened, rpc_errors("Destination", _HINT):
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    return go_struct(await anext(aiter(DestinationStub(opened).GetProfile(request))))
            except (TimeoutError, StopAsyncIteration):
                raise UserError(f"the destination service told nothing about {address}", _HINT) from None
