"""A pod in, a meshed pod out; or the reason why not. Pure: the webhook, the installer and the command line share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from linkerd.injector import annotations as names
from linkerd.injector.containers import (
    DEBUG,
    INIT,
    PROXY,
    Placement,
    debug_container,
    init_container,
    proxy_container,
    volumes,
)
from linkerd.injector.settings import ProxySettings, Settings

Object = dict[str, Any]

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_OTHER_SIDECARS = ("istio-proxy", "gloo-proxy", "envoy", "envoy-sidecar")


class Reason(Enum):
    """Why a pod is not meshed. The value is told to people."""

    NOT_ASKED = 'neither the namespace nor the pod have the annotation "linkerd.io/inject: enabled"'
    DISABLED = 'the pod has the annotation "linkerd.io/inject: disabled"'
    NAMESPACE_DISABLED = 'the namespace has the annotation "linkerd.io/inject: disabled"'
    UNKNOWN_ANNOTATION = 'the annotation "linkerd.io/inject" has a value other than enabled, ingress and disabled'
    HOST_NETWORK = "hostNetwork is enabled, so redirecting the pod's traffic would redirect the node's"
    SIDECAR = "the pod has a proxy already"

    @property
    def worth_an_event(self) -> bool:
        """Somebody asked for the proxy, and it did not come."""
        return self in (Reason.HOST_NETWORK, Reason.SIDECAR, Reason.UNKNOWN_ANNOTATION)


@dataclass(frozen=True, slots=True)
class Owner:
    """The workload at the root of a pod's owners. `kind` as Kubernetes writes it (`Deployment`)."""

    kind: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Injection:
    """The pod as it should be (the given one when it is not meshed), and what to say about it."""

    pod: Object
    reason: Reason | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def injected(self) -> bool:
        return self.reason is None


def inject(
    pod: Object,
    namespace: str,
    namespace_annotations: Mapping[str, str],
    owner: Owner,
    settings: Settings,
    *,
    component: str = "",
    created_by: str = "linkerd/proxy-injector",
) -> Injection:
    """The pod (`metadata` and `spec`: a Pod or a pod template) with the proxy in it, if it is to have one.

    `component` names the control plane's own pods (`identity`, `destination`, `proxy-injector`), which are meshed
    without being asked.
    """
    own = (pod.get("metadata") or {}).get("annotations") or {}
    inherited = names.inherited(own, namespace_annotations)
    effective = {**inherited, **own}
    reason = obstacle(pod["spec"]) if component else _reason_against(own, namespace_annotations, pod["spec"])
    if reason is not None:
        return Injection(with_opaque_ports(pod, namespace_annotations, settings), reason)
    proxy, warnings = names.overridden(settings.proxy, effective)
    # Lists and mappings are replaced, never changed: what stays is shared with the given pod. A burst of pods is a
    # burst of copies otherwise.
    meshed = {**pod, "metadata": dict(pod.get("metadata") or {}), "spec": dict(pod["spec"])}
    placement = _placement(meshed["spec"], effective, proxy, owner, component)
    _add_containers(meshed["spec"], settings, proxy, placement)
    added = inherited | _exposed_opaque_ports(pod["spec"], effective, settings)
    _add_metadata(meshed, added, namespace, owner, settings, proxy, placement, created_by)
    return Injection(meshed, warnings=warnings)


def _reason_against(own: Mapping[str, str], inherited: Mapping[str, str], spec: Object) -> Reason | None:
    wish = own.get(names.INJECT, inherited.get(names.INJECT))
    if wish is None:
        return Reason.NOT_ASKED
    if wish == "disabled":
        return Reason.DISABLED if names.INJECT in own else Reason.NAMESPACE_DISABLED
    if wish not in ("enabled", "ingress"):
        return Reason.UNKNOWN_ANNOTATION
    return obstacle(spec)


def obstacle(spec: Object) -> Reason | None:
    """What keeps a pod from being meshed, whatever is asked for."""
    if spec.get("hostNetwork"):
        return Reason.HOST_NETWORK
    present = {c["name"] for c in [*spec.get("containers", []), *(spec.get("initContainers") or [])]}
    if present.intersection((PROXY, INIT, *_OTHER_SIDECARS)):
        return Reason.SIDECAR
    return None


def _placement(
    spec: Object, effective: Mapping[str, str], proxy: ProxySettings, owner: Owner, component: str
) -> Placement:
    containers = spec["containers"]
    return Placement(
        inbound_ports=",".join(str(port) for port in inbound_ports(spec)),
        opaque_ports=names.resolved_ports(proxy.opaque_ports, containers),
        component=component,
        ingress=effective.get(names.INJECT) == "ingress",
        tap=not _tap_disabled(effective),
        native=_ends(spec, owner) if proxy.native_sidecar is None else proxy.native_sidecar,
    )


def _ends(spec: Object, owner: Owner) -> bool:
    """Whether the pod is meant to complete: a proxy among its regular containers would keep it from that."""
    return owner.kind in ("Job", "CronJob") or spec.get("restartPolicy") in ("Never", "OnFailure")


def _tap_disabled(effective: Mapping[str, str]) -> bool:
    return effective.get(names.DISABLE_TAP, "").lower() in ("true", "1", "enabled")


def inbound_ports(spec: Object) -> list[int]:
    """The ports that the pod says it listens on: its containers' and those that its probes ask."""
    ports: set[int] = set()
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        ports.update(p["containerPort"] for p in container.get("ports") or [] if p.get("protocol", "TCP") == "TCP")
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            port = ((container.get(probe) or {}).get("httpGet") or {}).get("port")
            if isinstance(port, int):
                ports.add(port)
    return sorted(ports)


def _add_containers(spec: Object, settings: Settings, proxy: ProxySettings, placement: Placement) -> None:
    container = proxy_container(settings, proxy, placement)
    first = [init_container(proxy)]
    if placement.native:
        first.append(container)
    else:
        # First among the regular ones, so that it is started before the application and stopped with it.
        spec["containers"] = [container, *spec["containers"]]
    if proxy.debug_sidecar:
        spec["containers"] = [*spec["containers"], debug_container(proxy)]
    spec["initContainers"] = [*first, *(spec.get("initContainers") or [])]
    spec["volumes"] = [*(spec.get("volumes") or []), *volumes()]


def _add_metadata(
    pod: Object,
    inherited: Mapping[str, str],
    namespace: str,
    owner: Owner,
    settings: Settings,
    proxy: ProxySettings,
    placement: Placement,
    created_by: str,
) -> None:
    metadata = pod.setdefault("metadata", {})
    own = metadata.get("annotations") or {}
    added = {
        **inherited,
        "linkerd.io/created-by": f"{created_by} {settings.version}",
        "linkerd.io/proxy-version": proxy.image.version,
        "linkerd.io/trust-root-sha256": settings.trust_anchors_sha256,
        "config.linkerd.io/pod-inbound-ports": placement.inbound_ports,
    }
    if placement.tap:
        added[names.TAP_ENABLED] = "true"
    if DEFAULT_CONTAINER not in own:
        # `kubectl logs` and `kubectl exec` without -c reach the application.
        added[DEFAULT_CONTAINER] = _application(pod["spec"])
    metadata["annotations"] = own | added
    labels = {"linkerd.io/control-plane-ns": settings.control_plane_namespace, "linkerd.io/workload-ns": namespace}
    if owner.kind:
        labels[f"linkerd.io/proxy-{owner.kind.lower()}"] = owner.name[:63].rstrip("-.")
    metadata["labels"] = (metadata.get("labels") or {}) | labels


def _application(spec: Object) -> str:
    return next(c["name"] for c in spec["containers"] if c["name"] not in (PROXY, DEBUG))


# Opaque ports: pods and Services that are not meshed carry the annotation too, since it tells their clients' proxies


def with_opaque_ports(obj: Object, namespace_annotations: Mapping[str, str], settings: Settings) -> Object:
    """The Pod or Service with the opaque ports of its namespace, or with those of the default that it exposes."""
    own = (obj.get("metadata") or {}).get("annotations") or {}
    if names.OPAQUE_PORTS in own:
        return obj
    if names.OPAQUE_PORTS in namespace_annotations:
        added = {names.OPAQUE_PORTS: namespace_annotations[names.OPAQUE_PORTS]}
    else:
        added = _exposed_opaque_ports(obj.get("spec") or {}, own, settings)
    if not added:
        return obj
    return {**obj, "metadata": {**(obj.get("metadata") or {}), "annotations": own | added}}


def _exposed_opaque_ports(spec: Object, effective: Mapping[str, str], settings: Settings) -> dict[str, str]:
    if names.OPAQUE_PORTS in effective:
        return {}
    opaque = names.parse_ports(settings.proxy.opaque_ports)
    exposed = [port for port in _exposed_ports(spec) if names.contained(port, opaque)]
    return {names.OPAQUE_PORTS: ",".join(map(str, exposed))} if exposed else {}


def _exposed_ports(spec: Object) -> list[int]:
    """Of a pod: its containers' ports. Of a Service: its ports and its numeric target ports."""
    if "containers" in spec:
        return inbound_ports(spec)
    ports = spec.get("ports") or []
    numbers = {port["port"] for port in ports}
    numbers.update(port["targetPort"] for port in ports if isinstance(port.get("targetPort"), int))
    return sorted(numbers)
