"""Life and death in the mesh: what breaks is replaced, and nobody notices who need not."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import yaml
from support.metrics import Metrics, parse_metrics
from support.waiting import wait_until
from support.workloads import APPS, client, namespace, server

NAMESPACE = "life"


@pytest.fixture(scope="module")
def life(mesh):
    objects = [namespace(NAMESPACE), *server("server", NAMESPACE, replicas=2), *client("client", NAMESPACE)]
    objects += server("fragile", NAMESPACE)
    mesh.apply(yaml.safe_dump_all(objects))
    mesh.kubectl("wait", "--for=condition=Available", "--timeout=120s", "-n", NAMESPACE, "deploy", "--all")
    yield mesh
    mesh.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


class Load:
    """Requests to `server` until the block ends; then `results`."""

    def __init__(self, cluster, concurrency: int = 4, interval: int = 20) -> None:
        self._cluster = cluster
        self._args = ["--count", "1000000", "--concurrency", str(concurrency), "--interval", str(interval)]

    def __enter__(self) -> Load:
        command = [
            self._cluster.python,
            str(APPS / "client.py"),
            "http://server:8080",
            *self._args,
            "--until-stdin-ends",
        ]
        self._process = self._cluster.start_kubectl(
            "exec", "-i", "-n", NAMESPACE, "deploy/client", "-c", "client", "--", *command
        )
        return self

    def __exit__(self, *_: object) -> None:
        output, self.errors = self._process.communicate(timeout=60)
        self.results: dict[str, int] = json.loads(output)


def pods(cluster, app: str) -> list[dict]:
    return json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", f"app={app}", "-o", "json"))["items"]


def container_status(cluster, app: str, name: str) -> dict:
    (pod,) = pods(cluster, app)
    return next(s for s in pod["status"]["containerStatuses"] if s["name"] == name)


def ready(pod: dict) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


class Sent:
    """Requests that the client's own proxy has sent, by the address of the server they went to."""

    def __init__(self, cluster) -> None:
        self._cluster = cluster
        (pod,) = pods(cluster, "client")
        self._url = f"http://{pod['status']['podIP']}:4191/metrics"

    def to(self, pod_ip: str) -> float:
        return self._scrape().total("request_total", direction="outbound", target_ip=pod_ip)

    def all(self) -> float:
        return self._scrape().total("request_total", direction="outbound")

    def _scrape(self) -> Metrics:
        return parse_metrics(self._cluster.in_cluster_network("wget", "-qO-", self._url).stdout)

    def last_to(self, pod_ip: str, *, quiet: float) -> float:
        """The moment (monotonic) after which nothing was sent there for `quiet` seconds, though others were asked."""
        last, seen = time.monotonic(), self.to(pod_ip)

        def still() -> bool:
            nonlocal last, seen
            if (now := self.to(pod_ip)) != seen:
                last, seen = time.monotonic(), now
            return time.monotonic() - last > quiet

        before = self.all()
        wait_until(still, timeout=20, message=f"no more requests to {pod_ip}")
        assert self.all() > before + 20, "the load went on"
        return last


def test_crashed_app_restarts_with_back_off(life):
    crash = [life.python, str(APPS / "client.py"), "http://fragile:8080", "--count", "1", "--path", "/crash"]
    life.kubectl("exec", "-n", NAMESPACE, "deploy/client", "-c", "client", "--", *crash)
    status = wait_until(
        lambda: _restarted(life, "fragile", "fragile", 1), timeout=30, message="the first restart (at once)"
    )
    assert status["lastState"]["terminated"]["exitCode"] == 3
    wait_until(lambda: ready(pods(life, "fragile")[0]), timeout=30, message="ready again")
    life.kubectl("exec", "-n", NAMESPACE, "deploy/client", "-c", "client", "--", *crash)
    wait_until(lambda: _waits_for(life, "CrashLoopBackOff"), timeout=20, message="back-off after the second crash")
    wait_until(lambda: _restarted(life, "fragile", "fragile", 2), timeout=40, message="the second restart")


def _restarted(cluster, app: str, container: str, times: int) -> dict | None:
    status = container_status(cluster, app, container)
    return status if status["restartCount"] >= times and "running" in status["state"] else None


def _waits_for(cluster, reason: str) -> bool:
    return container_status(cluster, "fragile", "fragile")["state"].get("waiting", {}).get("reason") == reason


def test_deleted_pod_leaves_the_balancer_and_no_request_fails(life):
    gone = pods(life, "server")[0]
    name, address = gone["metadata"]["name"], gone["status"]["podIP"]
    sent = Sent(life)
    with Load(life) as load:
        wait_until(lambda: sent.to(address) > 20, timeout=20, message="the client's proxy to send to the pod")
        life.kubectl("delete", "pod", "-n", NAMESPACE, name, "--wait=false")
        deleted = time.monotonic()
        assert sent.last_to(address, quiet=2) - deleted < 1
        wait_until(
            lambda: len([p for p in pods(life, "server") if ready(p) and p["metadata"]["name"] != name]) == 2,
            timeout=60,
            message="a replacement",
        )
    assert set(load.results) == {"200"}, (load.results, load.errors)


def test_killed_proxy_restarts_and_takes_traffic(life):
    (pod,) = pods(life, "fragile")
    name = pod["metadata"]["name"]
    before = container_status(life, "fragile", "linkerd-proxy")["restartCount"]
    os.kill(_proxy_pid(name), signal.SIGKILL)
    wait_until(
        lambda: _restarted(life, "fragile", "linkerd-proxy", before + 1), timeout=30, message="the proxy to restart"
    )
    wait_until(lambda: ready(pods(life, "fragile")[0]), timeout=30, message="ready again")
    ask = [life.python, str(APPS / "client.py"), "http://fragile:8080", "--count", "10"]
    output = life.kubectl("exec", "-n", NAMESPACE, "deploy/client", "-c", "client", "--", *ask)
    assert json.loads(output) == {"200": 10}


def _proxy_pid(pod: str) -> int:
    """The proxy's process as the host sees it."""
    wanted = f"_pod_name={pod}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                return int(entry.name)
        except OSError:
            continue  # it ended meanwhile
    raise AssertionError(f"no proxy process of {pod}")


def test_rolling_restart_under_load_fails_no_request(life):
    sent = Sent(life)
    before = sent.all()
    with Load(life) as load:
        wait_until(lambda: sent.all() > before + 20, timeout=30, message="the load to begin")
        life.kubectl("rollout", "restart", "deploy/server", "-n", NAMESPACE)
        life.kubectl("rollout", "status", "deploy/server", "-n", NAMESPACE, "--timeout=120s")
    assert set(load.results) == {"200"}, (load.results, load.errors)
    assert load.results["200"] > 20
