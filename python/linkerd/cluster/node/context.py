"""What all pods of the node share."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from linkerd.cluster.node import images, syscalls
from linkerd.cluster.node.events import Recorder
from linkerd.cluster.node.netns.network import Addresses, Namespace
from linkerd.cluster.node.references import ClusterReferences
from linkerd.cluster.node.rootfs import HostRoot, Node
from linkerd.cluster.node.security import Account, parse_accounts
from linkerd.cluster.node.settings import Settings
from linkerd.cluster.node.spawning import Spawner
from linkerd.k8s.client import Client


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the machine has."""

    cpus: int
    memory_bytes: int
    disk_bytes: int


def read_capacity(state_dir: Path) -> Capacity:
    """Of this machine; the disk is the one with the cluster's state."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return Capacity(os.cpu_count() or 1, pages * size, shutil.disk_usage(state_dir).total)


@dataclass
class NodeContext:
    """Shared by the pods of this node."""

    settings: Settings
    client: Client
    spawner: Spawner
    references: ClusterReferences
    recorder: Recorder
    addresses: Addresses
    network: Namespace
    capacity: Capacity
    root: Node
    resolv_conf: str
    """The machine's own, for pods with dnsPolicy Default."""
    _accounts: dict[Path, list[Account]] = field(default_factory=dict)

    @property
    def pods_dir(self) -> Path:
        """Everything of the pods, by uid."""
        return self.settings.state_dir / "pods"

    @property
    def memory_dir(self) -> Path:
        """The tmpfs for files that must not reach the disk."""
        return self.pods_dir / ".memory"

    @property
    def node_cpu(self) -> Fraction:
        """Cores."""
        return Fraction(self.capacity.cpus)

    def image(self, name: str) -> images.Image:
        """Look the name up; what was added meanwhile counts. Raises UnknownImage."""
        programs = images.Programs(self.settings.bin_dir)
        return images.lookup(name, programs, images.added_images(self.settings.state_dir / "images"))

    def accounts(self, image: images.Image) -> list[Account]:
        """The users that the image's root knows."""
        path = (image.root or Path("/")) / "etc/passwd"
        if path not in self._accounts:
            self._accounts[path] = parse_accounts(path.read_text()) if path.is_file() else []
        return self._accounts[path]


def read_host_root() -> HostRoot:
    """The top level of the machine's root directory."""
    entries = list(os.scandir("/"))
    directories = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    links = sorted((os.readlink(entry.path), entry.path) for entry in entries if entry.is_symlink())
    return HostRoot(tuple(directories), tuple(links))


def prepare_directories(settings: Settings) -> None:
    """The pods' directory as a mount of its own (containers detach it from their view), with a tmpfs inside."""
    pods = settings.state_dir / "pods"
    pods.mkdir(parents=True, exist_ok=True)
    pods.chmod(0o711)
    if str(pods) not in _mounts_below(pods):  # os.path.ismount() does not see a bind within one file system
        syscalls.mount(str(pods), str(pods), flags=syscalls.MS_BIND)
    memory = pods / ".memory"
    memory.mkdir(exist_ok=True)
    if not os.path.ismount(memory):
        syscalls.mount("tmpfs", str(memory), "tmpfs", options="mode=711")
    (settings.state_dir / "run/root").mkdir(parents=True, exist_ok=True)


def remove_strangers(pods: Path, uids: Iterable[str]) -> None:
    """Delete what pods that are gone have left (from an earlier run of the agent)."""
    known = set(uids)
    for path in pods.iterdir():
        if path.name != ".memory" and path.name not in known:
            for mount in sorted(_mounts_below(path), reverse=True):
                detach(mount)
            shutil.rmtree(path, ignore_errors=True)


def detach(path: str) -> None:
    """Unmount what is there; that nothing is there (any more) is fine."""
    try:
        syscalls.unmount(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise


def _mounts_below(path: Path) -> list[str]:
    targets = mount_points(Path("/proc/self/mountinfo").read_text())
    return [target for target in targets if Path(target).is_relative_to(path)]


def mount_points(mountinfo: str) -> list[str]:
    """The paths of /proc/PID/mountinfo, in which blanks and backslashes are octal escapes."""
    fields = (line.split(" ")[4] for line in mountinfo.splitlines())
    return [_OCTAL.sub(lambda match: chr(int(match[1], 8)), field) for field in fields]


_OCTAL = re.compile(r"\\([0-7]{3})")
