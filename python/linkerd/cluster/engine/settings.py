"""What one embedded cluster is made of: its addresses, its directory, where the programs are.

Addresses are the same in every instance: they exist only inside the cluster's own network namespace.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import linkerd

NODE_NAME = "node-1"
NODE_IP = "192.168.127.1"
GATEWAY_IP = "169.254.1.1"
"""The pods' next hop, as in Calico: any address does that no pod will ever want to reach."""
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
API_PORT = 6443
"""Of the API server inside; the host sees the port that the user chose."""
KUBELET_PORT = 10250
ETCD_URL = "http://127.0.0.1:2379"
"""Without TLS: the loopback of the cluster's network namespace, which no pod shares."""

DEFAULT_STATE_DIR = Path("/var/lib/linkerd-cluster")
DEFAULT_PORT = 6443


@dataclass(frozen=True, slots=True)
class Settings:
    """One instance: a state directory and a port on 127.0.0.1 of the host."""

    state_dir: Path
    port: int
    bin_dir: Path
    clone_dir: Path
    python_prefixes: tuple[Path, ...] = ()

    @property
    def pki(self) -> Path:
        return self.state_dir / "pki"

    @property
    def etcd(self) -> Path:
        return self.state_dir / "etcd"

    @property
    def logs(self) -> Path:
        return self.state_dir / "logs"

    @property
    def run(self) -> Path:
        return self.state_dir / "run"

    @property
    def images(self) -> Path:
        return self.state_dir / "images"

    @property
    def pods(self) -> Path:
        return self.state_dir / "pods"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, with the host's address of the API."""
        return self.state_dir / "kubeconfig"

    def component_kubeconfig(self, component: str) -> Path:
        """A component's own, with the address inside."""
        return self.run / f"{component}.kubeconfig"

    def program(self, name: str) -> Path:
        return self.bin_dir / name


def settings_for(state_dir: Path, port: int) -> Settings:
    """The settings of an instance that runs this installation's programs."""
    return Settings(
        state_dir=Path(os.path.abspath(state_dir)),
        port=port,
        bin_dir=Path(sys.executable).parent,
        clone_dir=Path(linkerd.__file__).resolve().parents[2],
        python_prefixes=python_prefixes(sys.prefix, sys.base_prefix, os.path.realpath(sys.executable), sys.path),
    )


def settings_as_json(settings: Settings) -> dict[str, Any]:
    """For the first process's command line."""
    return {
        "state_dir": str(settings.state_dir),
        "port": settings.port,
        "bin_dir": str(settings.bin_dir),
        "clone_dir": str(settings.clone_dir),
        "python_prefixes": [str(path) for path in settings.python_prefixes],
    }


def settings_from(document: Mapping[str, Any]) -> Settings:
    """The settings that `settings_as_json` made the document of."""
    return Settings(
        state_dir=Path(document["state_dir"]),
        port=document["port"],
        bin_dir=Path(document["bin_dir"]),
        clone_dir=Path(document["clone_dir"]),
        python_prefixes=tuple(Path(path) for path in document["python_prefixes"]),
    )


def python_prefixes(prefix: str, base_prefix: str, executable: str, search_path: Iterable[str]) -> tuple[Path, ...]:
    """The directories that a program in Python reads, without those that are below another one.

    Everything below /usr is left out: each container sees it anyway.
    """
    wanted = [Path(prefix), Path(base_prefix), Path(executable).parent]
    wanted += [Path(entry) for entry in search_path if entry and Path(entry).is_dir()]
    found: list[Path] = []
    for path in sorted({Path(os.path.abspath(p)) for p in wanted}):
        if path.is_relative_to("/usr") or any(path.is_relative_to(known) for known in found):
            continue
        found.append(path)
    return tuple(found)


def instance_from(environ: Mapping[str, str]) -> tuple[Path, int]:
    """The default directory and port, which LINKERD_CLUSTER_DIR and LINKERD_CLUSTER_PORT change.

    Raises ValueError for a port that is none.
    """
    directory = environ.get("LINKERD_CLUSTER_DIR") or DEFAULT_STATE_DIR
    text = environ.get("LINKERD_CLUSTER_PORT") or str(DEFAULT_PORT)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"LINKERD_CLUSTER_PORT: `{text}` is no port (1 to 65535)")
    return Path(directory), int(text)
