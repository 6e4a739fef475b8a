"""Kubernetes objects as they are written in manifests: small functions, plain mappings."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Marks:
    """What every object of one installation carries: labels to find it by, and who made it."""

    namespace: str
    labels: Mapping[str, str]
    version: str

    def metadata(
        self, name: str, *, namespaced: bool = True, labels: Mapping[str, str] | None = None, namespace: str = ""
    ) -> Object:
        metadata: Object = {"name": name}
        if namespaced:
            metadata["namespace"] = namespace or self.namespace
        metadata["labels"] = {**self.labels, **(labels or {})}
        metadata["annotations"] = {"linkerd.io/created-by": f"linkerd/cli {self.version}"}
        return metadata


def namespace(metadata: Object) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def service_account(metadata: Object) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def config_map(metadata: Object, data: Mapping[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}


def secret(metadata: Object, data: Mapping[str, str], kind: str = "Opaque") -> Object:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": encoded}


def service(
    metadata: Object, selector: Mapping[str, str], ports: Iterable[Object], *, headless: bool = False
) -> Object:
    spec: Object = {"type": "ClusterIP", "selector": dict(selector), "ports": list(ports)}
    if headless:
        spec["clusterIP"] = "None"
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def service_port(name: str, port: int, target: str | int | None = None) -> Object:
    return {"name": name, "port": port, "targetPort": port if target is None else target}


def rule(groups: str, resources: str, verbs: str, names: str = "") -> Object:
    """Space-separated words; the core group is `core`."""
    result: Object = {
        "apiGroups": ["" if group == "core" else group for group in groups.split()],
        "resources": resources.split(),
        "verbs": verbs.split(),
    }
    if names:
        result["resourceNames"] = names.split()
    return result


def cluster_role(metadata: Object, rules: Iterable[Object]) -> Object:
    return {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": list(rules)}


def role(metadata: Object, rules: Iterable[Object]) -> Object:
    return {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)}


def cluster_role_binding(metadata: Object, role_name: str, account: str, account_namespace: str) -> Object:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role_name},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": account_namespace}],
    }


def role_binding(metadata: Object, role_name: str, subjects: Iterable[Object], *, cluster: bool = False) -> Object:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole" if cluster else "Role", "name": role_name},
        "subjects": list(subjects),
    }


def account_subject(name: str, account_namespace: str) -> Object:
    return {"kind": "ServiceAccount", "name": name, "namespace": account_namespace}


# Containers of our own programs


@dataclass(frozen=True, slots=True)
class Controller:
    """One container of `linkerd-controller`. Ports by name; the admin port is the one that ends in `admin`."""

    name: str
    image: str
    pull_policy: str
    args: tuple[str, ...]
    ports: Mapping[str, int]
    uid: int
    resources: Mapping[str, Any]
    mounts: Mapping[str, str]
    """Volume name → path; all are read-only."""

    def container(self) -> Object:
        admin = next(port for name, port in self.ports.items() if name.endswith("admin"))
        container: Object = {
            "name": self.name,
            "image": self.image,
            "imagePullPolicy": self.pull_policy,
            "args": list(self.args),
            "ports": [{"name": name, "containerPort": port} for name, port in self.ports.items()],
            "livenessProbe": http_probe("/ping", admin, initialDelaySeconds=10),
            "readinessProbe": http_probe("/ready", admin, failureThreshold=7),
            # Asked each second at the start, so that a component is in service as soon as its caches are full.
            "startupProbe": http_probe("/ready", admin, periodSeconds=1, failureThreshold=300),
            "securityContext": restricted(self.uid),
            "terminationMessagePolicy": "FallbackToLogsOnError",
        }
        if self.mounts:
            container["volumeMounts"] = [
                {"name": name, "mountPath": path, "readOnly": True} for name, path in self.mounts.items()
            ]
        if resources := container_resources(self.resources):
            container["resources"] = resources
        return container


def http_probe(path: str, port: int | str, **timing: int) -> Object:
    return {"httpGet": {"path": path, "port": port}, **timing}


def restricted(uid: int) -> Object:
    """The strictest of the pod security standards."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": uid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_resources(values: Mapping[str, Any]) -> Object:
    """Kubernetes' form of the values' `cpu.request`, `memory.limit` and so on."""
    found: Object = {}
    for what in ("cpu", "memory", "ephemeral-storage"):
        for kind in ("limit", "request"):
            quantity = (values.get(what) or {}).get(kind)
            if quantity:
                found.setdefault(f"{kind}s", {})[what] = str(quantity)
    return found


def secret_volume(name: str, secret_name: str) -> Object:
    return {"name": name, "secret": {"secretName": secret_name}}


def config_map_volume(name: str, config_map_name: str) -> Object:
    return {"name": name, "configMap": {"name": config_map_name}}


def deployment(metadata: Object, selector: Mapping[str, str], template: Object, replicas: int = 1) -> Object:
    spec: Object = {"replicas": replicas, "selector": {"matchLabels": dict(selector)}, "template": template}
    if replicas > 1:
        spec["strategy"] = {"rollingUpdate": {"maxUnavailable": 1}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def disruption_budget(metadata: Object, selector: Mapping[str, str]) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(selector)}},
    }


def spread(selector: Mapping[str, str]) -> Object:
    """Affinity for a highly available component: never two on one node, in different zones when it goes."""
    labels = {"matchLabels": dict(selector)}
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 100,
                    "podAffinityTerm": {"labelSelector": labels, "topologyKey": "topology.kubernetes.io/zone"},
                }
            ],
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": labels, "topologyKey": "kubernetes.io/hostname"}
            ],
        }
    }
