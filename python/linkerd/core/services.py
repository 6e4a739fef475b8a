"""Services and EndpointSlices as slim values, parsed once from the API's objects."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linkerd.core.labels import SERVICE_NAME
from linkerd.core.workloads import Key, interned, linkerd_annotations

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServicePort:
    port: int
    name: str = ""
    app_protocol: str | None = None
    target: int | str = 0


@dataclass(frozen=True, slots=True)
class Service:
    namespace: str
    name: str
    created: str = ""
    type: str = "ClusterIP"
    cluster_ips: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()  # TCP only
    annotations: Mapping[str, str] = field(default_factory=dict)  # those of Linkerd only
    selector: tuple[tuple[str, str], ...] = ()
    publish_not_ready: bool = False
    local_only: bool = False  # internalTrafficPolicy: Local

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Without selector it selects nothing: its endpoints are then somebody else's concern."""
        return bool(self.selector) and all(labels.get(key) == value for key, value in self.selector)

    def port(self, number: int) -> ServicePort | None:
        return next((port for port in self.ports if port.port == number), None)


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    addresses: tuple[str, ...]
    ready: bool = True
    terminating: bool = False
    hostname: str = ""
    node: str = ""
    zone: str = ""
    zones: tuple[str, ...] = ()  # hints.forZones
    target_kind: str = ""
    target: Key = ("", "")


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    namespace: str
    name: str
    service: str
    address_type: str = "IPv4"
    ports: tuple[tuple[str, int], ...] = ()  # name and number, TCP only
    endpoints: tuple[SliceEndpoint, ...] = ()

    def port(self, name: str) -> int | None:
        return next((number for known, number in self.ports if known == name), None)


def parse_service(obj: Object) -> Service:
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    cluster_ips = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return Service(
        namespace=sys.intern(metadata["namespace"]),
        name=sys.intern(metadata["name"]),
        created=metadata.get("creationTimestamp") or "",
        type=spec.get("type") or "ClusterIP",
        cluster_ips=tuple(ip for ip in cluster_ips if ip and ip != "None"),
        ports=tuple(_service_port(p) for p in spec.get("ports") or [] if (p.get("protocol") or "TCP") == "TCP"),
        annotations=linkerd_annotations(metadata),
        selector=tuple(sorted(interned(spec.get("selector")).items())),
        publish_not_ready=bool(spec.get("publishNotReadyAddresses")),
        local_only=spec.get("internalTrafficPolicy") == "Local",
    )


def parse_endpoint_slice(obj: Object) -> EndpointSlice:
    metadata = obj["metadata"]
    namespace = sys.intern(metadata["namespace"])
    return EndpointSlice(
        namespace=namespace,
        name=metadata["name"],
        service=sys.intern((metadata.get("labels") or {}).get(SERVICE_NAME) or ""),
        address_type=obj.get("addressType") or "IPv4",
        ports=tuple(
            (sys.intern(p.get("name") or ""), p["port"])
            for p in obj.get("ports") or []
            if p.get("port") and (p.get("protocol") or "TCP") == "TCP"
        ),
        endpoints=tuple(_slice_endpoint(e, namespace) for e in obj.get("endpoints") or []),
    )


def _service_port(port: Object) -> ServicePort:
    return ServicePort(
        port=port["port"],
        name=sys.intern(port.get("name") or ""),
        app_protocol=port.get("appProtocol"),
        target=port.get("targetPort") or port["port"],
    )


def _slice_endpoint(endpoint: Object, namespace: str) -> SliceEndpoint:
    conditions, target = endpoint.get("conditions") or {}, endpoint.get("targetRef") or {}
    zones = (endpoint.get("hints") or {}).get("forZones") or []
    return SliceEndpoint(
        addresses=tuple(endpoint.get("addresses") or ()),
        ready=conditions.get("ready") is not False,  # absent means ready, says the API
        terminating=bool(conditions.get("terminating")),
        hostname=endpoint.get("hostname") or "",
        node=sys.intern(endpoint.get("nodeName") or ""),
        zone=sys.intern(endpoint.get("zone") or ""),
        zones=tuple(sys.intern(zone["name"]) for zone in zones),
        target_kind=sys.intern(target.get("kind") or ""),
        target=(target.get("namespace") or namespace, target["name"]) if target.get("name") else ("", ""),
    )
