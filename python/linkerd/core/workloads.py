"""Pods, ExternalWorkloads, Nodes and Namespaces as the control plane sees them: slim values, parsed once from the
API's objects.

A whole Pod is 5 to 20 KB of JSON; of thousands of them each component keeps only this.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from linkerd.core.labels import CONTROL_PLANE_NS, POD_TEMPLATE_HASH, PROXY_OWNERS, ZONE

Object = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace and name."""

PROXY_CONTAINER = "linkerd-proxy"
DEFAULT_INBOUND_PORT = 4143


@dataclass(frozen=True, slots=True)
class ContainerPort:
    port: int
    name: str = ""
    host_port: int = 0
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class Pod:
    namespace: str
    name: str
    uid: str = ""
    ips: tuple[str, ...] = ()
    host_ip: str = ""
    host_network: bool = False
    node: str = ""
    service_account: str = "default"
    owner_kind: str = ""
    owner_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)  # those of Linkerd only
    ports: tuple[ContainerPort, ...] = ()
    probes: tuple[tuple[int, str], ...] = ()  # port and path of each httpGet probe
    inbound_port: int = DEFAULT_INBOUND_PORT  # where its proxy takes direct connections
    ready: bool = False
    terminating: bool = False
    finished: bool = False

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    @property
    def control_plane_ns(self) -> str:
        """Empty when the pod is not meshed."""
        return self.labels.get(CONTROL_PLANE_NS, "")

    @property
    def serves(self) -> bool:
        """Whether new connections should still go there."""
        return not self.terminating and not self.finished

    def port_names(self) -> dict[str, int]:
        """Its named TCP ports."""
        return {port.name: port.port for port in self.ports if port.name and port.protocol == "TCP"}


@dataclass(frozen=True, slots=True)
class ExternalWorkload:
    """A machine outside of the cluster that runs a proxy of the mesh."""

    namespace: str
    name: str
    created: str = ""
    ips: tuple[str, ...] = ()
    identity: str = ""  # DNS-like, or `spiffe://…`
    server_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)  # those of Linkerd only
    ports: tuple[ContainerPort, ...] = ()
    ready: bool = False

    probes: ClassVar[tuple[tuple[int, str], ...]] = ()

    @property
    def key(self) -> Key:
        return self.namespace, self.name

    @property
    def inbound_port(self) -> int:
        return self.port_names().get(PROXY_CONTAINER, DEFAULT_INBOUND_PORT)

    def port_names(self) -> dict[str, int]:
        """Its named TCP ports."""
        return {port.name: port.port for port in self.ports if port.name and port.protocol == "TCP"}


@dataclass(frozen=True, slots=True)
class Node:
    name: str
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Namespace:
    name: str
    annotations: Mapping[str, str] = field(default_factory=dict)


def parse_pod(obj: Object) -> Pod:
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    labels = interned(metadata.get("labels"))
    owner_kind, owner_name = _owner(metadata, labels)
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    return Pod(
        namespace=sys.intern(metadata["namespace"]),
        name=metadata["name"],
        uid=metadata.get("uid") or "",
        ips=_ips(status),
        host_ip=status.get("hostIP") or "",
        host_network=bool(spec.get("hostNetwork")),
        node=sys.intern(spec.get("nodeName") or ""),
        service_account=sys.intern(spec.get("serviceAccountName") or "default"),
        owner_kind=owner_kind,
        owner_name=owner_name,
        labels=labels,
        annotations=linkerd_annotations(metadata),
        ports=tuple(_ports(containers)),
        probes=tuple(sorted(set(_probes(containers)))),
        inbound_port=_inbound_port(containers),
        ready=_is_ready(status),
        terminating=bool(metadata.get("deletionTimestamp")),
        finished=status.get("phase") in ("Succeeded", "Failed"),
    )


def parse_external_workload(obj: Object) -> ExternalWorkload:
    """Of v1beta1, or of v1alpha1, which writes `meshTls`."""
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    tls = spec.get("meshTLS") or spec.get("meshTls") or {}
    return ExternalWorkload(
        namespace=sys.intern(metadata["namespace"]),
        name=metadata["name"],
        created=metadata.get("creationTimestamp") or "",
        ips=tuple(entry["ip"] for entry in spec.get("workloadIPs") or [] if entry.get("ip")),
        identity=tls.get("identity") or "",
        server_name=tls.get("serverName") or "",
        labels=interned(metadata.get("labels")),
        annotations=linkerd_annotations(metadata),
        ports=tuple(
            ContainerPort(port["port"], port.get("name") or "", protocol=port.get("protocol") or "TCP")
            for port in spec.get("ports") or []
        ),
        ready=_is_ready(status),
    )


def parse_node(obj: Object) -> Node:
    metadata = obj["metadata"]
    return Node(sys.intern(metadata["name"]), sys.intern((metadata.get("labels") or {}).get(ZONE) or ""))


def parse_namespace(obj: Object) -> Namespace:
    return Namespace(sys.intern(obj["metadata"]["name"]), linkerd_annotations(obj["metadata"]))


def linkerd_annotations(metadata: Object) -> dict[str, str]:
    """Those whose name says that they are Linkerd's; the others may be large and mean nothing here."""
    found = metadata.get("annotations") or {}
    return interned({key: value for key, value in found.items() if "linkerd.io/" in key})


def interned(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Names and values repeat from pod to pod; this way each exists once."""
    return {sys.intern(key): sys.intern(value) for key, value in (labels or {}).items()}


def _ips(status: Object) -> tuple[str, ...]:
    listed = tuple(entry["ip"] for entry in status.get("podIPs") or [] if entry.get("ip"))
    return listed or ((status["podIP"],) if status.get("podIP") else ())


def _owner(metadata: Object, labels: Mapping[str, str]) -> tuple[str, str]:
    """The top-most owner: what the injector wrote, else the controller, a ReplicaSet standing for its Deployment.

    A Deployment names its ReplicaSets `<deployment>-<pod-template-hash>`, so no watch of ReplicaSets is needed.
    """
    for label, kind in PROXY_OWNERS.items():
        if label in labels:
            return kind, labels[label]
    owners = metadata.get("ownerReferences") or []
    owner = next((o for o in owners if o.get("controller")), owners[0] if len(owners) == 1 else None)
    if owner is None:
        return "pod", metadata["name"]
    template = labels.get(POD_TEMPLATE_HASH)
    if owner["kind"] == "ReplicaSet" and template and owner["name"].endswith(f"-{template}"):
        return "deployment", sys.intern(owner["name"].removesuffix(f"-{template}"))
    return sys.intern(owner["kind"].lower()), sys.intern(owner["name"])


def _ports(containers: list[Object]) -> Iterator[ContainerPort]:
    for container in containers:
        for port in container.get("ports") or []:
            yield ContainerPort(
                port=port["containerPort"],
                name=sys.intern(port.get("name") or ""),
                host_port=port.get("hostPort") or 0,
                protocol=sys.intern(port.get("protocol") or "TCP"),
            )


def _probes(containers: list[Object]) -> Iterator[tuple[int, str]]:
    for container in containers:
        names = {p.get("name"): p["containerPort"] for p in container.get("ports") or []}
        for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
            get = (container.get(kind) or {}).get("httpGet")
            if not get:
                continue
            port = get["port"] if isinstance(get["port"], int) else names.get(get["port"])
            if port:
                # The query is no part of what a route matches.
                yield port, (get.get("path") or "/").partition("?")[0] or "/"


def _inbound_port(containers: list[Object]) -> int:
    proxy = next((c for c in containers if c["name"] == PROXY_CONTAINER), None)
    for variable in (proxy or {}).get("env") or []:
        if variable["name"] == "LINKERD2_PROXY_INBOUND_LISTEN_ADDR":
            port = (variable.get("value") or "").rpartition(":")[2]
            return int(port) if port.isdigit() else DEFAULT_INBOUND_PORT
    return DEFAULT_INBOUND_PORT


def _is_ready(status: Object) -> bool:
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or [])
