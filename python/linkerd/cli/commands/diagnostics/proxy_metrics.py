"""`linkerd diagnostics proxy-metrics`: what proxies expose, as it is."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
from collections.abc import Sequence

import click

from linkerd.cli.completing import RESOURCE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import namespace_option
from linkerd.cli.reaching import targets
from linkerd.cli.workloads import ScrapeError, Scraper, pods_of
from linkerd.core import kinds
from linkerd.core.kinds import Target
from linkerd.viz.index import Pod

_AT_ONCE = 16
_PRIVATE = re.compile(r'\b(authority|client_id|server_id|target_addr|dst_service|dst_namespace)="((?:[^"\\]|\\.)*)"')


@click.command(short_help="The metrics of proxies, as they expose them")
@click.argument("resource", nargs=-1, required=True, metavar="(TYPE/NAME | TYPE NAME)", type=RESOURCE)
@namespace_option()
@click.option("--obfuscate", is_flag=True, help="Replace names of workloads and addresses by hashes.")
@pass_context
def command(ctx: Context, resource: Sequence[str], namespace: str, obfuscate: bool) -> None:
    """Print the metrics of a workload's proxies, pod by pod.

    \b
    linkerd diagnostics proxy-metrics -n production deploy/api-service
    linkerd diagnostics proxy-metrics -n production pod/<pod-name>
    """
    target = _target(resource, ctx.namespace(namespace))
    ctx.run(_print_metrics(ctx, target, obfuscate))


def _target(resource: Sequence[str], namespace: str) -> Target:
    found = targets(resource, namespace)
    if len(found) != 1 or not found[0].name:
        raise UserError("no resource name provided", "give one workload, as in `deploy/web`")
    target = found[0]
    if not target.kind.pods or target.kind is kinds.NAMESPACE:
        raise UserError(f"invalid resource type {target.kind}", "only workloads and pods have proxies")
    return target


async def _print_metrics(ctx: Context, target: Target, obfuscate: bool) -> None:
    async with ctx.client() as client:
        pods = [pod for pod in await pods_of(client, target) if pod.phase == "Running"]
        if not pods:
            raise UserError(f"no pod of {target} is running")
        gate = asyncio.Semaphore(_AT_ONCE)
        scraper = Scraper(client)
        async with asyncio.TaskGroup() as group:
            reading = [group.create_task(_read(scraper, pod, gate)) for pod in pods]
            for number, (pod, task) in enumerate(zip(pods, reading, strict=True), 1):
                text = await task
                print(f"#\n# POD {pod.name} ({number} of {len(pods)})\n#")
                sys.stdout.write(obfuscated(text) if obfuscate else text)
                sys.stdout.flush()


async def _read(scraper: Scraper, pod: Pod, gate: asyncio.Semaphore) -> str:
    """The metrics, or a comment that says why there are none."""
    if not pod.control_plane:
        return f"# ERROR: pod {pod.name} is not meshed\n"
    async with gate, scraper.open(pod) as proxy:
        try:
            text = await proxy.read()
        except ScrapeError as error:
            return f"# ERROR: {error}\n"
    return text if text.endswith("\n") else text + "\n"


def obfuscated(text: str) -> str:
    """With the names of the user's things replaced by the beginning of their SHA-256: equal stays equal."""

    def replace(match: re.Match[str]) -> str:
        return f'{match[1]}="{hashlib.sha256(match[2].encode()).hexdigest()[:8]}"'

    return _PRIVATE.sub(replace, text)
