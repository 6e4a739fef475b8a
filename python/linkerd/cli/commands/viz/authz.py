"""`linkerd viz authz`: traffic of a workload by what allowed or denied it."""

from __future__ import annotations

import sys
from typing import Any

import click

from linkerd.cli.commands.viz.stat import DEFAULT_WINDOW_SECONDS, window_text
from linkerd.cli.completing import RESOURCE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import DURATION, namespace_option
from linkerd.cli.output import json, numbers
from linkerd.cli.output.table import Column, padded
from linkerd.cli.reaching import metrics_api, rpc_errors, targets

_RIGHT = ("UNAUTHORIZED", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99")
_HEADINGS = ("ROUTE", "SERVER", "AUTHORIZATION", *_RIGHT)


@click.command(short_help="Traffic of a resource by authorization")
@click.argument("resource", nargs=-1, required=True, metavar="(TYPE/NAME | TYPE NAME)", type=RESOURCE)
@namespace_option()
@click.option("-t", "--time-window", type=DURATION, default=DEFAULT_WINDOW_SECONDS, metavar="DURATION",
              help="How far back to look (default: 1m).")  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Output format.")
@pass_context
def command(ctx: Context, **options: Any) -> None:
    """Show what allowed or denied the traffic of a resource, and how much.

    \b
    linkerd viz authz deploy/api-service -n production
    """
    found = targets(options["resource"], ctx.namespace(options["namespace"]))
    if len(found) != 1:
        raise UserError("authorizations are shown for one resource at a time")
    seconds = options["time_window"]
    rows = [cells(row, seconds) for row in ctx.run(_rows(ctx, found[0], seconds))]
    rows = sorted(
        (row for row in rows if row is not None), key=lambda row: (row["SERVER"], row["ROUTE"], row["AUTHORIZATION"])
    )
    if options["output"] == "json":
        sys.stdout.write(json.indented([_json(row) for row in rows]))
        return
    sys.stdout.write(render(rows))


def render(rows: list[dict[str, str]]) -> str:
    columns = [Column(heading, left=heading not in _RIGHT) for heading in _HEADINGS]
    return padded(columns, [[row[heading] for heading in _HEADINGS] for row in rows])


async def _rows(ctx: Context, target: Any, seconds: float) -> list[Any]:
    from linkerd.proto import viz_pb2

    request = viz_pb2.AuthzRequest(time_window=window_text(seconds))
    resource = request.resource.resource
    resource.type, resource.name, resource.namespace = target.kind.name, target.name, target.namespace
    async with metrics_api(ctx) as api, rpc_errors("Authz"):
        response = await api.Authz(request)
    if response.HasField("error"):
        raise UserError(f"Authz API error: {response.error.error}")
    return list(response.ok.stat_table.pod_group.rows)


def cells(row: Any, seconds: float) -> dict[str, str] | None:
    """None for a row that says nothing: a default authorization without traffic."""
    server, stats = row.srv_stats, row.stats
    total = stats.success_count + stats.failure_count
    idle = not total and not server.denied_count
    if idle and server.authz.type in ("", "default"):
        return None
    latencies = (stats.latency_ms_p50, stats.latency_ms_p95, stats.latency_ms_p99)
    return {
        "ROUTE": server.route.name,
        "SERVER": f"default:{server.srv.name}" if server.srv.type == "default" else server.srv.name,
        "AUTHORIZATION": f"{server.authz.type}/{server.authz.name}" if server.authz.name else "",
        "UNAUTHORIZED": numbers.NONE if idle else numbers.per_second(server.denied_count, seconds),
        "SUCCESS": numbers.percent(stats.success_count / total) if total else numbers.NONE,
        "RPS": numbers.per_second(total, seconds) if total else numbers.NONE,
        **{
            f"LATENCY_P{p}": numbers.milliseconds(value) if total else numbers.NONE
            for p, value in zip((50, 95, 99), latencies, strict=True)
        },
    }


def _json(row: dict[str, str]) -> dict[str, Any]:
    """Numbers again; cells without one are left out."""
    value: dict[str, Any] = {
        "authorization": row["AUTHORIZATION"],
        "route": row["ROUTE"],
        "server": row["SERVER"],
        "latency_ms_p50": _number(row["LATENCY_P50"], "ms"),
        "latency_ms_p95": _number(row["LATENCY_P95"], "ms"),
        "latency_ms_p99": _number(row["LATENCY_P99"], "ms"),
        "rps": _number(row["RPS"], "rps"),
        "success": _share(row["SUCCESS"]),
        "unauthorized": _number(row["UNAUTHORIZED"], "rps"),
    }
    return {name: value[name] for name in sorted(value) if value[name] is not None}


def _number(cell: str, unit: str) -> float | int | None:
    if cell == numbers.NONE:
        return None
    number = float(cell.removesuffix(unit))
    return int(number) if unit == "ms" else number


def _share(cell: str) -> float | None:
    return None if cell == numbers.NONE else round(float(cell.removesuffix("%")) / 100, 4)
