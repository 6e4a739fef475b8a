"""`linkerd-demo`: the shop's manifests, its faults and its rate."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import aiohttp
import click
import yaml
from linkerd.k8s.client import Client
from linkerd.k8s.config import ConfigError
from linkerd.k8s.errors import ApiError
from linkerd.k8s.resources import CONFIG_MAPS

from linkerd_demo.faults import CONFIG_MAP, RATE_KEY, Fault, FaultError, fault_from_json
from linkerd_demo.manifests import demo_objects
from linkerd_demo.topology import BY_NAME, NAMESPACES, SERVICES
from linkerd_demo.up import UpError, up

T = TypeVar("T")

_EPILOG = "Faults and rates live in the ConfigMap `demo-faults` of each namespace; the services read it while they run."


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kubeconfig", help="As kubectl's; default $KUBECONFIG, then ~/.kube/config.")
@click.pass_context
def demo(ctx: click.Context, kubeconfig: str | None) -> None:
    """The demo application: manifests, faults, rate."""
    ctx.obj = kubeconfig


@demo.command("up")
def up_command() -> None:
    """Start the embedded cluster, the mesh and the demo; wait for numbers; print them."""
    try:
        up()
    except UpError as error:
        click.echo(f"error: {error}", err=True)
        click.echo("hint: `linkerd cluster status` and `linkerd cluster logs` tell more", err=True)
        sys.exit(1)


@demo.command()
@click.option("--unmeshed", is_flag=True, help="Leave out the annotations that ask for injection.")
def manifests(unmeshed: bool) -> None:
    """Print the Kubernetes objects, for `kubectl apply -f -`."""
    click.echo(yaml.safe_dump_all(demo_objects(meshed=not unmeshed), sort_keys=False), nl=False)


@demo.command()
@click.argument("service", type=click.Choice([s.name for s in SERVICES]), metavar="SERVICE")
@click.option("--path", default="", help="Regular expression from the start of the path. [default: all paths]")
@click.option("--error-rate", type=float, default=0.0, help="Share of requests that fail, 0 to 1.")
@click.option("--status", type=int, default=503, show_default=True, help="What the failing requests get.")
@click.option("--latency", "latency_ms", type=float, default=0.0, help="Milliseconds added.")
@click.option("--crash", is_flag=True, help="The process ends, again and again.")
@click.option("--not-ready", is_flag=True, help="The readiness probe fails.")
@click.option("--off", is_flag=True, help="Take this service's faults back (with --path, only that path's).")
@click.pass_obj
def fault(kubeconfig: str | None, service: str, path: str, off: bool, **fields: Any) -> None:
    """Switch a fault of SERVICE on, or its faults --off, while it runs.

    A second fault for the same --path replaces the first.
    """
    if off:
        _run(_edit_faults(kubeconfig, service, path or None, None))
        return
    try:
        wanted = Fault(path=path, **fields)
    except FaultError as error:
        raise click.UsageError(str(error)) from error
    if wanted == Fault(path=path, status=wanted.status):
        raise click.UsageError("say what goes wrong: --error-rate, --latency, --crash or --not-ready (or --off)")
    _run(_edit_faults(kubeconfig, service, path, wanted))


@demo.command()
@click.argument("rps", type=click.FloatRange(0, 2000))
@click.option("--caller", type=click.Choice([s.name for s in SERVICES if s.kind == "load"]), help="[default: all]")
@click.pass_obj
def rate(kubeconfig: str | None, rps: float, caller: str | None) -> None:
    """Set the requests per second of the callers; 0 switches the load off."""
    key = f"{RATE_KEY}.{caller}" if caller else RATE_KEY
    _run(_set_everywhere(kubeconfig, {key: f"{rps:g}"}))


@demo.command("reset")
@click.pass_obj
def reset_command(kubeconfig: str | None) -> None:
    """Take all faults and rates back."""
    _run(_reset(kubeconfig))


@demo.command()
@click.pass_obj
def status(kubeconfig: str | None) -> None:
    """Print the faults and rates that are on, one a line."""
    for namespace, data in _run(_read(kubeconfig)).items():
        for key, text in sorted(data.items()):
            for line in text.splitlines():
                click.echo(f"{namespace}\t{key}\t{line}")


async def _edit_faults(kubeconfig: str | None, service: str, path: str | None, wanted: Fault | None) -> None:
    """Replaces the fault of that path; no `wanted` removes it, and no path means all of the service's."""
    namespace = BY_NAME[service].namespace
    async with Client.load(kubeconfig) as client:
        current = await client.get(CONFIG_MAPS, CONFIG_MAP, namespace)
        lines = (current.get("data") or {}).get(service, "").splitlines()
        kept = [fault_from_json(line) for line in lines if path is not None]
        kept = [old for old in kept if old.path != path] + ([wanted] if wanted else [])
        text = "\n".join(old.as_json() for old in kept)
        await client.patch(CONFIG_MAPS, CONFIG_MAP, {"data": {service: text or None}}, namespace)


async def _set_everywhere(kubeconfig: str | None, data: dict[str, str | None]) -> None:
    async with Client.load(kubeconfig) as client:
        for namespace in NAMESPACES:
            await client.patch(CONFIG_MAPS, CONFIG_MAP, {"data": data}, namespace)


async def _reset(kubeconfig: str | None) -> None:
    async with Client.load(kubeconfig) as client:
        for namespace in NAMESPACES:
            await client.patch(CONFIG_MAPS, CONFIG_MAP, {"data": None}, namespace)


async def _read(kubeconfig: str | None) -> dict[str, dict[str, str]]:
    async with Client.load(kubeconfig) as client:
        found = {ns: await client.get(CONFIG_MAPS, CONFIG_MAP, ns) for ns in NAMESPACES}
    return {namespace: obj.get("data") or {} for namespace, obj in found.items()}


def _run(action: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(action)
    except (ConfigError, ApiError, aiohttp.ClientError, TimeoutError, json.JSONDecodeError) as error:
        click.echo(f"error: {error or type(error).__name__}", err=True)
        click.echo("hint: is the demo running? `make demo` starts it; KUBECONFIG must name its cluster", err=True)
        sys.exit(1)


def main() -> None:
    demo()
