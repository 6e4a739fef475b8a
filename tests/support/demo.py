"""The demo application on a test's cluster."""

from __future__ import annotations

import json
from pathlib import Path

from support.clusters import BIN, Cluster
from support.waiting import wait_until

SOURCES = Path(__file__).parents[2] / "demo"
NAMESPACES = ("production", "staging", "frontend", "legacy")
RATE = "10"


class Demo(Cluster):
    """A cluster in which the shop runs."""

    sources = SOURCES

    def control(self, *args: str) -> str:
        """`linkerd-demo …`; raises CommandFailed."""
        return self._checked(str(BIN / "linkerd-demo"), args, None, None)

    def pods(self, app: str, namespace: str = "production") -> list[dict]:
        """Those that run."""
        found = json.loads(self.kubectl("get", "pods", "-n", namespace, "-l", f"app={app}", "-o", "json"))["items"]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]


def deployed(mesh: Cluster) -> Demo:
    """Deployed if it is not there yet, and with numbers."""
    demo = Demo(mesh.kubeconfig, mesh.home)
    if not demo.kubectl("get", "namespace", "production", "--ignore-not-found", "-o", "name"):
        demo.apply(demo.control("manifests"))
    for namespace in NAMESPACES:
        demo.kubectl("wait", "--for=condition=Available", "--timeout=300s", "-n", namespace, "deploy", "--all")
    demo.control("rate", RATE)

    def counted() -> bool:
        rows = json.loads(demo.linkerd("viz", "stat", "deploy", "-n", "production", "-o", "json"))
        return any(row["name"] == "api-service" and row["success"] for row in rows)

    wait_until(counted, timeout=120, message="api-service has numbers")
    return demo
