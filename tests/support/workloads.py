"""Small workloads for end-to-end tests: the programs of `tests/support/apps` as Deployments with a Service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

APPS = Path(__file__).parent / "apps"
IMAGE = "debian"


def namespace(name: str, *, meshed: bool = True) -> dict[str, Any]:
    annotations = {"linkerd.io/inject": "enabled"} if meshed else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": annotations}}


def server(
    name: str, namespace: str, *, replicas: int = 1, port: int = 8080, app: str = "server.py"
) -> list[dict[str, Any]]:
    """A Deployment of an app and its Service, ready when it listens."""
    container = _container(name, [str(APPS / app), str(port)])
    container["ports"] = [{"containerPort": port}]
    container["readinessProbe"] = {"tcpSocket": {"port": port}, "periodSeconds": 2}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }
    return [service, _deployment(name, namespace, container, replicas)]


def client(name: str, namespace: str) -> list[dict[str, Any]]:
    """A Deployment that waits to be exec'd into."""
    container = _container(name, ["-c", "import signal; signal.sigwait([signal.SIGTERM])"])
    return [_deployment(name, namespace, container, 1)]


def _container(name: str, args: list[str]) -> dict[str, Any]:
    return {"name": name, "image": IMAGE, "command": [sys.executable, *args], "securityContext": {"runAsUser": 1000}}


def _deployment(name: str, namespace: str, container: dict[str, Any], replicas: int) -> dict[str, Any]:
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
