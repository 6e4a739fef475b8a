"""A pod's volumes: made before its containers start, brought up to date while they run, removed after.

Files from the API (ConfigMaps, Secrets, downward API, tokens) live in memory (the cluster-wide tmpfs `memory`), as
they may be secret; an emptyDir is a directory of the pod, or a tmpfs of its own when its medium is Memory.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linkerd.cluster.node import syscalls
from linkerd.cluster.node.atomic import File, write_files
from linkerd.cluster.node.environment import (
    ConfigError,
    PodFacts,
    References,
    expand,
    field_value,
    resource_value,
)
from linkerd.cluster.node.quantities import parse_quantity
from linkerd.cluster.node.rootfs import Mount
from linkerd.cluster.node.tokens import Tokens

Object = dict[str, Any]

_DEFAULT_MODE = 0o644
_FROM_API = ("configMap", "secret", "downwardAPI", "projected")


class VolumeError(Exception):
    """A volume cannot be made (yet): the event FailedMount."""


@dataclass
class Volumes:
    """The volumes of one pod."""

    pod: Object
    directory: Path
    memory: Path
    """A directory on a tmpfs, for what must not reach the disk."""
    references: References
    tokens: Tokens
    facts: PodFacts
    _paths: dict[str, Path] = field(default_factory=dict)

    @property
    def _group(self) -> int | None:
        return (self.pod["spec"].get("securityContext") or {}).get("fsGroup")

    async def prepare(self) -> None:
        """Make all volumes. Raises VolumeError (and ApiError when no token is to be had); may be called again."""
        for volume in self.pod["spec"].get("volumes") or ():
            self._paths[volume["name"]] = await self._make(volume)

    async def refresh(self) -> None:
        """Write what has changed at the API since. What is missing now keeps its last content."""
        for volume in self.pod["spec"].get("volumes") or ():
            if any(kind in volume for kind in _FROM_API) and volume["name"] in self._paths:
                try:
                    await self._make(volume)
                except VolumeError:
                    continue  # deleted while the pod runs: kubelet keeps the files too

    def refers_to(self, kind: str, name: str) -> bool:
        """Whether a volume is made of that ConfigMap or Secret."""
        return any((kind, name) in _referenced(volume) for volume in self.pod["spec"].get("volumes") or ())

    def mounts(self, container: Object, environment: dict[str, str]) -> list[Mount]:
        """The container's volume mounts. Raises VolumeError for an impossible subPath."""
        mounts = []
        for item in container.get("volumeMounts") or ():
            volume = self._volume(item["name"])
            source = self._sub_path(item, environment)
            readonly = bool(item.get("readOnly")) or any(kind in volume for kind in _FROM_API)
            mounts.append(Mount(str(source), item["mountPath"], readonly))
        return mounts

    def remove(self) -> None:
        """Unmount and delete everything."""
        for volume in self.pod["spec"].get("volumes") or ():
            path = self.directory / volume["name"]
            if os.path.ismount(path):
                syscalls.unmount(str(path))
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.memory, ignore_errors=True)

    def _volume(self, name: str) -> Object:
        return next(volume for volume in self.pod["spec"].get("volumes") or () if volume["name"] == name)

    def _sub_path(self, item: Object, environment: dict[str, str]) -> Path:
        root = self._paths[item["name"]]
        sub_path = item.get("subPath") or expand(item.get("subPathExpr") or "", environment)
        if not sub_path:
            return root
        path = root / sub_path
        if not path.exists():
            path.mkdir(parents=True, exist_ok=True)
        real = path.resolve()
        if not real.is_relative_to(root.resolve()):
            raise VolumeError(f'failed to prepare subPath for volumeMount "{item["name"]}": it leaves the volume')
        return real

    async def _make(self, volume: Object) -> Path:
        name = volume["name"]
        if "emptyDir" in volume:
            return self._make_empty(name, volume["emptyDir"] or {})
        if "hostPath" in volume:
            return _host_path(volume["hostPath"])
        if any(kind in volume for kind in _FROM_API):
            try:
                files = await self._files(volume)
            except ConfigError as error:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
            path = self.memory / name
            path.mkdir(parents=True, exist_ok=True)
            write_files(path, files, self._group)
            return path
        kinds = ", ".join(sorted(set(volume) - {"name"}))
        raise VolumeError(f'volume "{name}": the embedded cluster\'s node has no volumes of type {kinds}')

    def _make_empty(self, name: str, source: Object) -> Path:
        path = self.directory / name
        path.mkdir(parents=True, exist_ok=True)
        if source.get("medium") == "Memory" and not os.path.ismount(path):
            size = f",size={int(parse_quantity(str(source['sizeLimit'])))}" if source.get("sizeLimit") else ""
            syscalls.mount("tmpfs", str(path), "tmpfs", options=f"mode=777{size}")
        path.chmod(0o777)
        if self._group is not None:
            os.chown(path, -1, self._group)
            path.chmod(0o2777)
        return path

    async def _files(self, volume: Object) -> dict[str, File]:
        if "projected" not in volume:
            kind = next(kind for kind in _FROM_API if kind in volume)
            return await self._source_files(kind, volume[kind], volume[kind].get("defaultMode", _DEFAULT_MODE))
        projected = volume["projected"]
        files: dict[str, File] = {}
        for source in projected.get("sources") or ():
            for kind, value in source.items():
                files |= await self._source_files(kind, value, projected.get("defaultMode", _DEFAULT_MODE))
        return files

    async def _source_files(self, kind: str, source: Object, mode: int) -> dict[str, File]:
        namespace = self.pod["metadata"]["namespace"]
        match kind:
            case "configMap":
                return _select(source, self.references.config_map(namespace, source["name"]), mode, "configmap")
            case "secret":
                name = source.get("secretName") or source["name"]
                return _select({**source, "name": name}, self.references.secret(namespace, name), mode, "secret")
            case "downwardAPI":
                return {item["path"]: self._downward(item, mode) for item in source.get("items") or ()}
            case "serviceAccountToken":
                return {source["path"]: await self._token(source, mode)}
            case _:
                raise ConfigError(f"a projected volume of {kind} is not supported by this node")

    def _downward(self, item: Object, mode: int) -> File:
        if ref := item.get("fieldRef"):
            text = field_value(self.pod, ref["fieldPath"], self.facts)
        else:
            text = resource_value(self.pod, item["resourceFieldRef"], None, self.facts)
        return File(text.encode(), item.get("mode", mode))

    async def _token(self, source: Object, mode: int) -> File:
        text = await self.tokens.get(source.get("audience", ""), source.get("expirationSeconds", 3600))
        user = _common_user(self.pod["spec"])
        if user is not None or self._group is not None:
            mode = 0o600
        return File(text, mode, user)


def _select(source: Object, data: Any, mode: int, kind: str) -> dict[str, File]:
    """All keys, or the chosen ones under their paths. Raises ConfigError for what is not there."""
    optional = bool(source.get("optional"))
    if data is None:
        if optional:
            return {}
        raise ConfigError(f'{kind} "{source["name"]}" not found')
    items = source.get("items")
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    files = {}
    for item in items:
        if item["key"] in data:
            files[item["path"]] = File(data[item["key"]], item.get("mode", mode))
        elif not optional:
            raise ConfigError(f"references non-existent {kind} key: {item['key']}")
    return files


def _common_user(spec: Object) -> int | None:
    """The user that all containers run as, if it is one and the same: a token then belongs to it."""
    default = (spec.get("securityContext") or {}).get("runAsUser")
    containers = (*(spec.get("initContainers") or ()), *spec["containers"])
    users = {(container.get("securityContext") or {}).get("runAsUser", default) for container in containers}
    return users.pop() if len(users) == 1 else None


def _referenced(volume: Object) -> Iterable[tuple[str, str]]:
    sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
    for source in sources:
        if ref := source.get("configMap"):
            yield "ConfigMap", ref["name"]
        if ref := source.get("secret"):
            yield "Secret", ref.get("secretName") or ref.get("name", "")


_CHECKS = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


def _host_path(source: Object) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    elif kind in ("", "DirectoryOrCreate") and not path.exists():
        path.mkdir(parents=True, mode=0o755)
    if kind in _CHECKS:
        holds, noun = _CHECKS[kind]
        if not path.exists() or not holds(path.stat().st_mode):
            raise VolumeError(f"hostPath type check failed: {path} is not {noun}")
    return path
