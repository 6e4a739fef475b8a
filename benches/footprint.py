"""Start-up time and weight of the embedded cluster, the mesh and the demo; prints the table of benches/README.md.

Runs on an embedded cluster of its own (LINKERD_CLUSTER_DIR and _PORT are set here), with everything already built.
Memory is PSS (`/proc/PID/smaps_rollup`), so that pages shared between processes count once. CPU is what all processes
of the cluster used over a minute with the demo's load off.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
PORT = "6449"
IDLE_SECONDS = 60
SETTLE_SECONDS = 30
UPSTREAM = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "etcd",
    "coredns",
    "metrics-server",
)
CONTROL = re.compile(r"linkerd-controller\x00(\S+?)\x00")


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    command: str
    pss: int
    ticks: int

    @property
    def group(self) -> str:
        """Which row of the table this process belongs to."""
        words = self.command.split("\0")
        if any(name in words or words[0].endswith("/" + name) for name in UPSTREAM):
            return "kubernetes"
        if words[0].endswith("linkerd2-proxy"):
            return "proxies"
        if CONTROL.search(self.command):
            return "control plane and viz"
        if words[0].endswith("prometheus"):
            return "prometheus"
        if "linkerd_demo" in words:
            return "demo"
        return "cluster (engine, node agent)"


def processes(root: int) -> Iterator[Process]:
    """Those of the cluster: `root` and all that descend from it."""
    parents = dict(_parents())
    for pid in parents:
        if _descends(pid, root, parents):
            process = _read(pid)
            if process is not None:
                yield process


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # it ended meanwhile
            yield int(entry.name), int(stat.rpartition(")")[2].split()[1])


def _descends(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid > 1:
        if pid == root:
            return True
        pid = parents.get(pid, 0)
    return False


def _read(pid: int) -> Process | None:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    found = re.search(r"^Pss:\s+(\d+)", rollup, re.M)
    return Process(pid, command, int(found[1]) * 1024 if found else 0, sum(map(int, fields[11:15])))


def cpu_cores(root: int, seconds: float) -> float:
    """Cores used by the cluster over `seconds`, children that ended included (their ticks are with their parents)."""
    before = {p.pid: p.ticks for p in processes(root)}
    time.sleep(seconds)
    used = sum(max(0, p.ticks - before.get(p.pid, 0)) for p in processes(root))
    return used / os.sysconf("SC_CLK_TCK") / seconds


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="linkerd-bench-") as directory:
        env = os.environ | {"LINKERD_CLUSTER_DIR": directory, "LINKERD_CLUSTER_PORT": PORT}
        started = time.monotonic()
        try:
            subprocess.run([BIN / "linkerd-demo", "up"], env=env, check=True, stdout=subprocess.DEVNULL)
            up_seconds = time.monotonic() - started
            status = subprocess.run(
                [BIN / "linkerd", "cluster", "status", "-o", "json"], env=env, check=True, capture_output=True
            )
            report(up_seconds, first_process(json.loads(status.stdout)), directory)
        finally:
            subprocess.run([BIN / "linkerd", "cluster", "stop"], env=env, check=False, stdout=subprocess.DEVNULL)
    return 0


def first_process(status: dict) -> int:
    """The one of which all others of the cluster descend."""
    return next(c["pid"] for c in status["components"] if c["name"] == "engine")


def report(up_seconds: float, root: int, directory: str) -> None:
    time.sleep(SETTLE_SECONDS)
    groups: dict[str, list[int]] = {}
    for process in processes(root):
        groups.setdefault(process.group, []).append(process.pss)
    kubeconfig = str(Path(directory) / "kubeconfig")
    subprocess.run([BIN / "linkerd-demo", "--kubeconfig", kubeconfig, "rate", "0"], check=True)
    time.sleep(SETTLE_SECONDS)
    rows = [("`make demo`, built, to numbers", f"{up_seconds:.0f} s")]
    for name, sizes in sorted(groups.items()):
        rows.append((f"memory (PSS): {name}", f"{sum(sizes) / 1e6:.0f} MB ({len(sizes)} processes)"))
    proxies = groups.get("proxies", [0])
    rows.append(("memory (PSS): a sidecar, mean and largest", f"{mean(proxies):.1f}, {max(proxies) / 1e6:.1f} MB"))
    rows.append(("CPU of the whole, load off", f"{cpu_cores(root, IDLE_SECONDS):.2f} cores"))
    print("| what | measured |\n| --- | --- |")
    for row in rows:
        print(f"| {row[0]} | {row[1]} |")


def mean(sizes: list[int]) -> float:
    return sum(sizes) / len(sizes) / 1e6


if __name__ == "__main__":
    sys.exit(main())
