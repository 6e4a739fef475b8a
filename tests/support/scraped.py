"""A real Prometheus that scrapes made-up proxies: the truth about counters is what a test sets."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import yaml
from linkerd.viz.metrics.prometheus import Prometheus

from support.apiserver import ROOT, free_port

PROGRAM = ROOT / ".venv/bin/prometheus"
SCRAPE_SECONDS = 0.2

Pods = Mapping[str, Mapping[str, str]]
"""Labels of each pod's target, by its name; as Linkerd's scrape configuration sets them."""


class Proxies:
    """What the proxies of the pods count. Series may be set and increased at any time."""

    def __init__(self) -> None:
        self._series: dict[str, dict[str, float]] = {}
        self._lock = threading.Lock()

    def start(self, pod: str, started: float) -> None:
        """The pod's proxy (re)starts: it forgets all and counts from zero."""
        with self._lock:
            self._series[pod] = {"process_start_time_seconds": started}

    def pods(self) -> list[str]:
        with self._lock:
            return list(self._series)

    def add(self, pod: str, metric: str, amount: float, **labels: str) -> None:
        inner = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
        series = f"{metric}{{{inner}}}"
        with self._lock:
            values = self._series[pod]
            values[series] = values.get(series, 0) + amount

    def answer(
        self, pod: str, *, success: int = 0, failure: int = 0, direction: str = "inbound", **labels: str
    ) -> None:
        """So many more responses."""
        for classification, count in (("success", success), ("failure", failure)):
            if count:
                own = {"direction": direction, "classification": classification, **labels}
                self.add(pod, "response_total", count, **own)

    def observe(self, pod: str, milliseconds: list[float], direction: str = "inbound", **labels: str) -> None:
        """Latencies of responses, into Linkerd's buckets."""
        bounds = [1, 2, 3, 4, 5, *range(10, 51, 10), *range(100, 501, 100), *range(1000, 5001, 1000)]
        bounds += [*range(10000, 50001, 10000)]
        for bound in [*map(str, bounds), "+Inf"]:
            count = sum(value <= float(bound) for value in milliseconds)
            self.add(pod, "response_latency_ms_bucket", count, direction=direction, le=bound, **labels)

    def text(self, pod: str) -> str:
        with self._lock:
            return "".join(f"{series} {value}\n" for series, value in self._series.get(pod, {}).items())


class Scraped:
    """The proxies and the Prometheus that scrapes them."""

    def __init__(self, proxies: Proxies, prometheus: Prometheus, url: str) -> None:
        self.proxies = proxies
        self.prometheus = prometheus
        self.url = url

    async def now(self) -> None:
        """Until all pods have been scraped after this moment."""
        asked = time.time()
        recent = f"count(timestamp(process_start_time_seconds) > {asked + SCRAPE_SECONDS})"
        await self.until(f"{recent} == {len(self.proxies.pods())}")

    async def watched_for(self, window: str) -> None:
        """Until there are samples older than the window."""
        await self.until(f"process_start_time_seconds offset {window}")

    async def until(self, query: str) -> None:
        """Until it finds something."""
        async with asyncio.timeout(20):
            while not await self.prometheus.query(query):  # noqa: ASYNC110 - another process has no event for us
                await asyncio.sleep(0.05)


@contextmanager
def serving(proxies: Proxies) -> Iterator[int]:
    """The metrics of `pod` at `/<pod>`; gives the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = proxies.text(self.path.strip("/")).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def running_prometheus(directory: Path, target_port: int, pods: Pods, *, rules: str = "") -> Iterator[str]:
    """Its URL. Raises TimeoutError with the end of its log."""
    job = {
        "job_name": "linkerd-proxy",
        "static_configs": [
            {"targets": [f"127.0.0.1:{target_port}"], "labels": {"__metrics_path__": f"/{pod}", "pod": pod, **labels}}
            for pod, labels in pods.items()
        ],
        "relabel_configs": [{"action": "labeldrop", "regex": "instance"}],
    }
    interval = f"{SCRAPE_SECONDS * 1000:.0f}ms"
    times = {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval}
    config = {"global": times, "scrape_configs": [job]}
    if rules:
        (directory / "rules.yml").write_text(rules)
        config["rule_files"] = ["rules.yml"]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    log = (directory / "prometheus.log").open("wb")
    arguments = [f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
    process = subprocess.Popen([PROGRAM, *arguments, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        _wait_ready(address, process, directory)
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()
        log.close()


def _wait_ready(address: str, process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(f"http://{address}/-/ready", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.05)
    raise TimeoutError("Prometheus did not get ready:\n" + (directory / "prometheus.log").read_text()[-2000:])
