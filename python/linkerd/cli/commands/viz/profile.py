"""`linkerd viz profile`: a ServiceProfile from live traffic."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.completing import RESOURCE, SERVICE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import DURATION, namespace_option

if TYPE_CHECKING:
    from linkerd.profile.traffic import SeenRoutes

_MAX_RPS = 100.0


@click.command(short_help="Print a ServiceProfile made from live traffic")
@click.argument("service", type=SERVICE)
@namespace_option("Namespace of the service and of what is tapped.")
@click.option(
    "--tap", "resource", default="", metavar="RESOURCE", type=RESOURCE, help="Whose requests to watch, as `deploy/web`."
)
@click.option("--tap-duration", type=DURATION, default=5.0, metavar="DURATION", help="For how long (default: 5s).")
@click.option("--tap-route-limit", type=click.IntRange(min=1), default=20, help="End at so many routes (20).")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Output format.")
@pass_context
def command(ctx: Context, service: str, **options: Any) -> None:
    """Watch what is requested, and print a ServiceProfile with a route for each method and path.

    Paths with identifiers in them become a route each: replace those by one with a regular expression.

    \b
    linkerd viz profile --tap deploy/api-service -n production --tap-duration 30s api-service
    """
    if not options["resource"]:
        raise UserError("The --tap flag must be specified", "as in `--tap deploy/web`")
    from linkerd.cli.profiles import check_names, cluster_domain, print_profile
    from linkerd.profile.routes import service_profile
    from linkerd.profile.traffic import SeenRoutes

    namespace = ctx.namespace(options["namespace"])
    check_names(service, namespace)
    domain = ctx.run(cluster_domain(ctx))
    seen = SeenRoutes(options["tap_route_limit"])
    ctx.run(_watch(ctx, options, namespace, seen))
    if not seen.routes():
        raise UserError(
            f"{options['resource']} received no request that could be a route",
            "raise --tap-duration, or see with `linkerd viz stat` whether there is traffic at all",
        )
    print_profile(service_profile(service, namespace, domain, seen.routes()), options["output"])


async def _watch(ctx: Context, options: dict[str, Any], namespace: str, seen: SeenRoutes) -> None:
    """Until there are enough routes or the time is over. Requests that the tap left out are no loss: a path that
    matters comes again."""
    from linkerd.cli.output.tap import method, part_of
    from linkerd.cli.tapping import plain_tap_request, tap_events
    from linkerd.proto import viz_tap_pb2 as tap

    request = plain_tap_request(options["resource"], namespace, _MAX_RPS)
    events = tap_events(ctx, request, seconds=options["tap_duration"], say=lambda _: None)
    async with aclosing(events):
        async for event in events:
            if part_of(event) != "request_init" or event.proxy_direction != tap.TapEvent.INBOUND:
                continue
            init = event.http.request_init
            seen.add(method(init.method), init.path)
            if seen.full:
                return
