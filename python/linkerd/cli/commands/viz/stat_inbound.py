"""`linkerd viz stat-inbound`: a workload's traffic by server and route, straight from Prometheus."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.commands.viz.stat import DEFAULT_WINDOW_SECONDS, window_text
from linkerd.cli.completing import RESOURCE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import DURATION, namespace_option
from linkerd.cli.output import json, per_route
from linkerd.cli.reaching import targets

if TYPE_CHECKING:
    from linkerd.core.kinds import Target


def per_route_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags of stat-inbound and stat-outbound."""
    for option in (
        click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Output format."),
        click.option(
            "--prometheusURL",
            "--prometheus-url",
            "prometheus_url",
            default="",
            metavar="URL",
            help="Ask this Prometheus instead of viz's.",
        ),
        click.option(
            "-t",
            "--time-window",
            type=DURATION,
            default=DEFAULT_WINDOW_SECONDS,
            metavar="DURATION",
            help="How far back to look (default: 1m).",
        ),
        namespace_option(),
        click.argument("resource", nargs=-1, required=True, metavar="(TYPE/NAME | TYPE)", type=RESOURCE),
    ):
        command = option(command)
    return command


@click.command(short_help="Traffic by server and route")
@per_route_options
@pass_context
def command(ctx: Context, **options: Any) -> None:
    """Show what a workload receives, by the Server and the route that it came through.

    \b
    linkerd viz stat-inbound deploy/api-service -n production
    """
    from linkerd.viz.metrics.per_route import inbound_queries, inbound_rows

    target = one_workload(options["resource"], ctx.namespace(options["namespace"]))
    seconds = options["time_window"]
    rows = inbound_rows(answers(ctx, inbound_queries(target, window_text(seconds)), options), target)
    if options["output"] == "json":
        sys.stdout.write(json.line([per_route.inbound_json(*row, seconds) for row in rows]))
    else:
        sys.stdout.write(per_route.inbound_table(rows, seconds))


def one_workload(arguments: Sequence[str], namespace: str) -> Target:
    """Raises UserError."""
    found = targets(arguments, namespace)
    if len(found) != 1 or not found[0].kind.pods:
        raise UserError("name one workload, or one kind of workloads", "as in `deploy/web`, `deploy` or `pod`")
    return found[0]


def answers(ctx: Context, queries: dict[str, str], options: dict[str, Any]) -> Any:
    from linkerd.cli.prometheus import ask

    return ctx.run(ask(ctx, queries, options["prometheus_url"]))
