"""`linkerd stat`: golden metrics and the state of the proxies, without viz and Prometheus."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import click

from linkerd.cli.completing import RESOURCE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import DURATION, namespace_option
from linkerd.cli.output import json, stat
from linkerd.cli.progress import spinning
from linkerd.cli.reaching import targets
from linkerd.cli.sampling import Reading, Sampled, parse_reading, traffic
from linkerd.cli.workloads import AdminPort, ScrapeError, Scraper, pod_index
from linkerd.core import kinds
from linkerd.core.kinds import Kind, Target
from linkerd.core.label_selectors import parse_label_selector
from linkerd.kit.durations import format_duration
from linkerd.viz.index import Pod, PodIndex

DEFAULT_SECONDS = 5.0
_LONGEST_SECONDS = 30.0
_AT_ONCE = 16

_ALL = (kinds.DAEMON_SET, kinds.STATEFUL_SET, kinds.JOB, kinds.DEPLOYMENT, kinds.REPLICATION_CONTROLLER, kinds.POD,
        kinds.CRON_JOB, kinds.REPLICA_SET)  # fmt: skip


@click.command(short_help="Golden metrics from the proxies themselves, and which are not well")
@click.argument("resources", nargs=-1, required=True, metavar="(RESOURCE | RESOURCE/NAME)...", type=RESOURCE)
@namespace_option()
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Only pods with these labels.")
@click.option("-t", "--time-window", type=DURATION, default=DEFAULT_SECONDS, metavar="DURATION",
              help="For how long to count (default: 5s, at most 30s).")  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["table", "json", "wide"]), default="table", help="Output format.")
@pass_context
def command(ctx: Context, **options: Any) -> None:
    """Success rate, requests per second and latency, counted by the proxies while you wait.

    Needs no viz extension. Lists also what is not meshed and which proxies are not ready. For longer windows, and for
    traffic by source or destination, there is `linkerd viz stat`.

    \b
    linkerd stat deploy -n production
    """
    seconds = options["time_window"]
    if seconds <= 0 or seconds > _LONGEST_SECONDS:
        wanted, longest = format_duration(seconds), format_duration(_LONGEST_SECONDS)
        raise UserError(
            f"cannot count for {wanted}: without Prometheus the window is the time you wait, at most {longest}",
            f"run `linkerd viz stat -t {wanted}` for what was counted already",
        )
    report = ctx.run(_report(ctx, options))
    if options["output"] == "json":
        sys.stdout.write(json.indented(report.json()))
    elif not report.rows:
        print("No resources found.", file=sys.stderr)
    else:
        sys.stdout.write(report.text(options["all_namespaces"], options["output"] == "wide"))


class Report:
    """Rows, and what is wrong with pods that are in none or only half in."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.rows: list[stat.Row] = []
        self.proxies = 0
        self.unmeshed: list[str] = []
        self.not_ready: list[str] = []
        self.unread: list[str] = []

    def text(self, namespaces: bool, wide: bool) -> str:
        proxies = f"{self.proxies} {'proxy' if self.proxies == 1 else 'proxies'}"
        parts = [
            stat.tables(self.rows, stat.Layout(self.seconds, namespaces=namespaces, wide=wide)),
            f"Counted for {format_duration(self.seconds)} by {proxies}.\n",
        ]
        for heading, names in (
            ("Not meshed:", self.unmeshed),
            ("Proxy not ready:", self.not_ready),
            ("Proxy did not answer:", self.unread),
        ):
            if names:
                parts.append(heading + "\n" + "".join(f"  {name}\n" for name in names))
        return "\n".join(parts)

    def json(self) -> dict[str, Any]:
        return {
            "interval_seconds": self.seconds,
            "rows": stat.json_rows(self.rows, self.seconds),
            "unmeshed": self.unmeshed,
            "not_ready": self.not_ready,
            "unread": self.unread,
        }


async def _report(ctx: Context, options: dict[str, Any]) -> Report:
    namespace = "" if options["all_namespaces"] else ctx.namespace(options["namespace"])
    asked = [one for target in targets(options["resources"], namespace) for one in _expanded(target)]
    async with ctx.client() as client:
        scope = "" if any(target.kind is kinds.NAMESPACE for target in asked) else namespace
        index = await pod_index(client, scope)
        labels = parse_label_selector(options["selector"])
        groups = [(target, key, pods) for target in asked for key, pods in _groups(index, target)]
        chosen = {
            (p.namespace, p.name): p for _, _, pods in groups for p in pods if p.counts and labels.matches(p.labels)
        }
        meshed = [pod for pod in chosen.values() if pod.control_plane == ctx.linkerd_namespace]
        report = Report(options["time_window"])
        ready = [pod for pod in meshed if pod.proxy_ready]
        async with spinning(f"counting for {format_duration(report.seconds)}"):
            sampled = await _sample(Scraper(client), ready, report)
    report.proxies = len(sampled)
    report.rows = [
        row for target, key, pods in groups if (row := _row(target.kind, key, pods, chosen, meshed, sampled, report))
    ]
    report.unmeshed = sorted({_place(index, pod) for pod in chosen.values() if pod not in meshed})
    report.not_ready = sorted(f"{p.namespace}/{p.name} ({p.status})" for p in meshed if not p.proxy_ready)
    return report


def _expanded(target: Target) -> list[Target]:
    """Raises UserError for kinds without pods."""
    if target.kind is kinds.ALL:
        return [Target(kind, "", target.namespace) for kind in _ALL]
    if not target.kind.pods:
        raise UserError(
            f"{target.kind} has no proxies to ask", f"run `linkerd viz stat {target.kind.short or target.kind}`"
        )
    return [target]


def _groups(index: PodIndex, target: Target) -> list[tuple[tuple[str, str], list[Pod]]]:
    groups = index.by_workload(target.kind.name, target.namespace)
    return sorted((key, pods) for key, pods in groups.items() if not target.name or key[1] == target.name)


def _place(index: PodIndex, pod: Pod) -> str:
    """What to mesh: the workload, or a pod that has none."""
    root = index.root(pod)
    if root is None:
        return f"{pod.namespace}/pod/{pod.name}"
    return f"{root.namespace}/{_short(root.kind)}/{root.name}"


def _short(kind: str) -> str:
    try:
        return kinds.parse_kind(kind).short
    except kinds.UnknownKind:
        return kind


def _row(
    kind: Kind,
    key: tuple[str, str],
    pods: list[Pod],
    chosen: dict[tuple[str, str], Pod],
    meshed: list[Pod],
    sampled: dict[tuple[str, str], Sampled],
    report: Report,
) -> stat.Row | None:
    own = [pod for pod in pods if (pod.namespace, pod.name) in chosen]
    if not own:
        return None
    pairs = [sampled[p.namespace, p.name] for p in own if (p.namespace, p.name) in sampled]
    counted, tcp = traffic(pairs, report.seconds)
    return stat.Row(
        kind,
        *key,
        meshed=sum(pod in meshed for pod in own),
        running=len(own),
        status=own[0].status if kind is kinds.POD else "",
        traffic=counted,
        tcp=tcp if pairs else None,
    )


async def _sample(scraper: Scraper, pods: list[Pod], report: Report) -> dict[tuple[str, str], Sampled]:
    """Two readings of each proxy, the interval apart."""
    gate = asyncio.Semaphore(_AT_ONCE)
    async with AsyncExitStack() as stack:
        proxies = {(pod.namespace, pod.name): await stack.enter_async_context(scraper.open(pod)) for pod in pods}
        before = await _read_all(proxies, gate, report)
        if not before:
            return {}
        # The second round asks in the same order, so each proxy is read about the interval after its first reading.
        started = min(reading.at for reading in before.values())
        await asyncio.sleep(max(0.0, started + report.seconds - time.monotonic()))
        after = await _read_all({key: proxies[key] for key in before}, gate, report)
    return {key: Sampled(before[key], reading) for key, reading in after.items()}


async def _read_all(
    proxies: dict[tuple[str, str], AdminPort], gate: asyncio.Semaphore, report: Report
) -> dict[tuple[str, str], Reading]:
    async def read(key: tuple[str, str], proxy: AdminPort) -> Reading | None:
        async with gate:
            try:
                return parse_reading(await proxy.read(), time.monotonic())
            except (ScrapeError, ValueError) as error:
                report.unread.append(f"{key[0]}/{key[1]}: {error}")
                return None

    async with asyncio.TaskGroup() as group:
        tasks = {key: group.create_task(read(key, proxy)) for key, proxy in proxies.items()}
    return {key: reading for key, task in tasks.items() if (reading := task.result()) is not None}
