"""The shop as Kubernetes objects."""

from __future__ import annotations

from typing import Any

from linkerd_demo.faults import CONFIG_MAP, DIRECTORY
from linkerd_demo.topology import NAMESPACES, SERVICES, Service

IMAGE = "linkerd.io/demo:latest"
Object = dict[str, Any]


def demo_objects(*, meshed: bool = True) -> list[Object]:
    """Everything, in an order in which it can be applied; without `meshed`, nothing asks for injection."""
    objects = [_namespace(name, meshed=meshed) for name in NAMESPACES]
    objects += [_fault_map(name) for name in NAMESPACES]
    for service in SERVICES:
        if service.kind != "load":
            objects.append(_service(service))
        objects.append(_deployment(service))
    return objects


def _namespace(name: str, *, meshed: bool) -> Object:
    metadata: Object = {"name": name, "labels": {"app.kubernetes.io/part-of": "demo"}}
    if meshed and any(s.meshed for s in SERVICES if s.namespace == name):
        metadata["annotations"] = {"linkerd.io/inject": "enabled"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _fault_map(namespace: str) -> Object:
    """Applied without data: what `linkerd-demo fault` wrote stays when the demo is applied again."""
    metadata = {"name": CONFIG_MAP, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def _service(service: Service) -> Object:
    port: Object = {"name": service.kind if service.kind != "cache" else "redis", "port": service.port}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service.name, "namespace": service.namespace, "labels": {"app": service.name}},
        "spec": {"selector": {"app": service.name}, "ports": [port | {"targetPort": service.port}]},
    }


def _deployment(service: Service) -> Object:
    labels = {"app": service.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": service.name, "namespace": service.namespace, "labels": labels},
        "spec": {
            "replicas": service.replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels}, "spec": _pod_spec(service)},
        },
    }


def _pod_spec(service: Service) -> Object:
    container: Object = {
        "name": service.name,
        "image": IMAGE,
        "args": [service.name],
        "volumeMounts": [{"name": "faults", "mountPath": str(DIRECTORY)}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": {"runAsUser": 1000, "runAsNonRoot": True, "allowPrivilegeEscalation": False},
    }
    if service.kind != "load":
        container["ports"] = [
            {"name": "http" if service.kind == "http" else service.kind, "containerPort": service.port}
        ]
        container["readinessProbe"] = _readiness(service)
    return {
        "containers": [container],
        "volumes": [{"name": "faults", "configMap": {"name": CONFIG_MAP, "optional": True}}],
        "terminationGracePeriodSeconds": 30,
    }


def _readiness(service: Service) -> Object:
    if service.kind == "http":
        check: Object = {"httpGet": {"path": "/ready", "port": service.port}}
    else:
        check = {"tcpSocket": {"port": service.port}}
    return check | {"initialDelaySeconds": 1, "periodSeconds": 10, "failureThreshold": 1}
