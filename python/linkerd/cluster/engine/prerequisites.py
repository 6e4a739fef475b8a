"""What the machine must offer, found out by trying it in a throw-away namespace.

Each thing that is missing is a `Missing` with its own words and hint; what can be mended at once (a Debian package) is.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from linkerd.cluster.engine.settings import Settings
from linkerd.cluster.node import syscalls

LEAST_SPACE = 1 * 2**30
"""Bytes: etcd's quota is 2 GiB at most, a young cluster needs a few hundred MiB with its logs."""

LEAST_KERNEL = (5, 13)

PACKAGES = {"nft": "nftables", "ip": "iproute2"}
"""Programs that must be there, and the Debian package that has each."""

PROGRAMS = ("linkerd-kube", "kubectl")


class Missing(Exception):
    """This machine cannot run the cluster: why, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def check(settings: Settings, note: Callable[[str], None]) -> None:
    """Raises Missing for the first thing that is not as it must be. `note` hears of what takes long."""
    check_user(os.geteuid())
    check_built(settings.bin_dir)
    check_kernel_version(os.uname().release)
    install_missing(note)
    check_kernel()
    check_space(settings.state_dir)


def check_user(user: int) -> None:
    if user != 0:
        raise Missing(
            "the embedded cluster needs root: it makes namespaces, mounts and firewall rules of its own",
            "run it with sudo, or use another Kubernetes",
        )


def check_built(bin_dir: Path) -> None:
    for name in PROGRAMS:
        if not (bin_dir / name).exists():
            raise Missing(f"{bin_dir / name} is not there", "build it with `make build`")


def check_kernel_version(release: str) -> None:
    """As kube-proxy's nftables mode does, which would refuse to run."""
    match = re.match(r"(\d+)\.(\d+)", release)
    if match and (int(match[1]), int(match[2])) < LEAST_KERNEL:
        wanted = ".".join(map(str, LEAST_KERNEL))
        raise Missing(f"the kernel is {release}; kube-proxy needs {wanted} or newer", "use a newer kernel")


def install_missing(note: Callable[[str], None]) -> None:
    """Fetch the packages of missing programs where this machine has apt. Raises Missing with what to install."""
    absent = absent_programs()
    if not absent:
        return
    packages = sorted({PACKAGES[name] for name in absent})
    names, wanted = " and ".join(f"`{name}`" for name in absent), " ".join(packages)
    if shutil.which("apt-get") is None:
        raise Missing(f"{names} not found on this machine", f"install {wanted} with the system's package manager")
    note(f"installing {wanted}")
    failure = _apt_install(packages)
    if failure or absent_programs():
        raise Missing(
            f"{names} not found, and `apt-get install {wanted}` failed{f': {failure}' if failure else ''}",
            f"run `apt-get update && apt-get install {wanted}`",
        )


def absent_programs() -> list[str]:
    """Those of PACKAGES that are neither in PATH nor where administrators' programs are."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/local/sbin:/usr/sbin:/sbin"
    return [name for name in PACKAGES if shutil.which(name, path=path) is None]


def _apt_install(packages: list[str]) -> str:
    """The last line of what went wrong; empty when it worked."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages]
    for attempt in ([command], [["apt-get", "-qq", "update"], command]):
        failure = ""
        for argv in attempt:
            done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
            failure = "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if not failure:
            return ""
    return failure


def check_space(directory: Path) -> None:
    """Of the file system on which the state is, or will be."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < LEAST_SPACE:
        raise Missing(
            f"{existing} has {free / 2**20:.0f} MiB of free space; the cluster needs {LEAST_SPACE / 2**20:.0f} MiB",
            "free some space there, or choose another disk with `--state-dir`",
        )


def check_kernel() -> None:
    """Try what the cluster needs of the kernel, each by doing it, in namespaces that end with the attempt."""
    with tempfile.TemporaryDirectory(prefix="linkerd-probe-") as directory:
        failure = _in_child(lambda: _try_all(Path(directory)))
    if failure:
        what, reason = failure.split("\n", 1)
        message, hint = _FAILURES[what]
        raise Missing(f"{message} ({reason})", hint)


_FAILURES = {
    "namespaces": (
        "this process may not make namespaces",
        "inside a container, give it the right (`--privileged`), or run on the machine itself",
    ),
    "mounts": (
        "this process may not mount",
        "inside a container, give it the right (`--privileged`), or run on the machine itself",
    ),
    "network": (
        "this process may not set up networks",
        "inside a container, give it the right (`--privileged`), or run on the machine itself",
    ),
    "veth": ("the kernel has no veth devices", "load or build the module `veth`"),
    "nftables": (
        "the kernel has no nf_tables with NAT and connection tracking",
        "load or build the modules `nf_tables`, `nft_chain_nat`, `nft_ct` and `nf_conntrack`",
    ),
    "overlay": ("the kernel has no overlay file system", "load or build the module `overlay`"),
}

_RULES = """\
table ip linkerd-probe {
  map targets { type ipv4_addr . inet_service : ipv4_addr . inet_service; }
  chain nat { type nat hook output priority -100; dnat ip to ip daddr . tcp dport map @targets; }
  chain post { type nat hook postrouting priority 100; ct mark 1 masquerade; }
  chain filter { type filter hook forward priority 0; ct state established accept; }
}
"""


def _try_all(directory: Path) -> str:
    """Runs in a child of its own; empty, or a key of _FAILURES and a reason. The directory is empty."""
    attempts: Iterable[tuple[str, Callable[[], None]]] = (
        ("namespaces", _try_namespaces),
        ("mounts", lambda: _try_mounts(directory)),
        ("network", lambda: _run(["ip", "link", "set", "lo", "up"])),
        ("veth", lambda: _run(["ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"])),
        ("nftables", lambda: _run(["nft", "-f", "-"], _RULES)),
        ("overlay", lambda: _try_overlay(directory)),
    )
    for what, attempt in attempts:
        try:
            attempt()
        except OSError as error:
            return f"{what}\n{error.strerror or error}"
    return ""


def _try_namespaces() -> None:
    # Not the PID namespace, which needs no other right: it would end with the first program that is tried in it.
    syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS)


def _try_mounts(directory: Path) -> None:
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount("tmpfs", str(directory), "tmpfs")


def _try_overlay(base: Path) -> None:
    """On the tmpfs of the step before."""
    for name in ("lower", "upper", "work", "merged"):
        (base / name).mkdir()
    options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
    syscalls.mount("overlay", f"{base}/merged", "overlay", options=options)


def _run(argv: list[str], text: str = "") -> None:
    search = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/sbin"
    program = shutil.which(argv[0], path=search)
    if program is None:
        raise OSError(errno.ENOENT, f"{argv[0]} is not installed")
    done = subprocess.run([program, *argv[1:]], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise OSError(errno.EOPNOTSUPP, lines[0].strip() if lines else f"{argv[0]} failed")


def _in_child(attempt: Callable[[], str]) -> str:
    """What the function returns in a forked child, whose namespaces are not ours."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.write(writing, attempt().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return answer
