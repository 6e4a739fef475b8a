"""`linkerd viz edges`: who is connected to whom, as whom."""

from __future__ import annotations

import sys
from typing import Any

import click

from linkerd.cli.completing import RESOURCE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import namespace_option
from linkerd.cli.output import json
from linkerd.cli.output.table import Column, right_aligned
from linkerd.cli.reaching import metrics_api, rpc_errors, targets
from linkerd.core import kinds

_SECURED = "√"


@click.command(short_help="Connections between resources and their identities")
@click.argument("resource", metavar="TYPE", type=RESOURCE)
@namespace_option()
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "wide"]), default="table", help="Output format.")
@pass_context
def command(ctx: Context, resource: str, namespace: str, all_namespaces: bool, output: str) -> None:
    """Show the open connections between resources, and whether they are secured.

    \b
    linkerd viz edges deploy -n production
    linkerd viz edges pod -A -o wide
    """
    target = targets([resource], "" if all_namespaces else ctx.namespace(namespace))[0]
    if target.name:
        raise UserError(f"Edges cannot be returned for a specific resource name; remove {target.name} from query")
    if not target.kind.pods or target.kind is kinds.ALL:
        raise UserError(f"Resource type is not supported: {target.kind}")
    edges = ctx.run(_edges(ctx, target))
    if output == "json":
        sys.stdout.write(json.indented(edges))
    elif not edges:
        print("No edges found.", file=sys.stderr)
    else:
        sys.stdout.write(render(edges, wide=output == "wide"))


async def _edges(ctx: Context, target: kinds.Target) -> list[dict[str, str]]:
    from linkerd.proto import viz_pb2

    resource = viz_pb2.Resource(namespace=target.namespace, type=target.kind.name)
    request = viz_pb2.EdgesRequest(selector=viz_pb2.ResourceSelection(resource=resource))
    async with metrics_api(ctx) as api, rpc_errors("Edges"):
        response = await api.Edges(request)
    if response.HasField("error"):
        raise UserError(f"Edges API response error: {response.error.error}")
    found = [_value(edge) for edge in response.ok.edges]
    return sorted(found, key=lambda e: (e["src_namespace"], e["dst_namespace"], e["src"], e["dst"]))


def _value(edge: Any) -> dict[str, str]:
    return {
        "src": edge.src.name,
        "src_namespace": edge.src.namespace,
        "dst": edge.dst.name,
        "dst_namespace": edge.dst.namespace,
        "client_id": edge.client_id,
        "server_id": edge.server_id,
        "no_tls_reason": edge.no_identity_msg,
    }


def render(edges: list[dict[str, str]], *, wide: bool) -> str:
    headings = ["SRC", "DST", "SRC_NS", "DST_NS", *(["CLIENT_ID", "SERVER_ID"] if wide else []), "SECURED"]
    rows = [
        [
            *(edge[name] for name in ("src", "dst", "src_namespace", "dst_namespace")),
            *([_short(edge["client_id"]), _short(edge["server_id"])] if wide else []),
            edge["no_tls_reason"] or _SECURED,
        ]
        for edge in edges
    ]
    return right_aligned([Column(heading, left=True) for heading in headings], rows)


def _short(identity: str) -> str:
    """Service account and namespace: the rest is the same for all."""
    return ".".join(identity.split(".")[:2])
