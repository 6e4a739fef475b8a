"""`linkerd check`: is the mesh, or the cluster that is to have it, in order."""

from __future__ import annotations

from typing import Any

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import DURATION, namespace_option

_PREFIX = "Validation error when executing check command: "


@click.command(short_help="Check the installation for problems")
@click.option("--pre", is_flag=True, help="Before an installation: can this cluster have it?")
@click.option("--crds", is_flag=True, help="Only the CustomResourceDefinitions.")
@click.option("--proxy", is_flag=True, help="The data plane's proxies as well.")
@namespace_option("The data plane of this namespace only (default: all).")
@click.option("--wait", type=DURATION, default=300.0, metavar="DURATION", help="How long to retry (default: 5m0s).")
@click.option("-o", "--output", default="table", metavar="FORMAT", help="table, json or short.")
@pass_context
def command(ctx: Context, pre: bool, crds: bool, proxy: bool, namespace: str, wait: float, output: str) -> int:
    """Check the installation for problems. The exit code is 1 when a check failed; warnings are no failure.

    \b
    linkerd check --pre
    linkerd check
    linkerd check --proxy --namespace production
    """
    check_output(output, _PREFIX)
    if pre and (proxy or crds):
        raise UserError(f"{_PREFIX}--pre and --{'proxy' if proxy else 'crds'} flags are mutually exclusive")
    from linkerd.cli import checking

    async def categories(cluster: Any, client: Any) -> list[Any]:
        if pre:
            return checking.before_installation(cluster, _documents(ctx))
        if crds:
            return checking.definition_categories(cluster)
        core = await checking.core_categories(cluster, client, proxy=proxy, namespace=namespace or None)
        return core + await checking.viz_categories(
            ctx, cluster, client, proxy=proxy, namespace=namespace or None, required=False
        )

    return ctx.run(checking.run(ctx, categories, wait=wait, output=output))


def check_output(output: str, prefix: str) -> None:
    """Raises UserError for an unknown format."""
    if output not in ("table", "json", "short"):
        raise UserError(f"{prefix}Invalid output type '{output}'. Supported output types are: json, table, short")


def _documents(ctx: Context) -> list[Any]:
    """What `linkerd install` would print, with certificates that nobody will use."""
    from linkerd.cli.rendering import complete_values, control_plane_documents
    from linkerd.install import crds
    from linkerd.install.certificates import new_credentials
    from linkerd.install.control_plane import Installation, server_certificates

    values, namespace = complete_values({}), ctx.linkerd_namespace
    servers = server_certificates(namespace, values["webhookCertificateLifetime"])
    credentials = new_credentials(namespace, values["clusterDomain"])
    installation = Installation(namespace, values, credentials, servers, {})
    return [*crds.definitions(values["linkerdVersion"]), *control_plane_documents(installation)]
