"""`linkerd viz list`: which pods can be tapped."""

from __future__ import annotations

from collections.abc import Iterable

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.flags import namespace_option
from linkerd.cli.workloads import pod_index
from linkerd.viz.index import Pod


@click.command(short_help="Which pods can be tapped")
@namespace_option()
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@pass_context
def command(ctx: Context, namespace: str, all_namespaces: bool) -> None:
    """List the meshed pods by whether they can be tapped.

    \b
    linkerd viz list -n production
    """
    pods = ctx.run(_meshed(ctx, "" if all_namespaces else ctx.namespace(namespace)))
    print(render(pods))


async def _meshed(ctx: Context, namespace: str) -> list[Pod]:
    async with ctx.client() as client:
        index = await pod_index(client, namespace)
    return [pod for pod in index.pods.values() if pod.control_plane == ctx.linkerd_namespace and pod.counts]


def render(pods: Iterable[Pod]) -> str:
    groups: dict[str, list[str]] = {
        "Pods with tap enabled:": [],
        "Pods with tap disabled:": [],
        "Pods missing tap configuration (restart these pods to enable tap):": [],
    }
    enabled, disabled, missing = groups.values()
    for pod in sorted(pods, key=lambda pod: (pod.namespace, pod.name)):
        group = disabled if pod.tap_disabled else enabled if pod.tap_enabled else missing
        group.append(f"\t* {pod.namespace}/{pod.name}")
    shown = ["\n".join([heading, *names]) + "\n" for heading, names in groups.items() if names]
    return "\n".join(shown).rstrip("\n") if shown else "No meshed pods found"
