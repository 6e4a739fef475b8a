"""How a running cluster does: its components with their memory, and whether the API and the node are ready.

Memory is PSS (proportional set size): what is shared, as the text of the one binary, is counted once in the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from linkerd.cluster.engine import settings as names
from linkerd.cluster.engine import state
from linkerd.cluster.engine.settings import Settings
from linkerd.cluster.engine.starting import is_ready
from linkerd.cluster.engine.state import ComponentState, Instance
from linkerd.k8s import resources
from linkerd.k8s.client import Client
from linkerd.k8s.errors import ApiError

NOTES = (
    "CPU and memory limits of containers are not enforced.",
    "NetworkPolicies are stored but not enforced.",
)
"""What differs from a usual cluster and could otherwise mislead."""

FIRST = "engine"
"""What the first process is called among the components."""


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """A component as the host sees it. `pid` and `pss_bytes` are None when it does not run."""

    name: str
    state: str
    pid: int | None
    pss_bytes: int | None
    restarts: int


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """Of one instance. Without components it does not run."""

    state_dir: Path
    port: int
    running: bool
    api_ready: bool = False
    node_ready: bool = False
    components: tuple[ComponentStatus, ...] = ()

    def as_json(self) -> dict[str, object]:
        """For `-o json`; the keys stay what they are."""
        return {
            "running": self.running,
            "stateDir": str(self.state_dir),
            "kubeconfig": str(self.state_dir / "kubeconfig"),
            "api": {"address": f"https://127.0.0.1:{self.port}", "ready": self.api_ready},
            "node": {"name": names.NODE_NAME, "ready": self.node_ready},
            "components": [
                {"name": c.name, "state": c.state, "pid": c.pid, "pssBytes": c.pss_bytes, "restarts": c.restarts}
                for c in self.components
            ],
            "notes": list(NOTES),
        }


async def cluster_status(config: Settings) -> ClusterStatus:
    """Raises StateError when the instance starts or ends right now."""
    instance = state.running_instance(config)
    if instance is None:
        return ClusterStatus(config.state_dir, config.port, running=False)
    api_ready, node_ready = await _readiness(config)
    return ClusterStatus(
        config.state_dir, instance.port, True, api_ready, node_ready, component_statuses(instance, Path("/proc"))
    )


async def _readiness(config: Settings) -> tuple[bool, bool]:
    try:
        async with Client.load(str(config.kubeconfig), request_timeout=5) as client:
            await client.request("GET", "/readyz")
            return True, is_ready(await client.get(resources.NODES, names.NODE_NAME))
    except ApiError as error:
        # Answers, with an error: for the node that means it is not there.
        return error.status < 500, False
    except (aiohttp.ClientError, TimeoutError):
        return False, False


def component_statuses(instance: Instance, proc: Path) -> tuple[ComponentStatus, ...]:
    """The first process and the components, their pids and memory from the host's /proc."""
    pids = host_pids(instance.pid, proc)
    first = ComponentState(FIRST, 1, 0, "running")
    return tuple(_component_status(c, pids, proc) for c in (first, *instance.components))


def _component_status(component: ComponentState, pids: Mapping[int, int], proc: Path) -> ComponentStatus:
    pid = pids.get(component.pid) if component.pid else None
    pss = pss_of([pid], proc) if pid is not None else None
    # The first process cannot tell when the disk is full; /proc can.
    state_now = "down" if component.state == "running" and pid is None else component.state
    return ComponentStatus(component.name, state_now, pid, pss, component.restarts)


def host_pids(first: int, proc: Path) -> dict[int, int]:
    """From the pids inside the first process's PID namespace to the host's, for all that are in it directly."""
    namespace = _namespace(proc / str(first))
    found: dict[int, int] = {}
    for entry in proc.iterdir():
        if entry.name.isdecimal() and namespace and _namespace(entry) == namespace:
            inside = _innermost_pid(entry)
            if inside is not None:
                found[inside] = int(entry.name)
    return found


def _namespace(process: Path) -> str:
    try:
        return str((process / "ns" / "pid").readlink())
    except OSError:
        # It ended while we looked, or it is nobody's business but root's.
        return ""


def _innermost_pid(process: Path) -> int | None:
    try:
        text = (process / "status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    return None


def pss_of(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """Bytes, of the processes that still live."""
    total = 0
    for pid in pids:
        try:
            text = (proc / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    return total
