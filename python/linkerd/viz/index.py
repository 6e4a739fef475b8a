"""The pods of the cluster, as metrics-api and tap see them: what is meshed, who owns what, which pod has an address.

Pure: objects in, answers out. Only what is asked for is kept of each object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from sys import intern
from typing import Any, NamedTuple

Object = dict[str, Any]

CONTROL_PLANE_LABEL = "linkerd.io/control-plane-ns"
PROXY = "linkerd-proxy"
TAP_ENABLED = "viz.linkerd.io/tap-enabled"
TAP_DISABLED = "viz.linkerd.io/disable-tap"
_IDENTITY_VARIABLE = "LINKERD2_PROXY_IDENTITY_LOCAL_NAME"


class Owner(NamedTuple):
    """A workload. `kind` is the lower-case singular, as on the command line."""

    kind: str
    namespace: str
    name: str


class ContainerProblem(NamedTuple):
    """Why a container does not run."""

    container: str
    image: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Pod:
    namespace: str
    name: str
    ip: str
    node: str
    node_ip: str
    host_network: bool
    phase: str
    status: str
    """As kubectl shows it: the phase, or what is wrong."""
    terminating: bool
    service_account: str
    control_plane: str
    """The namespace of the control plane whose proxy it has; empty when it is not meshed."""
    component: str
    labels: dict[str, str]
    owner: Owner | None
    tap_enabled: bool
    tap_disabled: bool
    proxy_ready: bool
    proxy_version: str
    proxy_identity: str
    admin_port: int
    """Of the proxy; 0 when it has none."""
    started: str
    """RFC 3339, or empty."""
    resource_version: str
    problems: tuple[ContainerProblem, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it is one of the pods that a table counts."""
        return self.phase in ("Pending", "Running") and not self.terminating


def pod_from_object(obj: Object) -> Pod:
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    labels = {intern(key): intern(value) for key, value in (metadata.get("labels") or {}).items()}
    annotations = metadata.get("annotations") or {}
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    proxy = next((c for c in containers if c["name"] == PROXY), None)
    namespace = intern(metadata["namespace"])
    return Pod(
        namespace=namespace,
        name=metadata["name"],
        ip=status.get("podIP") or "",
        node=intern(spec.get("nodeName") or ""),
        node_ip=intern(status.get("hostIP") or ""),
        host_network=bool(spec.get("hostNetwork")),
        phase=intern(status.get("phase") or ""),
        status=intern(pod_status(obj)),
        terminating=bool(metadata.get("deletionTimestamp")),
        service_account=intern(spec.get("serviceAccountName") or "default"),
        control_plane=labels.get(CONTROL_PLANE_LABEL, ""),
        component=labels.get("linkerd.io/control-plane-component", ""),
        labels=labels,
        owner=owner_of(metadata),
        tap_enabled=annotations.get(TAP_ENABLED) == "true",
        tap_disabled=annotations.get(TAP_DISABLED) == "true",
        proxy_ready=_ready(status, PROXY),
        proxy_version=_image_tag(proxy),
        proxy_identity=_identity(proxy, namespace, spec.get("serviceAccountName") or "default"),
        admin_port=_admin_port(proxy),
        started=status.get("startTime") or "",
        resource_version=metadata.get("resourceVersion") or "",
        problems=_problems(status),
    )


def owner_of(metadata: Object) -> Owner | None:
    """The controller that made the object."""
    for reference in metadata.get("ownerReferences") or []:
        if reference.get("controller"):
            return Owner(intern(reference["kind"].lower()), metadata["namespace"], intern(reference["name"]))
    return None


def _ready(status: Object, name: str) -> bool:
    statuses = [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]
    return any(s["name"] == name and s.get("ready") for s in statuses)


def _admin_port(proxy: Object | None) -> int:
    ports = (proxy or {}).get("ports") or []
    return next((port["containerPort"] for port in ports if port.get("name") == "linkerd-admin"), 0)


def _image_tag(container: Object | None) -> str:
    image = (container or {}).get("image") or ""
    name = image.rpartition("/")[2].partition("@")[0]
    return intern(name.partition(":")[2])


def _identity(proxy: Object | None, namespace: str, service_account: str) -> str:
    """The proxy's own name. Its variables of the downward API are filled in, as the node does it."""
    variables = {e["name"]: e.get("value") or "" for e in (proxy or {}).get("env") or []}
    known = variables | {"_pod_ns": namespace, "_pod_sa": service_account}
    template = variables.get(_IDENTITY_VARIABLE, "")
    for name in ("_pod_sa", "_pod_ns", "_l5d_ns", "_l5d_trustdomain"):
        template = template.replace(f"$({name})", known.get(name, ""))
    return intern(template)


def _problems(status: Object) -> tuple[ContainerProblem, ...]:
    statuses = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return tuple(problem for container in statuses for problem in _container_problems(container))


def _container_problems(container: Object) -> Iterator[ContainerProblem]:
    state = container.get("state") or {}
    waiting, ended = state.get("waiting"), state.get("terminated")
    if waiting:
        yield _problem(container, waiting)
        before = (container.get("lastState") or {}).get("terminated")
        if waiting.get("reason") == "CrashLoopBackOff" and before:
            yield _problem(container, before)
    elif ended and (ended.get("exitCode") or ended.get("signal")):
        yield _problem(container, ended)


def _problem(container: Object, state: Object) -> ContainerProblem:
    return ContainerProblem(
        container["name"], container.get("image") or "", state.get("reason") or "", state.get("message") or ""
    )


def pod_status(obj: Object) -> str:
    """What kubectl's STATUS column says (`printPod` of kubernetes/kubernetes)."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    reason = status.get("reason") or status.get("phase") or ""
    reason = _starting(obj) or _running(status, reason)
    if metadata.get("deletionTimestamp"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return reason


def _starting(obj: Object) -> str:
    """`Init:…` while init containers are not through; empty after them."""
    specs = {c["name"]: c for c in (obj.get("spec") or {}).get("initContainers") or []}
    statuses = (obj.get("status") or {}).get("initContainerStatuses") or []
    for done, container in enumerate(statuses):
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended and not ended.get("exitCode"):
            continue
        sidecar = specs.get(container["name"], {}).get("restartPolicy") == "Always"
        if sidecar and container.get("started"):
            continue
        if ended:
            return "Init:" + (ended.get("reason") or _exit(ended))
        if waiting and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{done}/{len(specs)}"
    return ""


def _running(status: Object, reason: str) -> str:
    running = False
    for container in reversed(status.get("containerStatuses") or []):
        state = container.get("state") or {}
        waiting, ended = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason"):
            reason = waiting["reason"]
        elif ended:
            reason = ended.get("reason") or _exit(ended)
        elif container.get("ready") and state.get("running") is not None:
            running = True
    if reason == "Completed" and running:
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
        return "Running" if ready else "NotReady"
    return reason


def _exit(ended: Object) -> str:
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


class PodIndex:
    """Pods by name and by address, and the workloads above them."""

    def __init__(self) -> None:
        self.pods: dict[tuple[str, str], Pod] = {}
        self._by_ip: dict[str, Pod] = {}
        self._nodes: dict[str, str] = {}
        self._parents: dict[Owner, Owner] = {}

    def apply(self, pod: Pod) -> None:
        key = (pod.namespace, pod.name)
        self._forget_address(self.pods.get(key))
        self.pods[key] = pod
        if pod.ip and not pod.host_network and pod.phase in ("Pending", "Running"):
            self._by_ip[pod.ip] = pod
        if pod.node_ip:
            self._nodes[pod.node_ip] = pod.node

    def delete(self, namespace: str, name: str) -> None:
        self._forget_address(self.pods.pop((namespace, name), None))

    def _forget_address(self, pod: Pod | None) -> None:
        # An address may have been given to another pod already.
        if pod is not None and self._by_ip.get(pod.ip) is pod:
            del self._by_ip[pod.ip]

    def apply_parent(self, child: Owner, parent: Owner | None) -> None:
        """`child` (a ReplicaSet or a Job) belongs to `parent`."""
        if parent is None:
            self._parents.pop(child, None)
        else:
            self._parents[child] = parent

    def by_ip(self, ip: str) -> Pod | None:
        return self._by_ip.get(ip)

    def node_by_ip(self, ip: str) -> str:
        """The node with this address, known from the pods that run there; empty if none."""
        return self._nodes.get(ip, "")

    def owners(self, pod: Pod) -> list[Owner]:
        """Its owner first, then that one's."""
        chain: list[Owner] = []
        owner = pod.owner
        while owner is not None and owner not in chain:
            chain.append(owner)
            owner = self._parents.get(owner)
        return chain

    def root(self, pod: Pod) -> Owner | None:
        """The workload that a person knows the pod by."""
        chain = self.owners(pod)
        return chain[-1] if chain else None

    def by_workload(self, kind: str, namespace: str = "") -> dict[tuple[str, str], list[Pod]]:
        """The pods of each workload of this kind, by its namespace and name. Kinds are also `pod` and `namespace`."""
        groups: dict[tuple[str, str], list[Pod]] = defaultdict(list)
        for pod in self.pods.values():
            if namespace and pod.namespace != namespace:
                continue
            for key in self._keys(kind, pod):
                groups[key].append(pod)
        return groups

    def _keys(self, kind: str, pod: Pod) -> list[tuple[str, str]]:
        if kind == "pod":
            return [(pod.namespace, pod.name)]
        if kind == "namespace":
            return [("", pod.namespace)]
        return [(owner.namespace, owner.name) for owner in self.owners(pod) if owner.kind == kind]
