"""What the mesh counts is what happened: a known number of requests with a known share of errors, through a client
proxy and a server proxy."""

from __future__ import annotations

import json
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from support.metrics import Metrics, parse_metrics
from support.waiting import wait_until
from support.workloads import APPS, client, namespace, server

NAMESPACE = "truth"
PYTHON_CLIENT = str(APPS / "client.py")


@pytest.fixture(scope="module")
def truth(mesh):
    """A meshed client and a meshed server, and an unmeshed client elsewhere."""
    objects = [namespace(NAMESPACE), *server("server", NAMESPACE), *client("client", NAMESPACE)]
    objects += [namespace("outside", meshed=False), *client("client", "outside"), *server("plain", "outside")]
    mesh.apply(yaml.safe_dump_all(objects))
    for name in (NAMESPACE, "outside"):
        mesh.kubectl("wait", "--for=condition=Available", "--timeout=120s", "-n", name, "deploy", "--all")
    yield mesh
    mesh.kubectl("delete", "namespace", NAMESPACE, "outside", "--wait=false")


def run_client(cluster, url: str, *args: str, namespace: str = NAMESPACE) -> dict[str, int]:
    command = [cluster.python, PYTHON_CLIENT, url, *args]
    return json.loads(cluster.kubectl("exec", "-n", namespace, "deploy/client", "-c", "client", "--", *command))


def proxy_metrics(cluster, workload: str) -> Metrics:
    return parse_metrics(cluster.linkerd("diagnostics", "proxy-metrics", "-n", NAMESPACE, workload))


def difference(before: Metrics, after: Metrics, name: str, **labels: str) -> float:
    return after.total(name, **labels) - before.total(name, **labels)


def test_both_proxies_count_exactly_what_was_sent(truth):
    before = {name: proxy_metrics(truth, f"deploy/{name}") for name in ("client", "server")}
    results = run_client(truth, "http://server:8080", "--count", "400", "--error-every", "8")
    assert results == {"200": 350, "503": 50}
    after = {name: proxy_metrics(truth, f"deploy/{name}") for name in ("client", "server")}

    outbound = {"direction": "outbound", "dst_service": "server", "dst_namespace": NAMESPACE, "tls": "true"}
    inbound = {"direction": "inbound", "target_port": "8080", "tls": "true"}
    for name, labels in (("client", outbound), ("server", inbound)):
        count = lambda family, name=name, **more: difference(before[name], after[name], family, **more)  # noqa: E731
        assert count("request_total", **labels) == 400, name
        assert count("response_total", classification="success", **labels) == 350, name
        assert count("response_total", classification="failure", status_code="503", **labels) == 50, name
        assert count("response_latency_ms_count", **labels) == 400, name


def test_server_names_its_client(truth):
    run_client(truth, "http://server:8080", "--count", "1")
    wanted = f"default.{NAMESPACE}.serviceaccount.identity.linkerd.cluster.local"
    inbound = proxy_metrics(truth, "deploy/server")
    assert inbound.total("request_total", direction="inbound", client_id=wanted) >= 1


def test_unmeshed_client_reaches_a_meshed_server_and_the_other_way_round(truth):
    url = f"http://server.{NAMESPACE}:8080"
    assert run_client(truth, url, "--count", "20", namespace="outside") == {"200": 20}
    inbound = proxy_metrics(truth, "deploy/server")
    assert inbound.total("request_total", direction="inbound", target_port="8080", tls="no_identity") >= 20

    assert run_client(truth, "http://plain.outside:8080", "--count", "20") == {"200": 20}
    outbound = proxy_metrics(truth, "deploy/client")
    assert outbound.total("request_total", dst_service="plain", tls="no_identity") >= 20


def test_stat_shows_the_success_rate_and_the_rate(truth):
    """10 requests a second for longer than the window, every fifth an error."""
    with _background_client(truth, "--interval", "100", "--concurrency", "1", "--error-every", "5") as load:
        row = wait_until(lambda: _settled_row(truth), timeout=90, message="a row with the load's numbers")
    assert load.returncode is not None
    assert abs(row["success"] - 0.8) < 0.03
    assert 8 < row["rps"] < 11


def _settled_row(cluster):
    rows = json.loads(cluster.linkerd("viz", "stat", "deploy/server", "-n", NAMESPACE, "-t", "20s", "-o", "json"))
    found = [row for row in rows if row["name"] == "server"]
    # Above: the requests of the test before are still in the window.
    return found[0] if found and 8.5 < (found[0]["rps"] or 0) < 11 else None


class _background_client:
    """Load until the block ends."""

    def __init__(self, cluster, *args: str) -> None:
        self._cluster, self._args = cluster, args

    def __enter__(self) -> subprocess.Popen[str]:
        command = [self._cluster.python, PYTHON_CLIENT, "http://server:8080", "--count", "100000", *self._args]
        self._process = self._cluster.start_kubectl(
            "exec", "-i", "-n", NAMESPACE, "deploy/client", "-c", "client", "--", *command, "--until-stdin-ends"
        )
        return self._process

    def __exit__(self, *_: object) -> None:
        self.output, self.errors = self._process.communicate(timeout=60)


def test_tap_shows_each_request_of_a_slow_series(truth):
    with ThreadPoolExecutor() as pool:
        tap = pool.submit(
            truth.linkerd, "viz", "tap", "deploy/server", "-n", NAMESPACE, "--path", "/series/", "-o", "json",
            "--count", "20", "--duration", "40s",
        )  # fmt: skip
        wait_until(lambda: _tapping(truth), timeout=20, message="the tap to be attached")
        run_client(
            truth,
            "http://server:8080",
            "--count",
            "20",
            "--concurrency",
            "1",
            "--interval",
            "50",
            "--path",
            "/series/{n}",
        )
        events = [json.loads(line) for line in tap.result(timeout=60).splitlines()]
    paths = [event["requestInit"]["path"] for event in events if "responseEnd" in event]
    assert sorted(paths, key=_number) == [f"/series/{n}" for n in range(1, 21)]


def _number(path: str) -> int:
    return int(path.rpartition("/")[2])


def _tapping(cluster) -> bool:
    return proxy_metrics(cluster, "deploy/server").total("tap_sessions") >= 1


def test_nothing_between_meshed_pods_is_readable(truth, tmp_path):
    marker = "plain-text-marker"
    address = truth.kubectl(
        "get", "pod", "-n", NAMESPACE, "-l", "app=server", "-o", "jsonpath={.items[0].status.podIP}"
    )
    capture = tmp_path / "wire.pcap"
    with truth.capture(capture, f"host {address} and tcp"):
        results = run_client(truth, "http://server:8080", "--count", "10", "--path", f"/{marker}/{{n}}")
    assert results == {"200": 10}
    raw = capture.read_bytes()
    assert len(raw) > 2000, "the capture saw the requests"
    assert marker.encode() not in raw
    assert re.search(rb"\x17\x03\x03..", raw), "TLS application data records"


def test_readable_between_unmeshed_pods(truth, tmp_path):
    """The capture does see plain text where there is some."""
    marker = "plain-text-marker"
    address = truth.kubectl("get", "pod", "-n", "outside", "-l", "app=plain", "-o", "jsonpath={.items[0].status.podIP}")
    capture = tmp_path / "wire.pcap"
    with truth.capture(capture, f"host {address} and tcp"):
        run_client(truth, "http://plain:8080", "--count", "3", "--path", f"/{marker}", namespace="outside")
    assert marker.encode() in capture.read_bytes()


def test_client_of_another_anchor_is_refused(truth, tmp_path):
    identity = f"default.{NAMESPACE}.serviceaccount.identity.linkerd.cluster.local"
    _make_stranger(tmp_path, f"stranger.{NAMESPACE}.serviceaccount.identity.linkerd.cluster.local")
    address = truth.kubectl(
        "get", "pod", "-n", NAMESPACE, "-l", "app=server", "-o", "jsonpath={.items[0].status.podIP}"
    )
    before = proxy_metrics(truth, "deploy/server").total("request_total", direction="inbound", target_port="8080")
    done = truth.in_cluster_network(
        "openssl", "s_client", "-connect", f"{address}:8080", "-servername", identity, "-tls1_3", "-ign_eof",
        "-cert", str(tmp_path / "crt.pem"), "-key", str(tmp_path / "key.pem"),
        stdin="GET / HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\r\n",
    )  # fmt: skip
    assert "HTTP/1.1 200" not in done.stdout
    assert re.search(r"alert|unknown ca|bad certificate|reset", done.stdout + done.stderr, re.I)
    after = proxy_metrics(truth, "deploy/server").total("request_total", direction="inbound", target_port="8080")
    assert after == before


def _make_stranger(directory: Path, name: str) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
    ]
    files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "crt.pem")]
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*command, *files, *subject], check=True, capture_output=True)


def test_pod_certificate_is_in_its_file(truth):
    """As the guide reads it: `kubectl exec … cat …/certificate.crt | openssl x509 -noout -dates`."""
    pem = truth.kubectl(
        "exec", "-n", NAMESPACE, "deploy/server", "-c", "linkerd-proxy", "--",
        "cat", "/var/run/linkerd/identity/end-entity/certificate.crt",
    )  # fmt: skip
    done = subprocess.run(
        ["openssl", "x509", "-noout", "-dates"], input=pem, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("notBefore=")
    assert time.strptime(done.stdout.splitlines()[0].partition("=")[2], "%b %d %H:%M:%S %Y %Z")
