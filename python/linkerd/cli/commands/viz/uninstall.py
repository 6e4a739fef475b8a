"""`linkerd viz uninstall`: what to delete, on stdout."""

from __future__ import annotations

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.output.documents import print_documents
from linkerd.cli.removal import viz_objects


@click.command(short_help="Print the objects of the viz extension, for deletion")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Format.")
@pass_context
def command(ctx: Context, output: str) -> None:
    """Print the objects of the viz extension, for `kubectl delete -f -`.

    \b
    linkerd viz uninstall
    """
    found = ctx.run(viz_objects(ctx))
    if not found:
        raise UserError("No resources found to uninstall", "is the viz extension installed?")
    print_documents(found, output)
