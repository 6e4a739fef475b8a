"""Services, pods and slices as the cluster's controllers would write them."""

from __future__ import annotations

from typing import Any

from linkerd.k8s.client import Client
from linkerd.k8s.resources import ENDPOINT_SLICES, PODS, SERVICES

Object = dict[str, Any]


async def create_service(client: Client, namespace: str, name: str, port: int = 80, **spec: Any) -> Object:
    body = {
        "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": port, "targetPort": 8080}], "selector": {"app": name}} | spec,
    }
    return await client.create(SERVICES, body, namespace)


async def create_pod(client: Client, namespace: str, name: str, ip: str, *, meshed: bool = True) -> Object:
    labels = {"app": name, "pod-template-hash": "abc12"}
    if meshed:
        labels |= {"linkerd.io/control-plane-ns": "linkerd", "linkerd.io/proxy-deployment": "web"}
    body = {
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "serviceAccountName": "web",
            "nodeName": "node-1",
            "containers": [{"name": "app", "image": "x", "ports": [{"containerPort": 8080}]}],
        },
    }
    await client.create(PODS, body, namespace)
    return await set_ready(client, namespace, name, ip)


async def set_ready(client: Client, namespace: str, name: str, ip: str, *, ready: bool = True) -> Object:
    condition = {"type": "Ready", "status": str(ready)}
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [condition]}
    return await client.patch(PODS, name, {"status": status}, namespace, subresource="status")


async def put_slice(client: Client, namespace: str, service: str, pods: dict[str, str], port: int = 8080) -> Object:
    """The Service's only slice, listing these pods as ready."""
    body = {
        "metadata": {"name": f"{service}-1", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [ip],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod},
                "nodeName": "node-1",
            }
            for pod, ip in pods.items()
        ],
    }
    return await client.apply(ENDPOINT_SLICES, f"{service}-1", body, namespace)
