"""What is measured. Each scenario has a stable name and gives rows of a table."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from . import load
from .lab import Lab
from .load import Load, Result
from .peers import (
    ADMIN_PORT,
    CLIENT_ID,
    TAP_ID,
    TAP_PORT,
    Deployment,
    Traffic,
    deploy,
    linkerd_env,
    start_control,
)
from .reading import forget_peak, memory, peak_memory

MIB = 1 << 20
MB = 1e6


@dataclass(frozen=True)
class Row:
    """`met` tells of must and goal; `None` where there is nothing to compare with."""

    what: str
    must: str
    goal: str
    measured: str
    met: tuple[bool | None, bool | None] = (None, None)


@dataclass
class Bench:
    lab: Lab
    peers: Sequence[str]
    rounds: int
    seconds: float

    def among(self, *wanted: str) -> list[str]:
        """The peers of a scenario that are installed and asked for; the proxy itself is always among them."""
        return [name for name in wanted if name in self.peers or name in ("linkerd", "direct")]

    @contextlib.contextmanager
    def deployed(self, names: Iterable[str], traffic: Traffic) -> Iterator[list[Deployment]]:
        with contextlib.ExitStack() as stack:
            deployments = []
            for name in names:
                deployments.append(deploy(name, self.lab, traffic))
                stack.callback(deployments[-1].close)
            yield deployments

    def alternate(self, deployments: list[Deployment], loads: Callable[[Deployment], Load]) -> dict[str, list[Result]]:
        """Each peer in turn, round by round; every other round backwards, so that none always comes after the same."""
        results: dict[str, list[Result]] = {d.name: [] for d in deployments}
        for number in range(self.rounds):
            for deployment in deployments[:: 1 if number % 2 == 0 else -1]:
                results[deployment.name].append(load.run(self.lab, deployment, loads(deployment)))
        return results


Scenario = Callable[[Bench], list[Row]]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def per_proxy(results: list[Result]) -> float:
    """The median CPU per request, mean of the two sidecars."""
    return median(statistics.fmean(result.micros) for result in results)


def compared(ours: float, limits: dict[str, tuple[float | None, float]]) -> bool | None:
    """Whether `ours` is within `factor` of each of the `limits` that were measured."""
    known = [ours <= factor * other for factor, other in limits.values() if factor is not None and other]
    return all(known) if known else None


def cpu_row(what: str, results: dict[str, list[Result]], must: dict[str, float], goal: dict[str, float]) -> Row:
    costs = {name: per_proxy(found) for name, found in results.items()}
    parts = []
    for name, found in results.items():
        a, b = (median(r.micros[i] for r in found) for i in (0, 1))
        ratio = "" if name == "linkerd" else f", {costs['linkerd'] / costs[name]:.2f} ×"
        parts.append(f"{name} {costs[name]:.1f} µs ({a:.1f} / {b:.1f}; {median(r.rate for r in found):.0f} rps{ratio})")
    limits = {"must": must, "goal": goal}
    texts = {kind: ", ".join(f"≤ {f} × {name}" for name, f in of.items()) for kind, of in limits.items()}
    met = tuple(compared(costs["linkerd"], {n: (f, costs.get(n, 0)) for n, f in of.items()}) for of in limits.values())
    return Row(what, texts["must"], texts["goal"], " · ".join(parts), (met[0], met[1]))


def cpu_h1(bench: Bench) -> list[Row]:
    with bench.deployed(bench.among("linkerd", "haproxy", "envoy", "nginx"), Traffic()) as deployments:
        results = bench.alternate(deployments, lambda _: Load(seconds=bench.seconds))
    must, goal = {"haproxy": 1.3, "envoy": 0.5}, {"haproxy": 1.0}
    return [cpu_row("CPU per request, HTTP/1.1, 50 connections", results, must, goal)]


def _cpu_multiplexed(bench: Bench, protocol: str, what: str) -> list[Row]:
    with bench.deployed(bench.among("linkerd", "haproxy", "envoy"), Traffic(http2=True)) as deployments:
        shape = Load(protocol=protocol, connections=10, streams=5, seconds=bench.seconds)
        results = bench.alternate(deployments, lambda _: shape)
    return [cpu_row(what, results, {"haproxy": 1.4, "envoy": 0.6}, {"haproxy": 1.05})]


def cpu_h2(bench: Bench) -> list[Row]:
    return _cpu_multiplexed(bench, "h2", "CPU per request, HTTP/2, 10 connections of 5 streams")


def cpu_grpc(bench: Bench) -> list[Row]:
    return _cpu_multiplexed(bench, "grpc", "CPU per request, gRPC unary, 10 connections of 5 streams")


def cpu_low_rate(bench: Bench) -> list[Row]:
    names = bench.among("direct", "linkerd", "haproxy", "envoy", "nginx")
    with bench.deployed(names, Traffic()) as deployments:
        results = bench.alternate(deployments, lambda _: Load(rate=2000, seconds=bench.seconds))
    direct = results.pop("direct")
    row = cpu_row("CPU per request at 2,000 rps", results, {"haproxy": 1.0}, {"haproxy": 0.75})
    added = {name: added_latency(found, direct, "p50_us") for name, found in results.items()}
    tail = {name: added_latency(found, direct, "p99_us") for name, found in results.items()}
    latency = Row(
        "added latency at 2,000 rps, both hops, p50 / p99",
        "",
        "p50 ≤ 0.3 ms",
        " · ".join(f"{name} {added[name]:.2f} / {tail[name]:.2f} ms" for name in results),
        (None, added["linkerd"] <= 0.3),
    )
    return [row, latency]


def added_latency(results: list[Result], direct: list[Result], quantile: str) -> float:
    """Milliseconds; rounds are paired, so that the machine's drift falls out."""
    return median(r.told[quantile] - d.told[quantile] for r, d in zip(results, direct, strict=True)) / 1e3


def latency(bench: Bench) -> list[Row]:
    names = bench.among("direct", "linkerd", "haproxy", "envoy")
    rows = []
    with bench.deployed(names, Traffic()) as deployments:
        proxied = [d for d in deployments if d.name != "direct"]
        saturated = {d.name: load.run(bench.lab, d, Load(seconds=2)).rate for d in proxied}
        saturated["direct"] = saturated["linkerd"]
        for share in (0.1, 0.5, 0.8):
            rates = {name: rate * share for name, rate in saturated.items()}
            results = bench.alternate(
                deployments, lambda d, rates=rates: Load(rate=rates[d.name], seconds=bench.seconds)
            )
            direct = results.pop("direct")
            for quantile in ("p50", "p99"):
                added = {n: added_latency(r, direct, f"{quantile}_us") for n, r in results.items()}
                others = {"must": {"envoy": 0.8}, "goal": {"haproxy": 1.0} if quantile == "p50" else {}}
                must, goal = (
                    compared(added["linkerd"], {n: (f, added.get(n, 0)) for n, f in of.items()})
                    for of in others.values()
                )
                rows.append(
                    Row(
                        f"added latency {quantile} at {share:.0%} of its own saturation",
                        "≤ 0.8 × envoy",
                        "≤ haproxy" if quantile == "p50" else "",
                        " · ".join(f"{n} {added[n]:.2f} ms at {rates[n]:.0f} rps" for n in results),
                        (must, goal),
                    )
                )
    return rows


def _tcp(bench: Bench, what: str, meshed: bool, goal: float | None) -> list[Row]:
    names = bench.among("linkerd", "haproxy", "envoy")
    rates: dict[str, list[float]] = {name: [] for name in names}
    costs: dict[str, list[float]] = {name: [] for name in names}
    with bench.deployed(names, Traffic(opaque=True, meshed=meshed)) as deployments:
        for number in range(bench.rounds):
            for deployment in deployments[:: 1 if number % 2 == 0 else -1]:
                result = load.stream(bench.lab, deployment, connections=4, seconds=bench.seconds)
                size = result.told["bytes"]
                rates[deployment.name].append(size / result.told["seconds"] / 1e9)
                costs[deployment.name].append(sum(result.cpu) / (size / 1e9))
    speed = {name: median(found) for name, found in rates.items()}
    envoy, haproxy = speed.get("envoy"), speed.get("haproxy")
    met = (
        speed["linkerd"] >= envoy if envoy else None,
        speed["linkerd"] >= goal * haproxy if goal and haproxy else None,
    )
    parts = [f"{n} {speed[n]:.2f} GB/s ({median(costs[n]):.2f} s of CPU per GB)" for n in names]
    return [Row(what, "≥ 1.0 × envoy", f"≥ {goal} × haproxy" if goal else "", " · ".join(parts), met)]


def tcp_meshed(bench: Bench) -> list[Row]:
    return _tcp(bench, "opaque TCP through two meshed sidecars", meshed=True, goal=None)


def tcp_unmeshed(bench: Bench) -> list[Row]:
    return _tcp(bench, "opaque TCP to an unmeshed peer", meshed=False, goal=0.9)


def memory_use(bench: Bench) -> list[Row]:
    names = bench.among("linkerd", "haproxy", "envoy", "nginx")
    idle, busy = {}, {}
    with bench.deployed(names, Traffic()) as deployments:
        time.sleep(SETTLE)
        for deployment in deployments:
            idle[deployment.name] = [memory(pid) / MB for pid in deployment.sidecars]
            for pid in deployment.sidecars:
                forget_peak(pid)
            load.run(bench.lab, deployment, Load(seconds=bench.seconds))
            busy[deployment.name] = [peak_memory(pid) / MB for pid in deployment.sidecars]

    def row(what: str, found: dict[str, list[float]], must: float, goal: float) -> Row:
        parts = [f"{name} {' / '.join(f'{size:.1f}' for size in found[name])} MB" for name in names]
        worst = max(found["linkerd"])
        return Row(what, f"≤ {must} MB", f"≤ {goal} MB", " · ".join(parts), (worst <= must, worst <= goal))

    return [row("memory, idle", idle, 10, 6.5), row("memory, most at 50 connections", busy, 14, 9)]


def idle_connections(bench: Bench) -> list[Row]:
    names = bench.among("linkerd", "haproxy", "envoy")
    count = 5_000
    each: dict[str, float] = {}
    with bench.deployed(names, Traffic()) as deployments:
        for deployment in deployments:
            # What the first connections cost once (pools, tables) is not theirs.
            load.run(bench.lab, deployment, Load(seconds=1))
            time.sleep(SETTLE)
            before = memory(deployment.sidecars[0])
            with load.idle_connections(bench.lab, deployment, count):
                time.sleep(SETTLE)
                each[deployment.name] = (memory(deployment.sidecars[0]) - before) / count / 1024
    parts = " · ".join(f"{name} {each[name]:.1f} KiB" for name in names)
    ours = each["linkerd"]
    return [
        Row("memory of each of 5,000 idle client connections", "≤ 8 KiB", "≤ 1.5 KiB", parts, (ours <= 8, ours <= 1.5))
    ]


def _bodies(bench: Bench, size: int, what: str) -> list[Row]:
    names = bench.among("linkerd", "haproxy", "envoy", "nginx")
    cost: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, list[list[float]]] = {name: [] for name in names}
    with bench.deployed(names, Traffic()) as deployments:
        # The largest need a long window, or none of them ends in it.
        rounds, seconds = (bench.rounds, bench.seconds) if size <= MIB else (1, 30)
        for number in range(rounds):
            for deployment in deployments[:: 1 if number % 2 == 0 else -1]:
                for pid in deployment.sidecars:
                    forget_peak(pid)
                shape = Load(connections=16, body_bytes=size, seconds=seconds, warm_up=0.5)
                result = load.run(bench.lab, deployment, shape)
                moved = 2 * size * result.requests / MIB
                cost[deployment.name].append(sum(result.cpu) / 2 / moved * 1e6)
                peaks[deployment.name].append([peak_memory(pid) / MB for pid in deployment.sidecars])
    costs = {name: median(found) for name, found in cost.items()}
    most = {name: [max(side) for side in zip(*found, strict=True)] for name, found in peaks.items()}
    parts = [
        f"{name} {costs[name]:.0f} µs per MiB and proxy, at most {' / '.join(f'{m:.0f}' for m in most[name])} MB"
        for name in names
    ]
    must = compared(costs["linkerd"], {"envoy": (1.0, costs.get("envoy", 0))})
    return [Row(what, "CPU ≤ 1.0 × envoy", "≤ 30 MB", " · ".join(parts), (must, max(most["linkerd"]) <= 30))]


def bodies_small(bench: Bench) -> list[Row]:
    return _bodies(bench, MIB, "16 concurrent bodies of 1 MiB, both ways")


def bodies_large(bench: Bench) -> list[Row]:
    return _bodies(bench, 100 * MIB, "16 concurrent bodies of 100 MiB, both ways")


def start(bench: Bench) -> list[Row]:
    times = []
    with bench.deployed(["direct"], Traffic()) as (deployment,):
        pod = deployment.pair.client
        start_control(bench.lab, pod, Traffic())
        for _ in range(max(bench.rounds, 5)):
            argv = bench.lab.rig(
                "start",
                program=bench.lab.programs["linkerd2-proxy"],
                env=linkerd_env(bench.lab, CLIENT_ID),
                admin=f"127.0.0.1:{ADMIN_PORT}",
            )
            times.append(json.loads(pod.run(*argv))["milliseconds"])
    took = median(times)
    return [Row("start to `/ready`", "≤ 150 ms", "≤ 50 ms", f"{took:.0f} ms", (took <= 150, took <= 50))]


def _more_cpu(what: str, without: list[Result], with_it: list[Result]) -> Row:
    """Compares the sidecar beside the client, which does most of the work in question."""
    base, more = (median(r.micros[0] for r in found) for found in (without, with_it))
    share = median(b.micros[0] / a.micros[0] for a, b in zip(without, with_it, strict=True)) - 1
    measured = f"{share:+.1%} ({base:.1f} → {more:.1f} µs)"
    return Row(what, "≤ 8 % more CPU", "≤ 3 %", measured, (share <= 0.08, share <= 0.03))


def tap(bench: Bench) -> list[Row]:
    quiet, tapped = [], []
    shape = Load(rate=5_000, seconds=bench.seconds)
    with bench.deployed(["linkerd"], Traffic()) as (deployment,):
        argv = bench.lab.rig(
            "tap",
            directory=str(bench.lab.directory),
            addr=f"127.0.0.1:{TAP_PORT}",
            server_id=CLIENT_ID,
            client_id=TAP_ID,
            rate=100,
            seconds=bench.seconds + 60,
        )
        for number in range(bench.rounds):
            for with_tap in (False, True)[:: 1 if number % 2 == 0 else -1]:
                if with_tap:
                    with load.tapped(bench.lab, deployment, argv):
                        tapped.append(load.run(bench.lab, deployment, shape))
                else:
                    quiet.append(load.run(bench.lab, deployment, shape))
    return [_more_cpu("tap of 100 rps at 5,000 rps", quiet, tapped)]


def routes(bench: Bench) -> list[Row]:
    with (
        bench.deployed(["linkerd"], Traffic()) as (without,),
        bench.deployed(["linkerd"], Traffic(routes=20)) as (with_them,),
    ):
        pair = [replace(without, name="without"), replace(with_them, name="with")]
        results = bench.alternate(pair, lambda _: Load(seconds=bench.seconds))
    return [_more_cpu("20 routes in a profile instead of none", results["without"], results["with"])]


def size(bench: Bench) -> list[Row]:
    with open(bench.lab.programs["linkerd2-proxy"], "rb") as program:
        bytes_ = program.seek(0, 2)
    return [
        Row("binary, stripped", "≤ 14 MB", "≤ 8 MB", f"{bytes_ / MB:.1f} MB", (bytes_ <= 14 * MB, bytes_ <= 8 * MB))
    ]


SETTLE = 3
SCENARIOS: dict[str, Scenario] = {
    "cpu-h1": cpu_h1,
    "cpu-h2": cpu_h2,
    "cpu-grpc": cpu_grpc,
    "cpu-2000rps": cpu_low_rate,
    "latency": latency,
    "tcp-meshed": tcp_meshed,
    "tcp-unmeshed": tcp_unmeshed,
    "memory": memory_use,
    "idle-connections": idle_connections,
    "bodies-1mib": bodies_small,
    "bodies-100mib": bodies_large,
    "start": start,
    "tap": tap,
    "routes": routes,
    "size": size,
}
