"""`linkerd viz tap`: requests as they happen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.completing import RESOURCE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.tapping import tap_events, tap_options, tap_request

if TYPE_CHECKING:
    from linkerd.proto import viz_tap_pb2


@click.command(short_help="Watch requests as they happen")
@click.argument("resource", nargs=-1, required=True, metavar="(TYPE/NAME | TYPE NAME | TYPE)", type=RESOURCE)
@tap_options
@click.option("--count", type=click.IntRange(min=1), default=None, metavar="N", help="End after so many requests.")
@click.option("-o", "--output", default="table", metavar="FORMAT", help="table, wide, json or jsonpath=EXPRESSION.")
@pass_context
def command(ctx: Context, **options: Any) -> None:
    """Watch requests as they happen. What is left out because there is too much of it is counted on stderr.

    \b
    linkerd viz tap deploy/api-service -n production
    linkerd viz tap deploy/api-service -n production --path='/api/v1/orders.*' --method=POST
    linkerd viz tap deploy/api-gateway -n production --to deploy/api-service --status 5xx --min-latency 100ms
    linkerd viz tap deploy/api-service -n production -o json | jq 'select(.responseEnd)'
    linkerd viz tap deploy/api-service -n production -o jsonpath='{.responseInit.httpStatus}'
    """
    show = _printer(options["output"])
    ctx.run(_tap(ctx, options, show))


async def _tap(ctx: Context, options: dict[str, Any], show: Callable[[viz_tap_pb2.TapEvent], str]) -> None:
    request = tap_request(ctx, options)
    if options["output"].startswith("json"):
        request.extract.http.headers.SetInParent()
    quota = Quota(options["count"])
    async with aclosing(tap_events(ctx, request, seconds=options["duration"])) as events:
        async for event in events:
            if quota.admits(event):
                # Each event by itself: whoever reads from a pipe wants to see it now.
                sys.stdout.write(show(event))
                sys.stdout.flush()
            if quota.used_up():
                return


def _printer(output: str) -> Callable[[viz_tap_pb2.TapEvent], str]:
    """An event as it is written, its end of line included; empty for one that has nothing to show. Raises UserError."""
    if output in ("table", "wide"):
        from linkerd.cli.output import tap

        return lambda event: tap.line(event, wide=output == "wide") + "\n"
    if output == "json":
        from linkerd.cli.output import json, tap

        values = tap.JsonEvents()
        return lambda event: json.line(values.value(event))
    kind, _, expression = output.partition("=")
    if kind != "jsonpath" or not expression:
        raise UserError(
            f'output format "{output}" not recognized', "formats are table, wide, json and jsonpath='{.some.key}'"
        )
    return _path_printer(expression)


def _path_printer(expression: str) -> Callable[[viz_tap_pb2.TapEvent], str]:
    """Values one a line. An event without the key is no mistake: requests have no status."""
    from linkerd.cli.output import json, tap
    from linkerd.cli.output.jsonpath import JsonPathError, parse_jsonpath

    try:
        path = parse_jsonpath(expression)
    except JsonPathError as error:
        raise UserError(str(error), "as in `-o jsonpath='{.responseEnd.sinceRequestInit.nanos}'`") from None
    values = tap.JsonEvents()
    return lambda event: "".join(json.line(found) for found in path.find(values.value(event)))


class Quota:
    """So many requests, each to its end."""

    def __init__(self, count: int | None) -> None:
        self._left = count
        self._open: set[tuple[int, int]] = set()

    def admits(self, event: viz_tap_pb2.TapEvent) -> bool:
        if self._left is None:
            return True
        from linkerd.cli.output.tap import part_of, stream_of

        part = part_of(event)
        if not part:
            return False
        stream = stream_of(event)
        if part == "request_init" and self._left > 0:
            self._left -= 1
            self._open.add(stream)
            return True
        shown = stream in self._open
        if part == "response_end":
            self._open.discard(stream)
        return shown

    def used_up(self) -> bool:
        return self._left == 0 and not self._open
