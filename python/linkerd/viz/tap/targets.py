"""Which pods a tap listens at, and why others are not among them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from linkerd.core import kinds
from linkerd.core.kinds import Target
from linkerd.core.labels import Selector
from linkerd.viz.index import Pod, PodIndex


@dataclass(frozen=True, slots=True)
class Selection:
    """Pods of a workload (or of all of a kind), of those with the labels."""

    target: Target
    labels: Selector

    def pods(self, index: PodIndex) -> list[Pod]:
        groups = index.by_workload(self.target.kind.name, self.target.namespace)
        if self.target.name:
            namespace = "" if self.target.kind is kinds.NAMESPACE else self.target.namespace
            found = groups.get((namespace, self.target.name), [])
        else:
            found = [pod for pods in groups.values() for pod in pods]
        return [pod for pod in found if self.labels.matches(pod.labels)]


@dataclass(frozen=True, slots=True)
class Tappable:
    """The pods to listen at, and the names of those that cannot be."""

    pods: tuple[Pod, ...]
    disabled: tuple[str, ...] = ()
    not_enabled: tuple[str, ...] = ()


def tappable(pods: list[Pod], control_plane: str) -> Tappable:
    meshed = [p for p in pods if p.control_plane == control_plane and p.phase == "Running" and not p.terminating]
    return Tappable(
        tuple(p for p in meshed if p.tap_enabled and not p.tap_disabled and p.ip),
        tuple(sorted(p.name for p in meshed if p.tap_disabled)),
        tuple(sorted(p.name for p in meshed if not p.tap_enabled and not p.tap_disabled)),
    )


def nothing_to_tap(target: Target, found: Tappable) -> str:
    """Says that there is nothing, and what would help."""
    lines = [f'no pods to tap for type="{target.kind}" name="{target.name}"']
    if found.disabled:
        lines.append(
            f"{len(found.disabled)} pods found with tap disabled via the viz.linkerd.io/disable-tap annotation:"
        )
        lines += [f"\t* {name}" for name in found.disabled]
        lines.append("remove these annotations to make these resources valid tap targets")
    if found.not_enabled:
        lines.append(f"{len(found.not_enabled)} pods found with tap not enabled:")
        lines += [f"\t* {name}" for name in found.not_enabled]
        lines.append("restart these pods to enable tap and make them valid tap targets")
    return "\n".join(lines) + "\n"
