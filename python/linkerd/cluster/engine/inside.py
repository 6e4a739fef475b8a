"""What the first process sets up for the others: mounts, name, network of the cluster's own namespaces."""

from __future__ import annotations

import resource
import socket
import subprocess
from pathlib import Path

from linkerd.cluster.engine import settings
from linkerd.cluster.node import syscalls

_MS_SLAVE = 1 << 19

_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # Pods are reached by /32 routes over veth pairs and answer from the same: strict reverse-path checks only get in
    # the way of traffic that services send back to where it came from.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}

_ADDRESSES = f"""\
link set lo up
address add {settings.NODE_IP}/32 dev lo
address add {settings.GATEWAY_IP}/32 dev lo
route add {settings.SERVICE_CIDR} dev lo src {settings.NODE_IP}
"""
"""The last one: the node itself has no other route, and without any the kernel refuses to send to a service before
kube-proxy's rules get to see the packet."""


def set_up_mounts() -> None:
    """A mount tree of our own, in which /proc shows our own processes.

    Nothing that is mounted here is seen by the host. What the host unmounts goes from here too: else a disk would
    stay busy for as long as the cluster runs.
    """
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
    syscalls.mount("", "/", flags=syscalls.MS_REC | _MS_SLAVE)
    syscalls.mount("proc", "/proc", "proc", flags=flags)


def set_up_network() -> None:
    """The node's addresses, all on lo: there is no other device before the first pod. Raises OSError."""
    run_ip(_ADDRESSES)
    for name, value in _SYSCTLS.items():
        (Path("/proc/sys") / name).write_text(value)


def run_ip(batch: str) -> None:
    """Commands of ip(8), one a line. Raises OSError with what it says."""
    done = subprocess.run(["ip", "-batch", "-"], input=batch, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip: {done.stderr.strip()}")


def set_up_process() -> None:
    """The name, and as many open files as we may have: the API server and etcd need thousands."""
    socket.sethostname(settings.NODE_NAME)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
