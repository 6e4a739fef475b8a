"""What a forked child does to become a container or to enter one: namespaces, root, user, exec.

It runs in the spawner's child, single-threaded, between fork and exec, so it is plain blocking code on plain values
(the JSON that `spawning` sends). Everything is decided by the agent; here it is only carried out, in the one order
that works: namespaces, new root, mounts, read-only, terminal, user, exec.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import stat
import termios
from typing import Any

from . import syscalls

OLD_ROOT = "/.host"
"""Where the node's root stays reachable while the container's root is being built."""

Fds = dict[str, int]


def start_container(spec: dict[str, Any], fds: Fds, status: socket.socket) -> None:
    """Become the first process of a container. Returns only by an exception."""
    _join_sandbox(fds)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    build_root(spec["root"], privileged=spec["privileged"])
    _set_oom_score(spec["oom_score"])
    _become(spec, fds, status)


def start_exec(spec: dict[str, Any], fds: Fds, status: socket.socket) -> None:
    """Become one more process of a running container, whose namespaces `fds` hold."""
    _join_sandbox(fds)
    syscalls.setns(fds["mnt"], syscalls.CLONE_NEWNS)
    _become(spec, fds, status)


def make_sandbox(spec: dict[str, Any]) -> list[int]:
    """Leave for new network, UTS and IPC namespaces and return descriptors of them, in this order."""
    flags = syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS | (syscalls.CLONE_NEWNET if spec["network"] else 0)
    syscalls.unshare(flags)
    socket.sethostname(spec["hostname"])
    for name, value in spec["sysctls"].items():
        _write_sysctl(name, value)
    return [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "uts", "ipc")]


def _write_sysctl(name: str, value: str) -> None:
    path = "/proc/sys/" + name.replace(".", "/")
    if name.startswith("net.ipv6.") and not os.path.exists("/proc/sys/net/ipv6"):
        return  # a kernel without IPv6 has nothing to switch off
    with open(path, "w") as file:
        file.write(value)


def _join_sandbox(fds: Fds) -> None:
    kinds = {"net": syscalls.CLONE_NEWNET, "uts": syscalls.CLONE_NEWUTS, "ipc": syscalls.CLONE_NEWIPC}
    for name, kind in kinds.items():
        if name in fds:
            syscalls.setns(fds[name], kind)


def build_root(root: dict[str, Any], *, privileged: bool) -> None:
    """Build the container's root out of a plan (`rootfs.RootPlan`) and make it this process's root."""
    syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    _enter_new_root(root)
    builder = _RootBuilder()
    for path, mode in root["directories"]:
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)
    for target, path in root["links"]:
        os.symlink(target, path)
    for path in root["views"]:
        builder.bind(OLD_ROOT + path, path, readonly=True)
    for path in root["detached"]:
        _detach_tree(path)
    # All mount points before all mounts: making one may need an overlay, which would cover what is mounted below it.
    for item in root["mounts"]:
        builder.mount_point(item["target"], directory=os.path.isdir(OLD_ROOT + item["source"]))
    builder.mount_point(root["cwd"], directory=True)
    for path in root["hidden"]:
        _cover(path, syscalls.MS_RDONLY, "mode=755,size=4k")
    for path, mode in root["scratch"]:
        _cover(path, 0, f"mode={mode:o}")
    builder.mount_kernel_files(root["shm"], privileged=privileged)
    for item in root["mounts"]:
        builder.bind(OLD_ROOT + item["source"], item["target"], readonly=item["readonly"])
    builder.mount_point(root["cwd"], directory=True)
    _leave_old_root()
    if root["readonly"]:
        for path in ("/", *builder.uncovered, *(path for path, _ in root["scratch"] if os.path.ismount(path))):
            syscalls.make_readonly(path, recursive=False)


def _enter_new_root(root: dict[str, Any]) -> None:
    staging = root["staging"]
    if overlay := root["overlay"]:
        _mount_overlay(overlay["lower"], overlay["upper"], overlay["work"], staging)
    else:
        syscalls.mount("tmpfs", staging, "tmpfs", options="mode=755")
    os.chdir(staging)
    os.makedirs(OLD_ROOT[1:], exist_ok=True)
    syscalls.pivot_root(".", OLD_ROOT[1:])
    os.chdir("/")


def _leave_old_root() -> None:
    syscalls.unmount(OLD_ROOT)
    os.rmdir(OLD_ROOT)


def _mount_overlay(lower: str, upper: str, work: str, target: str) -> None:
    escaped = [path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,") for path in (lower, upper, work)]
    syscalls.mount("overlay", target, "overlay", options="lowerdir={},upperdir={},workdir={}".format(*escaped))


def _detach_tree(path: str) -> None:
    try:
        syscalls.unmount(path)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # not a mount here, or not in sight at all
            raise


def _cover(path: str, flags: int, options: str) -> None:
    if os.path.isdir(path):
        syscalls.mount("tmpfs", path, "tmpfs", flags, options)


class _RootBuilder:
    """Mounts things inside the new root, and remembers what it had to make writable for that."""

    def __init__(self) -> None:
        self.uncovered: list[str] = []

    def bind(self, source: str, target: str, *, readonly: bool) -> None:
        """A recursive bind; the mount point is made if it is missing."""
        directory = stat.S_ISDIR(os.stat(source).st_mode)
        real = self.mount_point(target, directory=directory)
        syscalls.mount(source, real, flags=syscalls.MS_BIND | syscalls.MS_REC)
        if readonly:
            syscalls.make_readonly(real, recursive=True)

    def mount_point(self, path: str, *, directory: bool) -> str:
        """Make sure that something can be mounted at `path`, and return where it really is (links resolved).

        Most of the root is a read-only view; a missing entry there is made possible by an overlay over the nearest
        directory that exists, whose changes live in memory and end with the container.
        """
        real = os.path.realpath(path)
        try:
            _make_entry(real, directory=directory)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            self._uncover(real)
            _make_entry(real, directory=directory)
        return real

    def _uncover(self, path: str) -> None:
        parent = os.path.dirname(path)
        while not os.path.isdir(parent):
            parent = os.path.dirname(parent)
        scratch = "/.scratch"
        os.makedirs(scratch, exist_ok=True)
        syscalls.mount("tmpfs", scratch, "tmpfs", options="mode=700")
        os.mkdir(f"{scratch}/upper")
        os.mkdir(f"{scratch}/work")
        _mount_overlay(parent, f"{scratch}/upper", f"{scratch}/work", parent)
        syscalls.unmount(scratch)
        os.rmdir(scratch)
        self.uncovered.append(parent)

    def mount_kernel_files(self, shm: str, *, privileged: bool) -> None:
        """/proc, /sys and /dev, as far as an ordinary runtime shows them."""
        safe = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        for path in ("/proc", "/sys", "/dev"):
            self.mount_point(path, directory=True)
        syscalls.mount("proc", "/proc", "proc", safe)
        syscalls.mount("sysfs", "/sys", "sysfs", safe | (0 if privileged else syscalls.MS_RDONLY))
        if not privileged:
            for path in ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"):
                if os.path.exists(path):
                    self.bind(path, path, readonly=True)
        _mount_devices(shm, all_devices=privileged)


def _make_entry(path: str, *, directory: bool) -> None:
    if os.path.lexists(path):
        return
    if directory:
        os.makedirs(path, mode=0o755)
        return
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o644))


def _mount_devices(shm: str, *, all_devices: bool) -> None:
    syscalls.mount("tmpfs", "/dev", "tmpfs", syscalls.MS_NOSUID, "mode=755,size=64k")
    names = ["null", "zero", "full", "random", "urandom", "tty"]
    if all_devices:
        names = [entry.name for entry in os.scandir(f"{OLD_ROOT}/dev") if not entry.is_dir(follow_symlinks=False)]
    for name in names:
        _copy_device(f"{OLD_ROOT}/dev/{name}", f"/dev/{name}")
    os.mkdir("/dev/pts")
    os.mkdir("/dev/shm")
    options = "newinstance,ptmxmode=0666,mode=0620,gid=5"
    syscalls.mount("devpts", "/dev/pts", "devpts", syscalls.MS_NOSUID | syscalls.MS_NOEXEC, options)
    syscalls.mount(OLD_ROOT + shm, "/dev/shm", flags=syscalls.MS_BIND)
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}
    links |= {name: f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))}
    for name, target in links.items():
        if not os.path.lexists(f"/dev/{name}"):
            os.symlink(target, f"/dev/{name}")


def _copy_device(source: str, target: str) -> None:
    try:
        info = os.lstat(source)
    except FileNotFoundError:
        return
    if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        os.mknod(target, info.st_mode, info.st_rdev)
        os.chmod(target, stat.S_IMODE(info.st_mode))


def _set_oom_score(score: int) -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
    except PermissionError:
        # Without CAP_SYS_RESOURCE the score cannot be lowered; then all pods weigh the same.
        return


def _become(spec: dict[str, Any], fds: Fds, status: socket.socket) -> None:
    os.setsid()
    os.umask(0o022)
    _raise_file_limit()
    if spec["tty"]:
        _take_terminal(spec, status)
    else:
        _take_pipes(spec, fds)
    _change_user(spec)
    os.chdir(spec["cwd"])
    # What Python, the spawner or whoever started the cluster (`nohup`) ignores would stay ignored after exec.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execvpe(spec["argv"][0], spec["argv"], spec["env"])


def _raise_file_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _take_terminal(spec: dict[str, Any], status: socket.socket) -> None:
    """A terminal of the container's own devpts, so that its name exists inside; the other end goes to the agent."""
    master, slave = os.openpty()
    os.fchown(slave, spec["uid"], 5)
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in (0, 1, 2):
        os.dup2(slave, number)
    socket.send_fds(status, [b"{}"], [master])
    os.close(master)
    os.close(slave)


def _take_pipes(spec: dict[str, Any], fds: Fds) -> None:
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if stat.S_ISFIFO(os.fstat(fds[name]).st_mode):
            os.fchown(fds[name], spec["uid"], spec["gid"])  # /dev/stdout can then be opened by that user
        os.dup2(fds[name], number)


def _change_user(spec: dict[str, Any]) -> None:
    capabilities = frozenset(spec["capabilities"])
    syscalls.keep_bounding(capabilities)
    os.setgroups(spec["groups"])
    os.setresgid(spec["gid"], spec["gid"], spec["gid"])
    os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    if spec["uid"] == 0:
        syscalls.set_capabilities(capabilities)
    if spec["no_new_privileges"]:
        syscalls.forbid_new_privileges()
    syscalls.die_with_parent(signal.SIGKILL)
