"""`linkerd viz stat-outbound`: what a workload sends, by route and backend, straight from Prometheus."""

from __future__ import annotations

import sys
from typing import Any

import click

from linkerd.cli.commands.viz.stat import window_text
from linkerd.cli.commands.viz.stat_inbound import answers, one_workload, per_route_options
from linkerd.cli.context import Context, pass_context
from linkerd.cli.output import json, per_route


@click.command(short_help="Traffic by the routes and backends that it is sent to")
@per_route_options
@pass_context
def command(ctx: Context, **options: Any) -> None:
    """Show what a workload sends: to which services, by which routes, to which of their backends.

    \b
    linkerd viz stat-outbound deploy/api-service -n production
    """
    from linkerd.viz.metrics.per_route import outbound_queries, outbound_rows

    target = one_workload(options["resource"], ctx.namespace(options["namespace"]))
    seconds = options["time_window"]
    rows = outbound_rows(answers(ctx, outbound_queries(target, window_text(seconds)), options), target)
    if options["output"] == "json":
        sys.stdout.write(json.line(list(per_route.outbound_json(rows, seconds))))
    else:
        sys.stdout.write(per_route.outbound_table(rows, seconds))
