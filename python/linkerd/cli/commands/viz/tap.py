"""`linkerd viz tap`: requests as they happen."""

from __future__ import annotations

import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.tapping import tap_events, tap_options, tap_request

if TYPE_CHECKING:
    from linkerd.proto import viz_tap_pb2


@click.command(short_help="Watch requests as they happen")
@click.argument("resource", nargs=-1, required=True, metavar="(TYPE/NAME | TYPE NAME | TYPE)")
@tap_options
@click.option("--count", type=click.IntRange(min=1), default=None, metavar="N", help="End after so many requests.")
@click.option("-o", "--output", type=click.Choice(["table", "wide", "json"]), default="table", help="Output format.")
@pass_context
def command(ctx: Context, **options: Any) -> None:
    """Watch requests as they happen.

    \b
    linkerd viz tap deploy/web -n production
    linkerd viz tap deploy/web -n production --path='/api/v1/orders.*' --method=POST
    linkerd viz tap deploy/web -n production --to deploy/api --status 5xx --min-latency 100ms
    linkerd viz tap deploy/web -n production -o json | jq 'select(.responseEnd)'
    """
    ctx.run(_tap(ctx, options))


async def _tap(ctx: Context, options: dict[str, Any]) -> None:
    request = tap_request(ctx, options)
    if options["output"] == "json":
        request.extract.http.headers.SetInParent()
    show = _printer(options["output"])
    quota = Quota(options["count"])
    async with aclosing(tap_events(ctx, request, seconds=options["duration"])) as events:
        async for event in events:
            if quota.admits(event):
                # Each event by itself: whoever reads from a pipe wants to see it now.
                sys.stdout.write(show(event))
                sys.stdout.flush()
            if quota.used_up():
                return


def _printer(output: str) -> Any:
    from linkerd.cli.output import json, tap

    if output == "json":
        values = tap.JsonEvents()
        return lambda event: json.line(values.value(event))
    return lambda event: tap.line(event, wide=output == "wide") + "\n"


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
