"""The plan of a container's root: which parts of the node it sees, and what is mounted where (pure).

An ordinary container sees the node's root, read-only, so that programs need no image. What would break isolation is
left out: run-time state, homes, devices, and the cluster's own directory with its keys and the other pods' volumes.
Our own programs stay visible under their own paths even when they lie below a home, so that any user may run them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

_NOT_SHOWN = frozenset({"proc", "sys", "dev", "run", "tmp", "root", "home", "mnt", "media", "boot", "lost+found"})
_OWN_DIRECTORIES = (("/tmp", 0o1777), ("/run", 0o755), ("/root", 0o755), ("/home", 0o755), ("/mnt", 0o755))
_SCRATCH = (("/var/tmp", 0o1777), ("/var/log", 0o755))


@dataclass(frozen=True, slots=True)
class HostRoot:
    """The top level of the node's root directory."""

    directories: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    """(target, path) of symbolic links, as /bin is one to usr/bin."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount of a path on the node."""

    source: str
    target: str
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class Overlay:
    """An image's own root: read-only below, the container's changes above."""

    lower: str
    upper: str
    work: str


@dataclass(frozen=True, slots=True)
class RootPlan:
    """What `launching.build_root` carries out, in the order of the fields."""

    staging: str
    overlay: Overlay | None = None
    directories: tuple[tuple[str, int], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    views: tuple[str, ...] = ()
    detached: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    scratch: tuple[tuple[str, int], ...] = ()
    shm: str = ""
    mounts: tuple[Mount, ...] = field(default=())
    cwd: str = "/"
    readonly: bool = False

    def to_json(self) -> dict[str, Any]:
        """The form in which it travels to the spawner."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Node:
    """What all containers of this node have in common."""

    host: HostRoot
    state_dir: str
    staging: str
    programs: tuple[str, ...]
    """Directories of our programs and of the Python that runs them."""


def plan_root(
    node: Node,
    *,
    overlay: Overlay | None,
    shm: str,
    mounts: Sequence[Mount],
    cwd: str,
    readonly: bool,
) -> RootPlan:
    """The root of one container. Mounts are sorted so that a mount inside another one comes after it."""
    ordered = tuple(sorted(mounts, key=lambda mount: mount.target.count("/")))
    common = {"shm": shm, "mounts": ordered, "cwd": cwd, "readonly": readonly}
    if overlay is not None:
        return RootPlan(node.staging, overlay, **common)
    return RootPlan(
        staging=node.staging,
        directories=_OWN_DIRECTORIES,
        links=node.host.links,
        views=_views(node),
        detached=(f"{node.state_dir}/pods",),
        hidden=(node.state_dir,),
        scratch=_SCRATCH,
        **common,
    )


def _views(node: Node) -> tuple[str, ...]:
    shown = [f"/{name}" for name in node.host.directories if name not in _NOT_SHOWN]
    extra = [path for path in outermost(node.programs) if not _below_any(path, shown)]
    return (*shown, *extra)


def outermost(paths: Iterable[str]) -> list[str]:
    """The paths without those that lie below another one, sorted."""
    kept: list[str] = []
    for path in sorted({str(PurePosixPath(path)) for path in paths}):
        if not _below_any(path, kept):
            kept.append(path)
    return kept


def _below_any(path: str, directories: Iterable[str]) -> bool:
    return any(PurePosixPath(path).is_relative_to(directory) for directory in directories)
