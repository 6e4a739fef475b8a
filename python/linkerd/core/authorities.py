"""Where a request is meant to go: `web.emojivoto.svc.cluster.local:80`, `10.1.2.3:8080`."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from linkerd.core.ports import parse_port

DEFAULT_PORT = 80

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class ServiceAuthority:
    """A port of a Service; with `hostname`, one pod of it (`<hostname>.<service>.<ns>.svc.<domain>`)."""

    namespace: str
    service: str
    port: int
    hostname: str = ""


@dataclass(frozen=True, slots=True)
class AddressAuthority:
    ip: IPAddress
    port: int


Authority = ServiceAuthority | AddressAuthority


class NotAService(ValueError):
    """A name that is none of a Service of this cluster."""


def parse_authority(text: str, cluster_domain: str) -> Authority:
    """Host and port (default 80). Raises ValueError; NotAService when it is a well-formed name of something else."""
    host, port = split_host_port(text)
    try:
        return AddressAuthority(ip_address(host), port)
    except ValueError:
        return _parse_service(host, port, cluster_domain)


def split_host_port(text: str) -> tuple[str, int]:
    """`host[:port]`, `[v6][:port]`. Raises ValueError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"`{text}` is not host:port")
        return host, parse_port(rest[1:]) if rest else DEFAULT_PORT
    host, colon, port = text.rpartition(":")
    if not colon:
        host = text
    if not host or ":" in host:
        raise ValueError(f"`{text}` is not host:port")
    return host, parse_port(port) if colon else DEFAULT_PORT


def service_name(namespace: str, service: str, cluster_domain: str) -> str:
    return f"{service}.{namespace}.svc.{cluster_domain}"


def _parse_service(host: str, port: int, cluster_domain: str) -> ServiceAuthority:
    labels = host.lower().rstrip(".").split(".")
    suffix = ["svc", *cluster_domain.lower().rstrip(".").split(".")]
    if labels[-len(suffix) :] != suffix:
        raise NotAService(f"`{host}` is not a Service of this cluster (….svc.{cluster_domain})")
    match labels[: -len(suffix)]:
        case [service, namespace] if service and namespace:
            return ServiceAuthority(namespace, service, port)
        case [hostname, service, namespace] if hostname and service and namespace:
            return ServiceAuthority(namespace, service, port, hostname)
        case _:
            raise NotAService(f"`{host}` is not of the form <service>.<namespace>.svc.{cluster_domain}")
