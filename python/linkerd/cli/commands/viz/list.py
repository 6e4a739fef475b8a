"""`linkerd viz list`: which pods can be tapped."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.flags import namespace_option
from linkerd.cli.workloads import pod_index
from linkerd.viz.index import Pod


@click.command(short_help="Which pods can be tapped")
@namespace_option()
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Output format.")
@pass_context
def command(ctx: Context, namespace: str, all_namespaces: bool, output: str) -> None:
    """List the meshed pods by whether they can be tapped.

    \b
    linkerd viz list -n production
    linkerd viz list -A -o json
    """
    pods = ctx.run(_meshed(ctx, "" if all_namespaces else ctx.namespace(namespace)))
    if output == "json":
        from linkerd.cli.output import json

        sys.stdout.write(json.indented([json_value(pod) for pod in _ordered(pods)]))
    else:
        print(render(pods))


async def _meshed(ctx: Context, namespace: str) -> list[Pod]:
    async with ctx.client() as client:
        index = await pod_index(client, namespace)
    return [pod for pod in index.pods.values() if pod.control_plane == ctx.linkerd_namespace and pod.counts]


def _ordered(pods: Iterable[Pod]) -> list[Pod]:
    return sorted(pods, key=lambda pod: (pod.namespace, pod.name))


def json_value(pod: Pod) -> dict[str, str]:
    tap = "disabled" if pod.tap_disabled else "enabled" if pod.tap_enabled else "missing"
    return {"namespace": pod.namespace, "pod": pod.name, "tap": tap}


def render(pods: Iterable[Pod]) -> str:
    groups: dict[str, list[str]] = {
        "Pods with tap enabled:": [],
        "Pods with tap disabled:": [],
        "Pods missing tap configuration (restart these pods to enable tap):": [],
    }
    enabled, disabled, missing = groups.values()
    for pod in _ordered(pods):
        group = disabled if pod.tap_disabled else enabled if pod.tap_enabled else missing
        group.append(f"\t* {pod.namespace}/{pod.name}")
    shown = ["\n".join([heading, *names]) + "\n" for heading, names in groups.items() if names]
    return "\n".join(shown).rstrip("\n") if shown else "No meshed pods found"
