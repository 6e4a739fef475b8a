"""`linkerd prune`: what an older version left behind, on stdout."""

from __future__ import annotations

from typing import Any

import click

from linkerd.cli.context import Context, pass_context

Object = dict[str, Any]


@click.command(short_help="Print objects that an older version left behind, for deletion")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Format.")
@pass_context
def command(ctx: Context, output: str) -> None:
    """Print the control plane's objects that this version would not apply, for `kubectl delete -f -`.

    \b
    linkerd prune
    """
    from linkerd.cli.output.documents import print_documents
    from linkerd.cli.removal import stale_control_plane_objects

    print_documents(ctx.run(stale_control_plane_objects(ctx, _rendered(ctx))), output)


def _rendered(ctx: Context) -> list[Object]:
    """What `linkerd upgrade` and `linkerd install --crds` would print. Raises UserError."""
    from linkerd.cli.commands.upgrade import installed
    from linkerd.cli.rendering import complete_values, control_plane_documents
    from linkerd.install import crds
    from linkerd.install.control_plane import Installation, server_certificates

    given, credentials, _ = ctx.run(installed(ctx))
    values, namespace = complete_values(given), ctx.linkerd_namespace
    servers = server_certificates(namespace, values["webhookCertificateLifetime"])
    # What of the Gateway API and of TrafficSplits is in the cluster has users, whether it is installed by us or not.
    definitions = crds.definitions(
        values["linkerdVersion"], control_plane=namespace, traffic_split=True, gateway_api=True
    )
    return [*definitions, *control_plane_documents(Installation(namespace, values, credentials, servers, given))]
