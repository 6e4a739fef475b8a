"""`linkerd-demo up`: from nothing to a meshed application with numbers, each step said when it is done.

It types what a user would type: `linkerd cluster start`, `linkerd install | kubectl apply -f -` and so on, so that
what works here works by hand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from linkerd_demo.manifests import demo_objects
from linkerd_demo.topology import SERVICES

BIN = Path(sys.executable).parent
SCRAPE_INTERVAL = "5s"
_ROLLOUT_SECONDS = 180
_NUMBERS_SECONDS = 120
_POLL_SECONDS = 0.5
_VIZ_VALUES = ("--set", f"prometheus.scrapeInterval={SCRAPE_INTERVAL}")


class UpError(Exception):
    """A step failed; the message names it and carries what its program said."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps with their time, on stderr."""

    started: float

    def say(self, text: str) -> None:
        seconds = time.monotonic() - self.started
        sys.stderr.write(f"[{seconds:5.1f}s] {text}\n")
        sys.stderr.flush()


class Cluster:
    """The commands of one embedded cluster."""

    def __init__(self) -> None:
        self.kubeconfig = ""

    def start(self) -> bool:
        """Whether it was started now (False: it ran already)."""
        ran = self._status() == "running"
        done = subprocess.run([BIN / "linkerd", "cluster", "start"], stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise UpError("the embedded cluster did not start")
        self.kubeconfig = self._run("linkerd", "cluster", "kubeconfig").strip()
        return not ran

    def _status(self) -> str:
        done = subprocess.run(
            [BIN / "linkerd", "cluster", "status", "-o", "json"], capture_output=True, text=True, check=False
        )
        return "running" if done.returncode == 0 and json.loads(done.stdout).get("running") else "stopped"

    def linkerd(self, *args: str) -> str:
        return self._run("linkerd", *args)

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        return self._run("kubectl", *args, stdin=stdin)

    def apply(self, manifest: str) -> None:
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifest)

    def wait_available(self, namespace: str, *deployments: str) -> None:
        names = [f"deploy/{name}" for name in deployments] or ["deploy", "--all"]
        condition = ["wait", "--for=condition=Available", f"--timeout={_ROLLOUT_SECONDS}s", "-n", namespace]
        self.kubectl(*condition, *names)

    def exists(self, *what: str) -> bool:
        return bool(self.kubectl("get", *what, "--ignore-not-found", "-o", "name").strip())

    def _run(self, program: str, *args: str, stdin: str | None = None) -> str:
        env = os.environ | ({"KUBECONFIG": self.kubeconfig} if self.kubeconfig else {})
        command = [str(BIN / program), *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=env, check=False)
        if done.returncode:
            raise UpError(f"`{program} {' '.join(args)}` failed:\n{(done.stderr or done.stdout).strip()}")
        return done.stdout


def up() -> None:
    """Raises UpError."""
    progress = Progress(time.monotonic())
    cluster = Cluster()
    started = cluster.start()
    progress.say("the embedded Kubernetes runs" if started else "the demo's cluster is running already")
    _install_mesh(cluster, progress)
    _deploy_demo(cluster, progress)
    table = _wait_for_numbers(cluster)
    progress.say("the numbers are there")
    print(_closing(cluster, table))  # noqa: T201 - the answer of the command


def _install_mesh(cluster: Cluster, progress: Progress) -> None:
    """What is not there yet: an earlier run may have ended half-way. The last object of a manifest tells."""
    lacks_mesh = not cluster.exists("secret/linkerd-config-overrides", "-n", "linkerd")
    lacks_viz = lacks_mesh or not cluster.exists("authorizationpolicies.policy.linkerd.io/tap-api", "-n", "linkerd-viz")
    if not lacks_viz:
        return
    with ThreadPoolExecutor() as pool:
        crds = pool.submit(cluster.linkerd, "install", "--crds")
        viz = pool.submit(cluster.linkerd, "viz", "install", "--ignore-cluster", *_VIZ_VALUES)
        control_plane = pool.submit(cluster.linkerd, "install", "--ignore-cluster")
        if lacks_mesh:
            cluster.apply(crds.result())
            cluster.apply(control_plane.result())
            progress.say("control plane applied")
        cluster.wait_available("linkerd", "linkerd-proxy-injector")
        cluster.apply(viz.result())
        progress.say("viz applied")


def _deploy_demo(cluster: Cluster, progress: Progress) -> None:
    cluster.wait_available("linkerd")
    progress.say("the control plane is ready")
    cluster.apply(yaml.safe_dump_all(demo_objects()))
    progress.say("the demo is deployed")
    _each(lambda namespace: cluster.wait_available(namespace), {service.namespace for service in SERVICES})
    progress.say("its pods are ready")
    cluster.wait_available("linkerd-viz")
    progress.say("viz is ready")


def _each(action: Callable[[str], None], items: set[str]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(action, sorted(items)))


def _wait_for_numbers(cluster: Cluster) -> str:
    """The table, once every deployment that is called has a success rate. Raises UpError."""
    called = {s.name for s in SERVICES if s.namespace == "production" and s.kind in ("http", "grpc")}
    called -= {"api-service-stable", "api-service-canary"}  # these get traffic from a TrafficSplit only
    deadline = time.monotonic() + _NUMBERS_SECONDS
    missing = called
    while time.monotonic() < deadline:
        missing = called - _with_numbers(cluster)
        if not missing:
            return cluster.linkerd("viz", "stat", "deploy", "-n", "production")
        time.sleep(_POLL_SECONDS)
    raise UpError(f"no numbers after {_NUMBERS_SECONDS} s for: {', '.join(sorted(missing))}")


def _with_numbers(cluster: Cluster) -> set[str]:
    try:
        rows = json.loads(cluster.linkerd("viz", "stat", "deploy", "-n", "production", "-o", "json") or "[]")
    except UpError as error:
        # After a restart of the cluster, viz may be called available while its pod is just starting.
        sys.stderr.write(f"not yet: {error}\n")
        return set()
    return {row["name"] for row in rows if row["success"] is not None}


def _closing(cluster: Cluster, table: str) -> str:
    return f"""
{table.rstrip()}

export KUBECONFIG={cluster.kubeconfig}
export PATH={BIN}:$PATH

Try:
  linkerd check --proxy
  linkerd viz tap deploy/api-gateway -n production --path="/api/v1/orders.*"
  linkerd viz top deploy/backend-service -n production
  linkerd-demo fault payment-service --error-rate 0.3     # then: linkerd viz stat deploy -n production -t 30s
  kubectl get pods -n production

`make down` ends it."""
