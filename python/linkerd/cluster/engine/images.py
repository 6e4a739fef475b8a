"""Images of the user's own: `images/<name>.json` for the node agent, and the unpacked root of an OCI archive.

An archive is not to be trusted more than any download: every member is checked before it is written, no path leaves
the new root (not by `..`, not through a symbolic link of an earlier layer), and devices are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from linkerd.cluster.engine.state import write_json

_REFERENCE = re.compile(r"[a-z0-9]+([._:/@-]+[A-Za-z0-9_]+)*")
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


class ImageError(Exception):
    """The image cannot be added; `hint` is what to try."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asks for. Empty values are taken from the archive's own configuration."""

    name: str
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Description:
    """What `images/<name>.json` says; the node agent reads it."""

    name: str
    root: Path
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "root": str(self.root),
            "entrypoint": list(self.entrypoint),
            "cmd": list(self.cmd),
            "env": dict(self.env),
            "workdir": self.workdir,
            "user": self.user,
        }


def parse_environment(pairs: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` each; without `=` the value is empty."""
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


def add_image(directory: Path, source: Path, wish: Wish) -> Path:
    """Describe a directory as an image, or unpack an archive into one. Returns the description's path."""
    if not _REFERENCE.fullmatch(wish.name):
        raise ImageError(f"`{wish.name}` is not an image name", "such as `example.com/team/program:1`")
    if source.is_dir():
        description = _overridden(Description(wish.name, source.resolve()), wish)
    else:
        description = _unpacked(directory, source, wish)
    path = directory / f"{file_name(wish.name)}.json"
    write_json(path, description.as_json())
    return path


def file_name(name: str) -> str:
    """A file name for an image's name: readable, and different for different names."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80] + "-" + hashlib.sha256(name.encode()).hexdigest()[:8]


def _overridden(description: Description, wish: Wish) -> Description:
    return Description(
        wish.name,
        description.root,
        # As with `docker run`: a command of one's own replaces cmd; without an entrypoint it is the whole program.
        description.entrypoint,
        wish.cmd or description.cmd,
        {**description.env, **wish.env},
        wish.workdir or description.workdir,
        wish.user or description.user,
    )


def _unpacked(directory: Path, source: Path, wish: Wish) -> Description:
    root = directory / "roots" / file_name(wish.name)
    partial = root.with_name(root.name + ".new")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with Archive(source) as archive:
            for digest in archive.layers():
                with archive.blob(digest) as blob, tarfile.open(fileobj=blob, mode="r|*") as layer:
                    unpack_layer(layer, partial)
            config = archive.config()
    except (tarfile.TarError, ValueError, KeyError, TypeError, EOFError, OSError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ImageError(
            f"{source} cannot be unpacked: {error}",
            "an OCI archive comes from `skopeo copy … oci-archive:FILE` or `docker save` (version 25 or newer)",
        ) from error
    shutil.rmtree(root, ignore_errors=True)
    partial.rename(root)
    return _overridden(_described(wish.name, root, config), wish)


def _described(name: str, root: Path, config: Mapping[str, Any]) -> Description:
    run = config.get("config") or {}
    return Description(
        name,
        root,
        tuple(run.get("Entrypoint") or ()),
        tuple(run.get("Cmd") or ()),
        parse_environment(run.get("Env") or ()),
        run.get("WorkingDir") or "",
        run.get("User") or "",
    )


class Archive:
    """An OCI image layout in a tar file. Raises KeyError for a blob that is missing, ValueError for a wrong one."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Archive:
        self._manifest = self._find_manifest()
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def blob(self, digest: str) -> IO[bytes]:
        """A blob by its digest (`sha256:…`), verified."""
        algorithm, _, encoded = digest.partition(":")
        if algorithm not in ("sha256", "sha512") or not re.fullmatch(r"[0-9a-f]+", encoded):
            raise ValueError(f"`{digest}` is no digest")
        with self._file(f"blobs/{algorithm}/{encoded}") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()  # type: ignore[arg-type]
        if found != encoded:
            raise ValueError(f"blob {digest} is damaged (its digest is {found})")
        return self._file(f"blobs/{algorithm}/{encoded}")

    def layers(self) -> list[str]:
        return [layer["digest"] for layer in self._manifest["layers"]]

    def config(self) -> Mapping[str, Any]:
        return self._json(self._manifest["config"]["digest"])

    def _find_manifest(self) -> Mapping[str, Any]:
        with self._file("index.json") as file:
            index = json.load(file)
        while "layers" not in index:
            index = self._json(_choose(index["manifests"])["digest"])
        return index

    def _json(self, digest: str) -> Any:
        with self.blob(digest) as file:
            return json.load(file)

    def _file(self, name: str) -> IO[bytes]:
        for candidate in (name, f"./{name}"):
            try:
                file = self._tar.extractfile(candidate)
            except KeyError:
                continue
            if file is not None:
                return file
        raise ValueError(f"it has no `{name}`, so it is not an OCI archive")


def _choose(manifests: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The manifest for this machine; the only one if it does not say for which it is."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    for manifest in manifests:
        platform = manifest.get("platform") or {}
        if platform.get("os", "linux") == "linux" and platform.get("architecture", machine) == machine:
            return manifest
    raise ValueError(f"it has no image for linux/{machine}")


def unpack_layer(layer: tarfile.TarFile, root: Path) -> None:
    """One layer over those before it: files, links, whiteouts. Raises ValueError for a path that leaves the root."""
    for member in layer:
        parts = _safe_parts(member.name)
        if not parts:
            continue
        name = parts[-1]
        parent = _real_directory(root, parts[:-1])
        if name == _OPAQUE:
            _empty(parent)
        elif name.startswith(_WHITEOUT):
            _remove(parent / _whited_out(name))
        else:
            _place(layer, member, parent / name, root)


def _whited_out(name: str) -> str:
    hidden = name.removeprefix(_WHITEOUT)
    if hidden in ("", ".", ".."):
        raise ValueError(f"the whiteout `{name}` names no file of its directory")
    return hidden


def _safe_parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in PurePosixPath(name).parts if part not in ("/", "."))
    if ".." in parts:
        raise ValueError(f"the path `{name}` leaves the image")
    return parts


def _real_directory(root: Path, parts: Sequence[str]) -> Path:
    """The directory below the root, links followed as inside the image; made where it is missing."""
    current = root
    pending = list(parts)
    hops = 0
    while pending:
        part = pending.pop(0)
        if part in ("", ".", "/"):
            continue
        if part == "..":
            current = current if current == root else current.parent
            continue
        target = current / part
        if target.is_symlink():
            hops += 1
            if hops > 40:
                raise ValueError(f"too many symbolic links at `{target.relative_to(root)}`")
            link = os.readlink(target)
            if link.startswith("/"):
                current = root
            pending = [*PurePosixPath(link).parts, *pending]
            continue
        if not target.is_dir():
            _remove(target)
            target.mkdir()
        current = target
    return current


def _place(layer: tarfile.TarFile, member: tarfile.TarInfo, path: Path, root: Path) -> None:
    if member.isdir():
        if path.is_symlink() or not path.is_dir():
            _remove(path)
            path.mkdir()
    elif member.issym():
        _remove(path)
        path.symlink_to(member.linkname)
        os.lchown(path, member.uid, member.gid)
        return
    elif member.islnk():
        parts = _safe_parts(member.linkname)
        source = _real_directory(root, parts[:-1]) / parts[-1]
        _remove(path)
        os.link(source, path, follow_symlinks=False)
        return
    elif member.isreg():
        _remove(path)
        _write_file(layer, member, path)
    else:
        # Devices and pipes: a container gets its own /dev.
        return
    os.chown(path, member.uid, member.gid)
    os.chmod(path, stat.S_IMODE(member.mode))


def _write_file(layer: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = layer.extractfile(member)
    with path.open("xb") as file:
        if content is not None:
            shutil.copyfileobj(content, file, 1 << 20)


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
