"""`linkerd viz install`: the manifests of the viz extension on stdout."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.flags import DURATION
from linkerd.cli.output.documents import print_documents
from linkerd.cli.rendering import complete_values, given_values, values_options
from linkerd.install.certificates import new_server_certificate
from linkerd.install.monitoring import alert_rules
from linkerd.install.values import default_values, merged
from linkerd.install.viz import VizInstallation, render
from linkerd.kit.durations import parse_duration

_HIGH_AVAILABILITY = {"metricsAPI": {"replicas": 2}, "tap": {"replicas": 3}}


@click.command(short_help="Print the manifests of the viz extension")
@click.option("--ha", is_flag=True, help="Several replicas of metrics-api and tap.")
@click.option("--ignore-cluster", is_flag=True, help="Ask no cluster whether Linkerd is there.")
@click.option("--skip-checks", is_flag=True, help="The same as --ignore-cluster.")
@click.option(
    "--wait",
    type=DURATION,
    default=300.0,
    metavar="DURATION",
    help="How long to wait for the control plane (default: 5m0s).",
)
@click.option("--print-values", is_flag=True, help="All values with their defaults, and nothing else.")
@click.option("--print-alerts", is_flag=True, help="The alert rules, for a Prometheus of yours, and nothing else.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", help="Format.")
@values_options
@pass_context
def command(
    ctx: Context,
    ha: bool,
    ignore_cluster: bool,
    skip_checks: bool,
    wait: float,
    print_values: bool,
    print_alerts: bool,
    output: str,
    files: tuple[str, ...],
    sets: tuple[str, ...],
    set_strings: tuple[str, ...],
    set_files: tuple[str, ...],
) -> None:
    """Print the manifests of the viz extension, for `kubectl apply -f -`.

    Waits for the control plane first: pods that start before it would not be meshed.

    \b
    linkerd viz install
    linkerd viz install --print-alerts
    linkerd viz install --set prometheusUrl=http://prometheus.monitoring.svc.cluster.local:9090
    """
    if print_values:
        print_documents([default_values("viz_values.yaml")])
        return
    if print_alerts:
        print(alert_rules(), end="")
        return
    agreed = {} if ignore_cluster or skip_checks else ctx.run(_of_control_plane(ctx, wait))
    given = merged(agreed, given_values(files, sets, set_strings, set_files))
    print_documents(documents(ctx, ha=ha, given=given), output)


def documents(ctx: Context, *, ha: bool, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All objects of the extension. Raises UserError."""
    own = merged(_HIGH_AVAILABILITY if ha else {}, {"linkerdNamespace": ctx.linkerd_namespace})
    values = complete_values(merged(own, given), "viz_values.yaml")
    namespace = ctx.viz_namespace or "linkerd-viz"
    lifetime = timedelta(seconds=parse_duration(values["tap"]["certificateLifetime"]))
    tap = new_server_certificate(f"tap.{namespace}.svc", lifetime)
    return render(VizInstallation(namespace, values, tap))


async def _of_control_plane(ctx: Context, wait: float) -> dict[str, str]:
    """The values that must agree with the control plane's. Raises UserError without a working one."""
    from linkerd.checks.cluster import Cluster
    from linkerd.cli.checking import wait_control_plane

    async with ctx.client() as client:
        cluster = Cluster(client, ctx.linkerd_namespace)
        await wait_control_plane(cluster, wait)
        values = await cluster.values()
    return {key: values[key] for key in ("clusterDomain", "identityTrustDomain", "controllerImage")}
