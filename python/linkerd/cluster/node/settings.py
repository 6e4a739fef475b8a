"""The agent's settings: `run/agent.json`, which the engine writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path


class SettingsError(ValueError):
    """The file is not what the engine writes; the message says what is wrong with which file."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things are, and who this node is."""

    node_name: str
    node_ip: IPv4Address
    pod_cidr: IPv4Network
    cluster_dns: IPv4Address
    cluster_domain: str
    state_dir: Path
    kubeconfig: Path
    tls_cert: Path
    tls_key: Path
    client_ca: Path
    bin_dir: Path
    clone_dir: Path
    python_prefixes: tuple[Path, ...]


def load_settings(path: Path) -> Settings:
    """Read the file. Raises SettingsError."""
    try:
        raw = json.loads(path.read_text())
        return Settings(
            node_name=raw["node_name"],
            node_ip=IPv4Address(raw["node_ip"]),
            pod_cidr=IPv4Network(raw["pod_cidr"]),
            cluster_dns=IPv4Address(raw["cluster_dns"]),
            cluster_domain=raw["cluster_domain"],
            python_prefixes=tuple(Path(prefix) for prefix in raw["python_prefixes"]),
            **{key: Path(raw[key]) for key in _PATHS},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path}: {type(error).__name__}: {error}") from error


_PATHS = ("state_dir", "kubeconfig", "tls_cert", "tls_key", "client_ca", "bin_dir", "clone_dir")
