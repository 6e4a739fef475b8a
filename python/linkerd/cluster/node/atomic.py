"""Directories of small files that change all at once, in kubelet's layout.

The files are in `..<time>/`, `..data` is a link to it, and each visible name is a link into `..data`. A change writes
a new directory and renames the link, so that a reader never sees old and new files together.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_DATA = "..data"


@dataclass(frozen=True, slots=True)
class File:
    """Content and permission bits; `uid` when somebody else than root shall own it."""

    content: bytes
    mode: int
    uid: int | None = None


def write_files(directory: Path, files: Mapping[str, File], gid: int | None = None) -> bool:
    """Make `directory` hold exactly `files` (relative paths). False when it did already."""
    if _current(directory) == {name: file.content for name, file in files.items()}:
        return False
    fresh = directory / f"..{time.strftime('%Y_%m_%d_%H_%M_%S', time.gmtime())}.{time.monotonic_ns()}"
    fresh.mkdir(mode=0o755)
    for name, file in files.items():
        _write(fresh / name, file, gid)
    _own_directories(fresh, gid)
    old = os.readlink(directory / _DATA) if (directory / _DATA).is_symlink() else None
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    os.replace(link, directory / _DATA)
    _link_names(directory, {name.split("/", 1)[0] for name in files})
    if old:
        shutil.rmtree(directory / old, ignore_errors=True)
    return True


def _current(directory: Path) -> dict[str, bytes] | None:
    data = directory / _DATA
    if not data.exists():
        return None
    return {str(path.relative_to(data)): path.read_bytes() for path in data.rglob("*") if path.is_file()}


def _write(path: Path, file: File, gid: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.content)
    mode = file.mode
    if file.uid is not None or gid is not None:
        os.chown(path, file.uid if file.uid is not None else -1, gid if gid is not None else -1)
    if gid is not None:
        mode |= 0o440
    path.chmod(mode)


def _own_directories(root: Path, gid: int | None) -> None:
    for path in (root, *(path for path in root.rglob("*") if path.is_dir())):
        path.chmod(0o755)
        if gid is not None:
            os.chown(path, -1, gid)


def _link_names(directory: Path, names: set[str]) -> None:
    for path in directory.iterdir():
        if path.is_symlink() and not path.name.startswith("..") and path.name not in names:
            path.unlink()
    for name in names:
        link = directory / name
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{name}")
