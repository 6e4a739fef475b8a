"""`linkerd uninstall`: what to delete, on stdout."""

from __future__ import annotations

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.output.documents import print_documents
from linkerd.cli.removal import control_plane_objects, obstacles


@click.command(short_help="Print the objects of the control plane, for deletion")
@click.option("-f", "--force", is_flag=True, help="Even while extensions or meshed pods exist.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Format.")
@pass_context
def command(ctx: Context, force: bool, output: str) -> None:
    """Print the objects of the control plane, for `kubectl delete -f -`.

    \b
    linkerd uninstall --force
    """
    if not force:
        problems = ctx.run(obstacles(ctx))
        if problems:
            raise UserError("\n".join(problems), "`--force` uninstalls all the same")
    found = ctx.run(control_plane_objects(ctx))
    if not found:
        raise UserError("No resources found to uninstall", "is `--linkerd-namespace` right?")
    print_documents(found, output)
