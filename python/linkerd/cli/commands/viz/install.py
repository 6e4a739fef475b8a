"""`linkerd viz install`: the manifests of the viz extension on stdout."""

from __future__ import annotations

from datetime import timedelta

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.output.documents import print_documents
from linkerd.cli.rendering import complete_values, given_values, values_options
from linkerd.install.certificates import new_server_certificate
from linkerd.install.values import default_values, merged
from linkerd.install.viz import VizInstallation, render
from linkerd.kit.durations import parse_duration

_HIGH_AVAILABILITY = {"metricsAPI": {"replicas": 2}, "tap": {"replicas": 3}}


@click.command(short_help="Print the manifests of the viz extension")
@click.option("--ha", is_flag=True, help="Several replicas of metrics-api and tap.")
@click.option("--ignore-cluster", is_flag=True, help="Ask no cluster whether Linkerd is there.")
@click.option("--skip-checks", is_flag=True, help="The same as --ignore-cluster.")
@click.option("--print-values", is_flag=True, help="All values with their defaults, and nothing else.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Format.")
@values_options
@pass_context
def command(
    ctx: Context,
    ha: bool,
    ignore_cluster: bool,
    skip_checks: bool,
    print_values: bool,
    output: str,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    set_strings: tuple[str, ...],
    set_files: tuple[str, ...],
) -> None:
    """Print the manifests of the viz extension, for `kubectl apply -f -`."""
    if print_values:
        print_documents([default_values("viz_values.yaml")])
        return
    given = merged(
        _HIGH_AVAILABILITY if ha else {},
        {"linkerdNamespace": ctx.linkerd_namespace},
    )
    if not (ignore_cluster or skip_checks):
        given = merged(given, ctx.run(_of_control_plane(ctx)))
    values = complete_values(merged(given, given_values(files, sets, set_strings, set_files)), "viz_values.yaml")
    namespace = ctx.viz_namespace or "linkerd-viz"
    lifetime = timedelta(seconds=parse_duration(values["tap"]["certificateLifetime"]))
    tap = new_server_certificate(f"tap.{namespace}.svc", lifetime)
    print_documents(render(VizInstallation(namespace, values, tap)), output)


async def _of_control_plane(ctx: Context) -> dict[str, str]:
    """The values that must agree with the control plane's. Raises UserError without one."""
    import yaml

    from linkerd.install.control_plane import CONFIG
    from linkerd.k8s.errors import NotFound
    from linkerd.k8s.resources import CONFIG_MAPS

    async with ctx.client() as client:
        try:
            config = await client.get(CONFIG_MAPS, CONFIG, ctx.linkerd_namespace)
        except NotFound:
            raise UserError(
                f"Cannot find Linkerd: configmaps {CONFIG!r} not found in namespace {ctx.linkerd_namespace}",
                "validate the install with `linkerd check`",
            ) from None
    values = yaml.safe_load(config["data"]["values"])
    return {key: values[key] for key in ("clusterDomain", "identityTrustDomain", "controllerImage")}
