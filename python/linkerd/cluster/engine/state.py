"""The state directory: whose it is, who runs it now, and what the running instance says about itself.

- `state.json` marks the directory as a cluster's; nothing without it is ever deleted.
- `lock` is held (flock) by the first process for as long as it lives; the kernel lets go of it.
- `run/engine.json` is written by the first process: who it is and how its components do.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linkerd.cluster.engine.settings import Settings

LAYOUT = 1
"""The version of the directory's layout; a newer one is not touched."""

_OURS = ("pki", "etcd", "logs", "run", "images", "pods", "kubeconfig", "lock", "state.json")


class StateError(Exception):
    """The state directory cannot be used. The message names file and reason; `hint` what to try."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class ComponentState:
    """A component as the first process sees it. `pid` is that inside the cluster's PID namespace, 0 when down."""

    name: str
    pid: int
    restarts: int
    state: str
    """running, starting, waiting (for its next start) or stopped."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A running cluster. `pid` is that of the first process as the host sees it."""

    pid: int
    port: int
    started: float
    ready: bool
    components: tuple[ComponentState, ...] = field(default=())


def prepare(settings: Settings) -> None:
    """Make the directory and what belongs into it. Raises StateError for one that is not a cluster's."""
    directory = settings.state_dir
    if ":" in str(directory):
        raise StateError(
            f"`{directory}` has a colon, which separates the entries of KUBECONFIG",
            "choose a directory without one with `--state-dir`",
        )
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        _check_marker(directory)
        for path in (settings.logs, settings.run, settings.pods):
            path.mkdir(exist_ok=True)
        # Images may hold programs that are setuid root: none of this machine's users may reach them.
        for path in (settings.etcd, settings.pki, settings.images):
            path.mkdir(mode=0o700, exist_ok=True)
            path.chmod(0o700)
    except (NotADirectoryError, FileExistsError) as error:
        raise StateError(f"{error.filename} is not a directory", "choose another one with `--state-dir`") from error
    except PermissionError as error:
        raise StateError(f"{error.filename}: {error.strerror}", "choose another one with `--state-dir`") from error
    except OSError as error:
        raise StateError(f"{error.filename}: {error.strerror}", disk_hint(error)) from error


def disk_hint(error: OSError) -> str:
    """What to try about an error of writing."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space there, or choose another disk with `--state-dir`"
    return "choose another directory with `--state-dir`"


def _check_marker(directory: Path) -> None:
    marker = directory / "state.json"
    if not marker.exists():
        strangers = sorted(path.name for path in directory.iterdir() if path.name not in ("lock", "lost+found"))
        if strangers:
            raise StateError(
                f"{directory} is not empty and not a cluster's state directory (it has `{strangers[0]}`)",
                "choose an empty or new directory with `--state-dir`",
            )
        write_json(marker, {"layout": LAYOUT})
        return
    try:
        layout = json.loads(marker.read_text())["layout"]
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(
            f"the state directory is damaged: {marker} cannot be read ({error})", RESET_HINT.format(directory)
        ) from error
    if layout != LAYOUT:
        raise StateError(
            f"{directory} was made by another version (layout {layout}; this one knows {LAYOUT})",
            "use that version, or another directory with `--state-dir`",
        )


RESET_HINT = "restore it from a copy, or forget the whole state with `linkerd cluster reset --state-dir {}`"


def is_cluster(directory: Path) -> bool:
    """Whether a cluster's state is there."""
    return (directory / "state.json").exists()


def lock(settings: Settings, *, shared: bool = False) -> int | None:
    """A descriptor that holds the lock, to be inherited by the first process; None if another instance has it.

    Who only asks takes it shared, so that two who ask do not take each other for a running cluster.
    """
    descriptor = os.open(settings.state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def running_instance(settings: Settings) -> Instance | None:
    """The instance that holds the lock, as it last described itself; None when there is none.

    The lock is the truth: a description alone may be left over from one that was killed.
    """
    if not (settings.state_dir / "lock").exists():
        return None
    descriptor = lock(settings, shared=True)
    if descriptor is not None:
        os.close(descriptor)
        return None
    return read_instance(settings)


def read_instance(settings: Settings) -> Instance:
    """What the first process wrote last; raises StateError when it has not yet, or when the file is damaged."""
    path = settings.run / "engine.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        components = tuple(ComponentState(**component) for component in raw.pop("components"))
        return Instance(components=components, **raw)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(
            f"another process holds {settings.state_dir}/lock, but {path} does not tell which ({error})",
            "it may be starting or ending right now: try again in a moment",
        ) from error


def write_instance(settings: Settings, instance: Instance) -> None:
    """Atomically, for readers at any time."""
    document = {
        "pid": instance.pid,
        "port": instance.port,
        "started": instance.started,
        "ready": instance.ready,
        "components": [
            {"name": c.name, "pid": c.pid, "restarts": c.restarts, "state": c.state} for c in instance.components
        ],
    }
    write_json(settings.run / "engine.json", document)


def write_json(path: Path, document: object) -> None:
    """Complete or not at all."""
    write_file(path, json.dumps(document, indent=1) + "\n", 0o644)


def write_file(path: Path, text: str, mode: int) -> None:
    """Complete or not at all, with these permissions."""
    partial = path.with_name(path.name + ".new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
    partial.rename(path)


def forget(settings: Settings) -> None:
    """Delete the state: what is ours by name, then the directory if nothing else is in it.

    Raises StateError when the directory is not a cluster's.
    """
    directory = settings.state_dir
    if not is_cluster(directory):
        raise StateError(f"{directory} is not a cluster's state directory", "name it with `--state-dir`")
    # The marker goes last: a deletion that was cut off can be repeated.
    for name in _OURS:
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    try:
        directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
            raise
