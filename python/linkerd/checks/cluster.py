"""What the checks read of a cluster: each kind once per attempt, through the Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import yaml

from linkerd.checks.model import CheckFailure
from linkerd.k8s.errors import NotFound
from linkerd.k8s.resources import CONFIG_MAPS, PODS, Resource

Object = dict[str, Any]

CONTROL_PLANE_LABEL = "linkerd.io/control-plane-ns"
COMPONENT_LABEL = "linkerd.io/control-plane-component"
PROXY = "linkerd-proxy"

_VALUES = "values"
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Reader(Protocol):
    """The part of `k8s.client.Client` that checks use."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object: ...

    async def list(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> list[Object]: ...

    async def create(
        self, resource: Resource, body: Object, namespace: str | None = None, *, dry_run: bool = False
    ) -> Object: ...

    async def request(self, method: str, path: str) -> Any: ...


class Cluster:
    """A reader that remembers, until `forget`. `namespace` is the control plane's."""

    def __init__(self, reader: Reader, namespace: str) -> None:
        self.reader = reader
        self.namespace = namespace
        self._remembered: dict[Any, Any] = {}

    def forget(self) -> None:
        self._remembered.clear()

    async def list(self, resource: Resource, namespace: str | None = None, label_selector: str = "") -> list[Object]:
        key = (resource, namespace, label_selector)
        if key not in self._remembered:
            self._remembered[key] = await self.reader.list(resource, namespace, label_selector=label_selector)
        return self._remembered[key]

    async def find(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        """None when it does not exist."""
        key = (resource, namespace, name, "get")
        if key not in self._remembered:
            try:
                self._remembered[key] = await self.reader.get(resource, name, namespace)
            except NotFound:
                self._remembered[key] = None
        return self._remembered[key]

    async def names(self, resource: Resource, namespace: str | None = None) -> set[str]:
        return {item["metadata"]["name"] for item in await self.list(resource, namespace)}

    # Linkerd's own

    async def values(self) -> Mapping[str, Any]:
        """The values of ConfigMap `linkerd-config`. Raises CheckFailure."""
        if _VALUES not in self._remembered:
            self._remembered[_VALUES] = await self._read_values()
        return self._remembered[_VALUES]

    async def _read_values(self) -> Mapping[str, Any]:
        config = await self.find(CONFIG_MAPS, "linkerd-config", self.namespace)
        if config is None:
            raise CheckFailure(f'configmaps "linkerd-config" not found in namespace {self.namespace}')
        try:
            values = yaml.load(config["data"]["values"], Loader=_Loader)
        except (KeyError, TypeError, yaml.YAMLError) as error:
            raise CheckFailure(f"ConfigMap linkerd-config cannot be read: {error}") from error
        if not isinstance(values, dict):
            raise CheckFailure("ConfigMap linkerd-config cannot be read: `values` is not a mapping")
        return values

    async def version(self) -> str:
        """The control plane's. Raises CheckFailure."""
        version = (await self.values()).get("linkerdVersion")
        if not version:
            raise CheckFailure("ConfigMap linkerd-config does not say linkerdVersion")
        return str(version)

    async def control_plane_pods(self) -> list[Object]:
        return await self.list(PODS, self.namespace, COMPONENT_LABEL)

    async def meshed_pods(self, namespace: str | None = None) -> list[Object]:
        """The pods with a proxy of this control plane, its own among them, that have not ended."""
        pods = await self.list(PODS, namespace, f"{CONTROL_PLANE_LABEL}={self.namespace}")
        return [pod for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]

    async def data_plane_pods(self, namespace: str | None = None) -> list[Object]:
        """The meshed pods that are neither the control plane's nor an extension's."""
        return [
            pod
            for pod in await self.meshed_pods(namespace)
            if not {COMPONENT_LABEL, "linkerd.io/extension"} & set(pod["metadata"].get("labels") or {})
        ]


# Pods


def name_of(obj: Object) -> str:
    metadata = obj["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else metadata["name"]


def proxy_of(pod: Object) -> Object | None:
    """The proxy's container, regular or native sidecar."""
    spec = pod["spec"]
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        if container["name"] == PROXY:
            return container
    return None


def proxy_version(pod: Object) -> str:
    """The tag of the proxy's image; empty when it goes by digest."""
    container = proxy_of(pod)
    image = (container or {}).get("image", "").rpartition("/")[2]
    return "" if "@" in image else image.partition(":")[2]


def proxy_env(pod: Object, name: str) -> Object | None:
    for variable in (proxy_of(pod) or {}).get("env") or []:
        if variable["name"] == name:
            return variable
    return None


def container_statuses(pod: Object) -> list[Object]:
    status = pod["status"]
    return [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]


def not_ready(pod: Object) -> str:
    """Why the pod is not ready, empty when it is."""
    phase = pod["status"].get("phase")
    if phase != "Running":
        return f"pod/{pod['metadata']['name']} is {phase or 'unknown'}{_waiting(pod)}"
    for status in pod["status"].get("containerStatuses") or []:
        if not status.get("ready"):
            return f"pod/{pod['metadata']['name']} container {status['name']} is not ready{_waiting(pod)}"
    return ""


def _waiting(pod: Object) -> str:
    for status in container_statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return f" ({status['name']}: {waiting['reason']})"
    return ""


def proxy_ready(pod: Object) -> bool:
    return any(status["name"] == PROXY and status.get("ready") for status in container_statuses(pod))


def listed(what: str, items: list[str], limit: int = 10) -> str:
    """A message over several lines: the first items, and how many more there are."""
    more = [f"and {len(items) - limit} more"] if len(items) > limit else []
    return "\n".join([what, *(f"* {item}" for item in [*items[:limit], *more])])
