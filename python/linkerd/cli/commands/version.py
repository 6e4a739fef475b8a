"""`linkerd version`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from linkerd import VERSION
from linkerd.cli.context import Context, pass_context
from linkerd.cli.flags import namespace_option

if TYPE_CHECKING:
    from linkerd.k8s.client import Client

UNAVAILABLE = "unavailable"
_TIMEOUT_SECONDS = 5.0


@click.command(short_help="Show the versions of the CLI and the control plane")
@click.option("--client", "client_only", is_flag=True, help="Only this command's version; needs no cluster.")
@click.option("--short", is_flag=True, help="Only the values.")
@click.option("--proxy", is_flag=True, help="The versions of the proxies as well.")
@namespace_option("Count the proxies of this namespace only.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Output format.")
@pass_context
def command(ctx: Context, client_only: bool, short: bool, proxy: bool, namespace: str, output: str) -> None:
    """Show the versions of the CLI, the control plane and the proxies.

    \b
    linkerd version
    linkerd version --client --short
    linkerd version --proxy -n production
    linkerd version -o json
    """
    if output == "json":
        _print_json(ctx, namespace, client_only, proxy)
        return
    print(VERSION if short else f"Client version: {VERSION}")
    if client_only:
        return
    server, proxies = ctx.run(_server(ctx, namespace, proxy))
    print(server if short else f"Server version: {server}")
    if proxy:
        _print_proxies(proxies)


def _print_json(ctx: Context, namespace: str, client_only: bool, proxy: bool) -> None:
    """What was not asked for has no key; a server that does not answer is null."""
    import json

    value: dict[str, object] = {"client": VERSION}
    if not client_only:
        server, proxies = ctx.run(_server(ctx, namespace, proxy))
        value["server"] = None if server == UNAVAILABLE else server
        if proxy:
            value["proxies"] = [{"version": version, "pods": pods} for version, pods in sorted(proxies.items())]
    print(json.dumps(value, indent=2))


def _print_proxies(proxies: Counter[str]) -> None:
    if not proxies:
        print("Proxy versions: unavailable")
        return
    print("Proxy versions:")
    for version, pods in sorted(proxies.items()):
        print(f"\t{version} ({pods} pods)")


async def _server(ctx: Context, namespace: str, with_proxies: bool) -> tuple[str, Counter[str]]:
    """The control plane's version (`unavailable` without one), and how many pods run which proxy."""
    import asyncio

    from aiohttp import ClientError

    from linkerd.k8s.errors import ApiError

    async with ctx.client() as client:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                server = await _control_plane_version(client, ctx.linkerd_namespace)
                proxies = await _proxies(client, ctx.linkerd_namespace, namespace) if with_proxies else Counter[str]()
        except (ApiError, ClientError, OSError):
            # Without a server the client's version is still an answer, and as with Linkerd's CLI no failure.
            return UNAVAILABLE, Counter()
    return server, proxies


async def _control_plane_version(client: Client, namespace: str) -> str:
    import yaml

    from linkerd.k8s.errors import NotFound
    from linkerd.k8s.resources import CONFIG_MAPS

    try:
        config = await client.get(CONFIG_MAPS, "linkerd-config", namespace)
        values = yaml.safe_load(config["data"]["values"])
        return str(values["linkerdVersion"])
    except (NotFound, KeyError, TypeError, yaml.YAMLError):
        return UNAVAILABLE


async def _proxies(client: Client, control_plane: str, namespace: str) -> Counter[str]:
    from linkerd.k8s.resources import PODS

    selector = f"linkerd.io/control-plane-ns={control_plane}"
    pods = await client.list(PODS, namespace or None, label_selector=selector)
    return Counter(version for pod in pods if (version := proxy_version(pod)) is not None)


def proxy_version(pod: dict) -> str | None:
    """The tag of the proxy's image; None when the pod has no proxy, empty when the image goes by digest."""
    spec = pod.get("spec") or {}
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        if container["name"] == "linkerd-proxy":
            image = container["image"]
            name = image.rpartition("/")[2]
            return "" if "@" in name else name.partition(":")[2]
    return None
