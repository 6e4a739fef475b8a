"""`linkerd viz prune`: what an older version of viz left behind, on stdout."""

from __future__ import annotations

from typing import Any

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.rendering import given_values, values_options


@click.command(short_help="Print objects that an older version left behind, for deletion")
@click.option("--ha", is_flag=True, help="As given to `linkerd viz install`.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Format.")
@values_options
@pass_context
def command(
    ctx: Context,
    ha: bool,
    output: str,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    set_strings: tuple[str, ...],
    set_files: tuple[str, ...],
) -> None:
    """Print viz's objects that this version would not apply, for `kubectl delete -f -`.

    Give the values that `linkerd viz install` was given: with them, what is no longer wanted is seen.

    \b
    linkerd viz prune --set prometheus.scrapeInterval=5s
    """
    from linkerd.cli.commands.viz.install import documents
    from linkerd.cli.output.documents import print_documents
    from linkerd.cli.removal import stale_viz_objects

    given: dict[str, Any] = given_values(files, sets, set_strings, set_files)
    print_documents(ctx.run(stale_viz_objects(ctx, documents(ctx, ha=ha, given=given))), output)
