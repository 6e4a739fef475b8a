"""`linkerd viz check`: is the viz extension in order."""

from __future__ import annotations

from typing import Any

import click

from linkerd.cli.commands.check import check_output
from linkerd.cli.context import Context, pass_context
from linkerd.cli.flags import DURATION, namespace_option

_PREFIX = "validation error when executing check command: "


@click.command(short_help="Check the viz extension for problems")
@click.option("--proxy", is_flag=True, help="Does Prometheus see the data plane?")
@namespace_option("The data plane of this namespace only (default: all).")
@click.option("--wait", type=DURATION, default=300.0, metavar="DURATION", help="How long to retry (default: 5m0s).")
@click.option("-o", "--output", default="table", metavar="FORMAT", help="table, json or short.")
@pass_context
def command(ctx: Context, proxy: bool, namespace: str, wait: float, output: str) -> int:
    """Check the viz extension for problems. The exit code is 1 when a check failed; warnings are no failure.

    \b
    linkerd viz check
    linkerd viz check --proxy -o short
    """
    check_output(output, _PREFIX)
    from linkerd.cli import checking

    async def categories(cluster: Any, client: Any) -> list[Any]:
        return await checking.viz_categories(
            ctx, cluster, client, proxy=proxy, namespace=namespace or None, required=True
        )

    return ctx.run(checking.run(ctx, categories, wait=wait, output=output))
