"""`linkerd viz stat`: success rate, requests per second and latency over a window."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.completing import ANY_RESOURCE, NAMESPACE, RESOURCE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import DURATION, namespace_option
from linkerd.cli.output import json, stat
from linkerd.cli.reaching import metrics_api, rpc_errors, targets
from linkerd.core import kinds
from linkerd.core.kinds import Target, parse_kind

if TYPE_CHECKING:
    from linkerd.proto import viz_pb2

DEFAULT_WINDOW_SECONDS = 60.0


def window_text(seconds: float) -> str:
    """As Prometheus writes it. Raises UserError for what is no window."""
    if seconds <= 0:
        raise UserError("the time window must be longer than 0s")
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds * 1000:.0f}ms"


@click.command(short_help="Success rate, requests per second and latency of resources")
@click.argument("resources", nargs=-1, required=True, metavar="(RESOURCE | RESOURCE/NAME)...", type=ANY_RESOURCE)
@namespace_option()
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option(
    "--to", default="", metavar="RESOURCE", type=RESOURCE, help="Only traffic to this resource, by its sources."
)
@click.option("--to-namespace", default="", metavar="NAMESPACE", type=NAMESPACE, help="Where the resource of --to is.")
@click.option(
    "--from", "source", default="", metavar="RESOURCE", type=RESOURCE, help="Only traffic from it, by its destinations."
)
@click.option(
    "--from-namespace", default="", metavar="NAMESPACE", type=NAMESPACE, help="Where the resource of --from is."
)
@click.option("-l", "--selector", default="", metavar="LABELS", help="Only resources with these labels.")
@click.option("-t", "--time-window", type=DURATION, default=DEFAULT_WINDOW_SECONDS, metavar="DURATION",
              help="How far back to look, at least two scrape intervals (default: 1m).")  # fmt: skip
@click.option("--unmeshed", is_flag=True, help="Also resources without meshed pods.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "wide"]), default="table", help="Output format.")
@pass_context
def command(ctx: Context, **options: Any) -> None:
    """Success rate, requests per second and latency.

    \b
    linkerd viz stat deploy -n production
    linkerd viz stat deploy/order-service -n production -t 5m
    linkerd viz stat deploy -n production --to svc/database
    linkerd viz stat pod -n production -l app=order-service
    """
    _check_exclusive(options)
    requests = _requests(ctx, options)
    rows = ctx.run(_rows(ctx, requests))
    shown = [row for row in rows if options["unmeshed"] or options["source"] or _meshed(row)]
    _print(shown, options)


def _check_exclusive(options: dict[str, Any]) -> None:
    if options["to"] and options["source"]:
        raise UserError("--to and --from flags are mutually exclusive")
    if options["to_namespace"] and options["from_namespace"]:
        raise UserError("--to-namespace and --from-namespace flags are mutually exclusive")
    if options["all_namespaces"] and options["namespace"]:
        raise UserError("--all-namespaces and --namespace flags are mutually exclusive")


def _requests(ctx: Context, options: dict[str, Any]) -> list[viz_pb2.StatSummaryRequest]:
    namespace = "" if options["all_namespaces"] else ctx.namespace(options["namespace"])
    asked = targets(options["resources"], namespace)
    for target in asked:
        _check_target(target, options)
    return [_request(target, namespace, options) for target in asked]


def _check_target(target: Target, options: dict[str, Any]) -> None:
    if target.name and options["all_namespaces"] and target.kind is not kinds.NAMESPACE:
        raise UserError("stats for a resource cannot be retrieved by name across all namespaces")
    if target.kind is kinds.NAMESPACE:
        for flag in ("to_namespace", "from_namespace", "namespace"):
            if options[flag]:
                name = flag.replace("_", "-")
                raise UserError(f"--{name} flag is incompatible with namespace resource type")


def _request(target: Target, namespace: str, options: dict[str, Any]) -> viz_pb2.StatSummaryRequest:
    from linkerd.proto import viz_pb2

    request = viz_pb2.StatSummaryRequest(time_window=window_text(options["time_window"]), tcp_stats=True)
    request.selector.resource.CopyFrom(_resource(target))
    request.selector.label_selector = options["selector"]
    if options["to"] or options["to_namespace"]:
        other = _other(options["to"], options["to_namespace"], namespace)
        request.to_resource.CopyFrom(_resource(other))
    elif options["source"] or options["from_namespace"]:
        other = _other(options["source"], options["from_namespace"], namespace)
        request.from_resource.CopyFrom(_resource(other))
    return request


def _other(text: str, other_namespace: str, namespace: str) -> Target:
    """The resource of --to or --from; a namespace alone stands for all that is in it."""
    if not text:
        return Target(kinds.NAMESPACE, other_namespace)
    return targets([text], other_namespace or namespace)[0]


def _resource(target: Target) -> viz_pb2.Resource:
    from linkerd.proto import viz_pb2

    return viz_pb2.Resource(namespace=target.namespace, type=target.kind.name, name=target.name)


async def _rows(ctx: Context, requests: list[viz_pb2.StatSummaryRequest]) -> list[stat.Row]:
    async with metrics_api(ctx) as api, rpc_errors("StatSummary"):
        responses = await asyncio.gather(*(api.StatSummary(request) for request in requests))
    rows: list[stat.Row] = []
    for response in responses:
        if response.HasField("error"):
            raise UserError(f"StatSummary API response error: {response.error.error}")
        rows += [_row(row) for table in response.ok.stat_tables for row in table.pod_group.rows]
    return rows


def _row(row: Any) -> stat.Row:
    stats, tcp = row.stats, row.tcp_stats
    server = row.srv_stats if row.HasField("srv_stats") else None
    return stat.Row(
        kind=parse_kind(row.resource.type),
        namespace=row.resource.namespace,
        name=row.resource.name,
        meshed=row.meshed_pod_count,
        running=row.running_pod_count,
        status=row.status,
        traffic=stat.Traffic(
            stats.success_count, stats.failure_count, stats.latency_ms_p50, stats.latency_ms_p95, stats.latency_ms_p99
        )
        if row.HasField("stats")
        else None,
        tcp=stat.Tcp(tcp.open_connections, tcp.read_bytes_total, tcp.write_bytes_total)
        if row.HasField("tcp_stats")
        else None,
        server=server.srv.name if server else "",
        denied=server.denied_count if server else None,
        apex=row.ts_stats.apex,
        leaf=row.ts_stats.leaf,
        weight=row.ts_stats.weight,
    )


def _meshed(row: stat.Row) -> bool:
    return row.meshed > 0 or not row.kind.pods


def _print(rows: list[stat.Row], options: dict[str, Any]) -> None:
    seconds = options["time_window"]
    if options["output"] == "json":
        sys.stdout.write(json.indented(stat.json_rows(rows, seconds)))
    elif not rows:
        print("No traffic found.", file=sys.stderr)
    else:
        layout = stat.Layout(seconds, namespaces=options["all_namespaces"], wide=options["output"] == "wide")
        sys.stdout.write(stat.tables(rows, layout))
