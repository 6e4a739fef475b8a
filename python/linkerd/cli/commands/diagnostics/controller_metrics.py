"""`linkerd diagnostics controller-metrics`: what the control plane's containers expose, as it is."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import DURATION

if TYPE_CHECKING:
    from linkerd.cli.workloads import Scraper

_AT_ONCE = 16
_ADMIN = re.compile(r"(.+-)?admin")

Object = dict[str, Any]


class Container(NamedTuple):
    pod: str
    name: str
    port: int


@click.command(short_help="The metrics of the control plane's containers, as they expose them")
@click.option("-w", "--wait", type=DURATION, default=30.0, metavar="DURATION", help="Give up after (default: 30s).")
@pass_context
def command(ctx: Context, wait: float) -> None:
    """Print the metrics of every container of the control plane, its proxies among them.

    \b
    linkerd diagnostics controller-metrics
    """
    ctx.run(_print_metrics(ctx, wait))


async def _print_metrics(ctx: Context, wait: float) -> None:
    from linkerd.cli.workloads import Scraper
    from linkerd.k8s.resources import PODS

    async with ctx.client() as client:
        pods = await client.list(PODS, ctx.linkerd_namespace, field_selector="status.phase=Running")
        found = list(containers(pods))
        if not found:
            raise UserError(f"no pod is running in namespace {ctx.linkerd_namespace}", "see `linkerd check`")
        gate = asyncio.Semaphore(_AT_ONCE)
        scraper = Scraper(client, timeout=wait)
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(_read(scraper, ctx.linkerd_namespace, one, gate)) for one in found]
            for number, (one, task) in enumerate(zip(found, reading, strict=True), 1):
                text = await task
                print(f"#\n# POD {one.pod} ({number} of {len(found)})\n# CONTAINER {one.name} \n#")
                sys.stdout.write(text)
                sys.stdout.flush()


def containers(pods: list[Object]) -> Iterator[Container]:
    """Those with an admin port, by pod and name."""
    for pod in sorted(pods, key=lambda pod: pod["metadata"]["name"]):
        spec = pod["spec"]
        for container in sorted([*spec["containers"], *(spec.get("initContainers") or [])], key=lambda c: c["name"]):
            for port in container.get("ports") or []:
                if _ADMIN.fullmatch(port.get("name") or ""):
                    yield Container(pod["metadata"]["name"], container["name"], port["containerPort"])


async def _read(scraper: Scraper, namespace: str, container: Container, gate: asyncio.Semaphore) -> str:
    """The metrics, or a comment that says why there are none."""
    from linkerd.cli.workloads import ScrapeError

    async with gate, scraper.open_port(namespace, container.pod, container.port) as admin:
        try:
            text = await admin.read()
        except ScrapeError as error:
            return f"# ERROR {error}\n"
    return text if text.endswith("\n") else text + "\n"
