"""`linkerd viz routes`: success rate, requests per second and latency of the routes of ServiceProfiles."""

from __future__ import annotations

import sys
from typing import Any

import click

from linkerd.cli.commands.viz.stat import DEFAULT_WINDOW_SECONDS, window_text
from linkerd.cli.completing import NAMESPACE, RESOURCE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import DURATION, namespace_option
from linkerd.cli.output import json, numbers
from linkerd.cli.output.table import Column, right_aligned
from linkerd.cli.reaching import metrics_api, rpc_errors, targets
from linkerd.core.kinds import Target


@click.command(short_help="Per-route metrics (with a ServiceProfile)")
@click.argument("resource", nargs=-1, required=True, metavar="(TYPE/NAME | TYPE)", type=RESOURCE)
@namespace_option()
@click.option("-l", "--selector", default="", metavar="LABELS", help="Only resources with these labels.")
@click.option("-t", "--time-window", type=DURATION, default=DEFAULT_WINDOW_SECONDS, metavar="DURATION",
              help="How far back to look (default: 1m).")  # fmt: skip
@click.option("--to", default="", metavar="RESOURCE", type=RESOURCE, help="The routes that are called there.")
@click.option("--to-namespace", default="", metavar="NAMESPACE", type=NAMESPACE, help="Where the resource of --to is.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "wide"]), default="table", help="Output format.")
@pass_context
def command(ctx: Context, **options: Any) -> None:
    """Success rate, requests per second and latency of each route.

    \b
    linkerd viz routes deploy/api-service -n production
    linkerd viz routes deploy/api-gateway -n production --to svc/api-service -o wide
    """
    if options["output"] == "wide" and not options["to"]:
        raise UserError("wide output is only available when --to is specified")
    namespace = ctx.namespace(options["namespace"])
    target = _one(options["resource"], namespace)
    to = _one([options["to"]], options["to_namespace"] or namespace) if options["to"] else None
    tables = ctx.run(_tables(ctx, target, to, options))
    seconds = options["time_window"]
    if options["output"] == "json":
        sys.stdout.write(json.indented({name: _json_rows(rows, seconds, to is not None) for name, rows in tables}))
    else:
        sys.stdout.write(render(tables, seconds, wide=options["output"] == "wide"))


def _one(arguments: Any, namespace: str) -> Target:
    found = targets(arguments, namespace)
    if len(found) != 1:
        raise UserError("routes are shown for one resource at a time")
    return found[0]


async def _tables(ctx: Context, target: Target, to: Target | None, options: dict[str, Any]) -> list[tuple[str, Any]]:
    from linkerd.proto import viz_pb2

    request = viz_pb2.TopRoutesRequest(time_window=window_text(options["time_window"]))
    request.selector.label_selector = options["selector"]
    resource = request.selector.resource
    resource.type, resource.name, resource.namespace = target.kind.name, target.name, target.namespace
    if to is not None:
        other = request.to_resource
        other.type, other.name, other.namespace = to.kind.name, to.name, to.namespace
    async with metrics_api(ctx) as api, rpc_errors("TopRoutes"):
        response = await api.TopRoutes(request)
    if response.HasField("error"):
        raise UserError(response.error.error)
    return sorted(
        (table.resource, sorted(table.rows, key=lambda row: (row.authority, row.route))) for table in response.ok.routes
    )


def render(tables: list[tuple[str, Any]], seconds: float, *, wide: bool) -> str:
    """A table for each object, each followed by an empty line."""
    parts = []
    for name, rows in tables:
        if len(tables) > 1:
            parts.append(f"==> {name} <==\n")
        parts.append(_table(rows, seconds, wide) + "\n")
    return "".join(parts)


def _table(rows: Any, seconds: float, wide: bool) -> str:
    rates = ("EFFECTIVE_SUCCESS", "EFFECTIVE_RPS", "ACTUAL_SUCCESS", "ACTUAL_RPS") if wide else ("SUCCESS", "RPS")
    columns = [
        Column("ROUTE", left=True),
        Column("SERVICE"),
        *(Column(heading) for heading in rates),
        *(Column(f"LATENCY_{p}") for p in ("P50", "P95", "P99")),
    ]
    return right_aligned(columns, [_cells(row, seconds, wide) for row in rows])


def _cells(row: Any, seconds: float, wide: bool) -> list[str]:
    stats = row.stats
    pairs = [(stats.success_count, stats.failure_count)]
    if wide:
        pairs.append((stats.actual_success_count, stats.actual_failure_count))
    cells = [row.route, row.authority]
    for success, failure in pairs:
        total = success + failure
        cells += [numbers.percent(success / total), numbers.per_second(total, seconds)] if total else [numbers.NONE] * 2
    latencies = (stats.latency_ms_p50, stats.latency_ms_p95, stats.latency_ms_p99)
    busy = stats.success_count + stats.failure_count > 0
    return cells + [numbers.milliseconds(value) if busy else numbers.NONE for value in latencies]


def _json_rows(rows: Any, seconds: float, with_actual: bool) -> list[dict[str, Any]]:
    return [_json_row(row, seconds, with_actual) for row in rows]


def _json_row(row: Any, seconds: float, with_actual: bool) -> dict[str, Any]:
    stats = row.stats
    prefix = "effective_" if with_actual else ""
    value: dict[str, Any] = {"route": row.route, "authority": row.authority}
    value |= _rates(prefix, stats.success_count, stats.failure_count, seconds)
    if with_actual:
        value |= _rates("actual_", stats.actual_success_count, stats.actual_failure_count, seconds)
    return value | {
        "latency_ms_p50": stats.latency_ms_p50,
        "latency_ms_p95": stats.latency_ms_p95,
        "latency_ms_p99": stats.latency_ms_p99,
    }


def _rates(prefix: str, success: int, failure: int, seconds: float) -> dict[str, float]:
    total = success + failure
    return {f"{prefix}success": success / total if total else 0, f"{prefix}rps": total / seconds}
