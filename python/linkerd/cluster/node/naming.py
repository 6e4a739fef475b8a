"""The files by which a container knows names: resolv.conf, hosts, hostname (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Object = dict[str, Any]

_HOSTS = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
fe00::\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""
_MAX_HOSTNAME = 63  # characters, the kernel's and DNS's limit for a label


def hostname(pod: Object) -> str:
    """What `hostname` says inside the pod."""
    name: str = pod["spec"].get("hostname") or pod["metadata"]["name"]
    return name[:_MAX_HOSTNAME].rstrip("-.")


def full_name(pod: Object, domain: str) -> str | None:
    """The name of a pod that a headless service gives a name to."""
    subdomain = pod["spec"].get("subdomain")
    if not subdomain:
        return None
    return f"{hostname(pod)}.{subdomain}.{pod['metadata']['namespace']}.svc.{domain}"


def hosts_file(pod: Object, pod_ip: str, domain: str) -> str:
    """/etc/hosts: the pod itself and its aliases."""
    names = [name for name in (full_name(pod, domain), hostname(pod)) if name]
    text = _HOSTS + "\t".join([pod_ip, *names]) + "\n"
    aliases = pod["spec"].get("hostAliases") or ()
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
    for alias in aliases:
        text += "\t".join([alias["ip"], *(alias.get("hostnames") or ())]) + "\n"
    return text


def resolv_conf(pod: Object, host_text: str, cluster_dns: str, domain: str) -> str:
    """By dnsPolicy and dnsConfig; ClusterFirst does not apply to a pod in the node's own network."""
    spec = pod["spec"]
    policy = spec.get("dnsPolicy", "ClusterFirst")
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    servers: list[str] = []
    search: list[str] = []
    options: dict[str, str | None] = {}
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet"):
        namespace = pod["metadata"]["namespace"]
        servers = [cluster_dns]
        search = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain]
        options = {"ndots": "5"}
    elif policy == "Default":
        servers, search, options = parse_resolv_conf(host_text)
    config = spec.get("dnsConfig") or {}
    servers += [server for server in config.get("nameservers") or () if server not in servers]
    search += [name for name in config.get("searches") or () if name not in search]
    options |= {option["name"]: option.get("value") for option in config.get("options") or ()}
    return _format(servers, search, options)


def parse_resolv_conf(text: str) -> tuple[list[str], list[str], dict[str, str | None]]:
    """Name servers, search domains and options of a resolv.conf."""
    servers: list[str] = []
    search: list[str] = []
    options: dict[str, str | None] = {}
    for line in text.splitlines():
        words = line.split()
        match words:
            case ["nameserver", server, *_]:
                servers.append(server)
            case ["search" | "domain", *names]:
                search = names
            case ["options", *items]:
                options |= {name: value or None for name, _, value in (item.partition(":") for item in items)}
    return servers, search, options


def _format(servers: Sequence[str], search: Sequence[str], options: dict[str, str | None]) -> str:
    lines = []
    if search:
        lines.append("search " + " ".join(search))
    lines += [f"nameserver {server}" for server in servers]
    if options:
        lines.append("options " + " ".join(f"{k}:{v}" if v else k for k, v in options.items()))
    return "\n".join(lines) + "\n"
