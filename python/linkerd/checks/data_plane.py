"""The proxies beside applications: ready, of one version, speaking mTLS to each other, and configured as meant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from linkerd.checks.cluster import Cluster, listed, name_of, proxy_of
from linkerd.checks.control_plane import check_cli_version, check_proxies_ready, check_proxy_versions
from linkerd.checks.model import Category, Check, CheckFailure, Severity, Skipped
from linkerd.k8s.resources import NAMESPACES, PODS, SERVICES

Object = dict[str, Any]

_INJECT = "linkerd.io/inject"
_OPAQUE_PORTS = "config.linkerd.io/opaque-ports"
_RESTART = "restart these workloads: `kubectl rollout restart`"


@dataclass(frozen=True, slots=True, order=True)
class PlainPair:
    """Two meshed pods that talk without mTLS. `reason` is the client proxy's own word for it."""

    client: str
    server: str
    reason: str


@dataclass(frozen=True, slots=True)
class Connections:
    """What the proxies say of their connections to other meshed pods."""

    secured: int
    plain: tuple[PlainPair, ...]
    unasked: tuple[str, ...] = ()
    """Proxies that did not answer."""


ConnectionsOf = Callable[[list[Object]], Awaitable[Connections]]
"""Asks the proxies of these pods."""


def mutual_tls(cluster: Cluster, namespace: str | None, connections_of: ConnectionsOf) -> Category:
    async def run() -> None:
        pods = [pod for pod in await cluster.meshed_pods(namespace) if pod["status"].get("phase") == "Running"]
        if not pods:
            raise Skipped
        found = await connections_of(pods)
        if found.plain:
            pairs = [f"{pair.client} -> {pair.server}: {pair.reason}" for pair in sorted(found.plain)]
            raise CheckFailure(listed("these meshed pods talk to each other without mTLS:", pairs))
        if found.unasked and len(found.unasked) == len(pods):
            raise CheckFailure(listed("no proxy could be asked:", list(found.unasked)))

    return Category(
        "linkerd-mtls",
        [
            Check(
                "connections between meshed pods use mTLS",
                "l5d-meshed-mtls",
                run,
                "`linkerd identity` shows the pods' certificates; skipped ports and an unready identity service are"
                " the usual causes",
                Severity.WARNING,
            )
        ],
    )


def data_plane(cluster: Cluster, namespace: str | None, cli_version: str) -> Category:
    async def exists() -> None:
        if not namespace:
            raise Skipped
        if await cluster.find(NAMESPACES, namespace) is None:
            raise CheckFailure(f'The "{namespace}" namespace does not exist')

    async def ready() -> None:
        check_proxies_ready(await cluster.data_plane_pods(namespace), namespace)

    async def meshed_as_asked() -> None:
        wishes = {
            name_of(item): (item["metadata"].get("annotations") or {}).get(_INJECT)
            for item in await cluster.list(NAMESPACES)
        }
        bare = [name_of(pod) for pod in await cluster.list(PODS, namespace) if lacks_proxy(pod, wishes)]
        if bare:
            raise CheckFailure(listed("these pods ask for a proxy and have none:", bare))

    async def current() -> None:
        check_proxy_versions(await cluster.data_plane_pods(namespace), await cluster.version())

    async def match() -> None:
        check_cli_version(await cluster.data_plane_pods(namespace), cli_version)

    async def pod_labels() -> None:
        _check_labels(await cluster.data_plane_pods(namespace), "pod")

    async def service_labels() -> None:
        _check_labels(await cluster.list(SERVICES, namespace), "service")

    async def service_annotations() -> None:
        wrong = [
            f"{name_of(service)}: mirror.linkerd.io/exported must be a label"
            for service in await cluster.list(SERVICES, namespace)
            if "mirror.linkerd.io/exported" in (service["metadata"].get("annotations") or {})
        ]
        if wrong:
            raise CheckFailure(listed("Some annotations on data plane services should be labels:", wrong))

    async def opaque_ports() -> None:
        pods = await cluster.data_plane_pods(namespace)
        wrong = [
            problem
            for service in await cluster.list(SERVICES, namespace)
            for pod in pods
            if (problem := misannotated(service, pod))
        ]
        if wrong:
            raise CheckFailure(listed("opaque ports of services and their pods differ:", wrong))

    annotations = "what configures the proxy is an annotation, not a label"
    return Category(
        "linkerd-data-plane",
        [
            Check("data plane namespace exists", "l5d-data-plane-exists", exists, "is the name right?"),
            Check(
                "data plane proxies are ready",
                "l5d-data-plane-ready",
                ready,
                "see `kubectl get pods` and `kubectl logs <pod> -c linkerd-proxy`",
                retry=True,
            ),
            Check(
                "pods that ask for a proxy have one",
                "l5d-data-plane-unmeshed",
                meshed_as_asked,
                "`kubectl rollout restart` meshes pods that are older than the wish; `kubectl get events` tells of pods"
                " that cannot be meshed",
                Severity.WARNING,
            ),
            Check("data plane is up-to-date", "l5d-data-plane-version", current, _RESTART, Severity.WARNING),
            Check("data plane and cli versions match", "l5d-data-plane-cli-version", match, _RESTART, Severity.WARNING),
            Check(
                "data plane pod labels are configured correctly",
                "l5d-data-plane-pod-labels",
                pod_labels,
                annotations,
                Severity.WARNING,
            ),
            Check(
                "data plane service labels are configured correctly",
                "l5d-data-plane-services-labels",
                service_labels,
                annotations,
                Severity.WARNING,
            ),
            Check(
                "data plane service annotations are configured correctly",
                "l5d-data-plane-services-annotations",
                service_annotations,
                "make it a label",
                Severity.WARNING,
            ),
            Check(
                "opaque ports are properly annotated",
                "linkerd-opaque-ports-definition",
                opaque_ports,
                f"put `{_OPAQUE_PORTS}` on both the service and its pods",
                Severity.WARNING,
            ),
        ],
    )


def lacks_proxy(pod: Object, wishes: Mapping[str, str | None]) -> bool:
    """Whether the pod, or else its namespace (`wishes` by name), asks for a proxy that the pod does not have."""
    metadata = pod["metadata"]
    if pod["status"].get("phase") in ("Succeeded", "Failed") or metadata.get("deletionTimestamp"):
        return False
    wish = (metadata.get("annotations") or {}).get(_INJECT, wishes.get(metadata["namespace"]))
    return wish in ("enabled", "ingress") and proxy_of(pod) is None


def _check_labels(objects: list[Object], kind: str) -> None:
    wrong = [
        f"{name_of(obj)}: {label}"
        for obj in objects
        for label in obj["metadata"].get("labels") or {}
        if label.startswith(("config.linkerd.io", "config.alpha.linkerd.io")) or label == "linkerd.io/inject"
    ]
    if wrong:
        raise CheckFailure(listed(f"Some labels on data plane {kind}s should be annotations:", wrong))


def misannotated(service: Object, pod: Object) -> str:
    """What differs in the opaque ports of a service and a pod that it selects, empty for nothing."""
    selector = service["spec"].get("selector") or {}
    labels = pod["metadata"].get("labels") or {}
    same_namespace = service["metadata"]["namespace"] == pod["metadata"]["namespace"]
    if not selector or not same_namespace or any(labels.get(key) != value for key, value in selector.items()):
        return ""
    on_service, on_pod = _opaque(service), _opaque(pod)
    for port in service["spec"].get("ports") or []:
        target = _container_port(port, pod)
        if target is None:
            continue
        if str(port["port"]) in on_service and str(target) not in on_pod:
            return f"service {name_of(service)} has the opaque port {port['port']}, but pod {name_of(pod)} not {target}"
        if str(target) in on_pod and str(port["port"]) not in on_service:
            return f"pod {name_of(pod)} has the opaque port {target}, but service {name_of(service)} not {port['port']}"
    return ""


def _opaque(obj: Object) -> set[str]:
    text = (obj["metadata"].get("annotations") or {}).get(_OPAQUE_PORTS, "")
    found: set[str] = set()
    for part in (part.strip() for part in text.split(",")):
        first, dash, last = part.partition("-")
        if dash and first.isdigit() and last.isdigit():
            found.update(str(port) for port in range(int(first), int(last) + 1))
        else:
            found.add(part)
    return found


def _container_port(port: Object, pod: Object) -> int | None:
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for container in pod["spec"]["containers"]:
        for declared in container.get("ports") or []:
            if declared.get("name") == target:
                return declared["containerPort"]
    return None
