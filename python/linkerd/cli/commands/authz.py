"""`linkerd authz`: the policies that bear on a workload."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.completing import RESOURCE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import namespace_option

if TYPE_CHECKING:
    from linkerd.cli.authorizations import Found, Row
    from linkerd.core.kinds import Target
    from linkerd.k8s.client import Client
    from linkerd.k8s.resources import Resource


@click.command(short_help="The policies that bear on a workload")
@click.argument("resource", nargs=-1, required=True, metavar="(TYPE/NAME | TYPE NAME)", type=RESOURCE)
@namespace_option()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Output format.")
@pass_context
def command(ctx: Context, resource: Sequence[str], namespace: str, output: str) -> None:
    """Show which policies decide who may talk to a workload. How much they let through: `linkerd viz authz`.

    \b
    linkerd authz deploy/metrics-api -n linkerd-viz
    """
    from linkerd.cli.reaching import targets

    found = targets(resource, ctx.namespace(namespace))
    if len(found) != 1:
        raise UserError("authorizations are shown for one resource at a time")
    if not found[0].kind.pods:
        raise UserError(f"invalid resource type {found[0].kind}", "policies bear on pods and workloads")
    answer = ctx.run(_found(ctx, found[0]))
    for problem in answer.problems:
        print(f"warning: {problem}", file=sys.stderr)
    if output == "json":
        from linkerd.cli.output import json

        sys.stdout.write(json.indented([_json(row) for row in answer.rows]))
    else:
        sys.stdout.write(render(answer.rows))


async def _found(ctx: Context, target: Target) -> Found:
    from linkerd.cli.authorizations import Policies, authorizations
    from linkerd.core import kinds
    from linkerd.core.workloads import parse_pod
    from linkerd.k8s import resources

    namespace = target.name if target.kind is kinds.NAMESPACE else target.namespace
    async with ctx.client() as client:
        pods, *lists = await asyncio.gather(
            _pods(client, target, namespace),
            _list(client, resources.SERVERS, namespace),
            _list(client, resources.SERVER_AUTHORIZATIONS, namespace),
            _list(client, resources.AUTHORIZATION_POLICIES, namespace),
            _list(client, resources.HTTP_ROUTES, namespace),
            _list(client, resources.GATEWAY_HTTP_ROUTES, namespace),
            _list(client, resources.GATEWAY_GRPC_ROUTES, namespace),
        )
    servers, server_authorizations, policies, *routes = lists
    known = Policies(servers, server_authorizations, policies, [route for found in routes for route in found])
    return authorizations(map(parse_pod, pods), known)


async def _pods(client: Client, target: Target, namespace: str) -> list[Any]:
    """The target's pods as objects. Raises UserError when there are none."""
    from linkerd.cli.workloads import pods_of
    from linkerd.k8s.resources import PODS

    wanted = {pod.name for pod in await pods_of(client, target)}
    return [pod for pod in await client.list(PODS, namespace) if pod["metadata"]["name"] in wanted]


async def _list(client: Client, resource: Resource, namespace: str) -> list[Any]:
    """None where the kind is not installed."""
    from linkerd.k8s.errors import NotFound

    try:
        found = await client.list(resource, namespace)
    except NotFound:
        return []
    return [{"kind": resource.kind} | item for item in found]


def render(rows: Sequence[Row]) -> str:
    from linkerd.cli.output.table import Column, padded

    headings = ("ROUTE", "SERVER", "AUTHORIZATION_POLICY", "SERVER_AUTHORIZATION")
    columns = [Column(heading, left=True, width=width) for heading, width in zip(headings, (6, 6, 21, 21), strict=True)]
    return padded(columns, [[row.route, row.server, row.policy, row.server_authorization] for row in rows])


def _json(row: Row) -> dict[str, str]:
    return {
        "route": row.route,
        "server": row.server,
        "authorization_policy": row.policy,
        "server_authorization": row.server_authorization,
    }
