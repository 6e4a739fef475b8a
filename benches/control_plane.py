"""The control plane under many proxies; prints the table of benches/README.md.

    python benches/control_plane.py [--proxies 5000] [--services 1000] [--pods 10000]

Real processes of destination, policy, identity and the injector, against a stand-in for the API server
(`watched_cluster.py`), asked by real gRPC clients (`simulated_proxies.py`), a connection each. Memory is PSS. The
machine's cores are shared by all of them, so latencies are upper bounds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import multiprocessing
import os
import random
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
import grpc.aio
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from linkerd.install.values import default_values
from linkerd.kit.x509 import certificate_pem, key_pem, new_issuer, new_key, new_root, new_server_certificate
from linkerd.proto.destination_pb2 import GetDestination
from linkerd.proto.identity_pb2 import CertifyRequest, CertifyResponse
from simulated_proxies import HOT, Load, work
from watched_cluster import NAMESPACE, pod, pod_ip

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
WORKERS = 2


class Process:
    """One of the programs; ended with the block."""

    def __init__(self, *command: str) -> None:
        self._popen = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.wait()

    @property
    def pss(self) -> float:
        """MB."""
        text = Path(f"/proc/{self._popen.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024

    @property
    def cpu(self) -> float:
        """Seconds used so far."""
        fields = Path(f"/proc/{self._popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def wait_answers(url: str, *, timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


@contextlib.contextmanager
def api_server(directory: Path, pods: int, services: int) -> Iterator[tuple[str, Path]]:
    """Its URL, and a kubeconfig for it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    kubeconfig = directory / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "bench", "cluster": {"server": url}}],
        "users": [{"name": "bench", "user": {}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "current-context": "bench",
    }
    kubeconfig.write_text(yaml.safe_dump(document))
    with Process(sys.executable, str(HERE / "watched_cluster.py"), str(port), str(pods), str(services)):
        wait_answers(f"{url}/api/v1/namespaces")
        yield url, kubeconfig


def component(name: str, kubeconfig: Path, *flags: str) -> tuple[Process, int]:
    admin = free_port()
    program = [sys.executable, "-m", "linkerd.runtime.main", name]
    process = Process(*program, f"--kubeconfig={kubeconfig}", f"--admin-addr=127.0.0.1:{admin}", *flags)
    return process, admin


def tls_directory(directory: Path) -> Path:
    leaf, key, authority = new_server_certificate("localhost", timedelta(days=1))
    for name, certificate in (("tls.crt", leaf), ("ca.crt", authority.certificate)):
        (directory / name).write_text(certificate_pem(certificate))
    (directory / "tls.key").write_text(key_pem(key))
    return directory


def row(what: str, found: str, must: str) -> None:
    print(f"| {what} | {found} | {must} |", flush=True)


# Destination and policy


def bench_discovery(directory: Path, proxies: int, services: int, pods: int) -> None:
    with api_server(directory, pods, services) as (url, kubeconfig):
        ports = free_port(), free_port()
        tls = tls_directory(directory)
        began = time.monotonic()
        destination, ready = component("destination", kubeconfig, f"--addr=127.0.0.1:{ports[0]}", "--log-level=error")
        with destination:
            asyncio.run(_first_answer(f"127.0.0.1:{ports[0]}"))
            row("cold start to first answer", f"{time.monotonic() - began:.1f} s", "≤ 15 s, goal 5 s")
            policy, policy_ready = component(
                "policy",
                kubeconfig,
                f"--grpc-addr=127.0.0.1:{ports[1]}",
                f"--server-addr=127.0.0.1:{free_port()}",
                f"--tls-dir={tls}",
                "--log-level=error",
            )
            with policy:
                wait_answers(f"http://127.0.0.1:{ready}/ready")
                wait_answers(f"http://127.0.0.1:{policy_ready}/ready")
                lag = f"http://127.0.0.1:{ready}/metrics"
                _with_proxies(url, lag, destination, policy, ports, proxies, services, pods)


async def _first_answer(address: str) -> None:
    request = GetDestination(path=f"svc-0.{NAMESPACE}.svc.cluster.local:80")
    while True:
        async with grpc.aio.insecure_channel(address) as channel:
            method = "/io.linkerd.proxy.destination.Destination/Get"
            call = channel.unary_stream(method, request_serializer=GetDestination.SerializeToString)(request)
            try:
                await call.read()
                return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)


def _with_proxies(
    url: str,
    lag: str,
    destination: Process,
    policy: Process,
    ports: tuple[int, int],
    proxies: int,
    services: int,
    pods: int,
) -> None:
    before = destination.pss, policy.pss
    row(f"memory, {pods} pods, nobody asking: destination, policy", f"{before[0]:.0f}, {before[1]:.0f} MB", "")
    with _workers(ports, proxies, services) as pipes:
        began = time.monotonic()
        opened = sum(pipe.recv() for pipe in pipes)
        took = time.monotonic() - began
        row(f"{opened} proxies with 7 streams each", f"all answered within {took:.0f} s", "holds")
        each = (destination.pss - before[0] + policy.pss - before[1]) / opened
        row("memory per proxy, destination and policy together", f"{each:.3f} MB", "≤ 0.4 MB, goal 0.25")
        _bench_update(url, lag, pipes, destination)
        _bench_churn(url, pipes, destination, services, pods)


@contextlib.contextmanager
def _workers(ports: tuple[int, int], proxies: int, services: int) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    share = proxies // WORKERS
    started, pipes = [], []
    for number in range(WORKERS):
        ours, theirs = context.Pipe()
        load = Load(number * share, share, services, *(f"127.0.0.1:{port}" for port in ports))
        worker = context.Process(target=work, args=(theirs, load), daemon=True)
        worker.start()
        started.append(worker)
        pipes.append(ours)
    try:
        yield pipes
    finally:
        for worker in started:
            worker.kill()
            worker.join()


def _change(url: str, number: int, *, ready: bool) -> float:
    request = urllib.request.Request(f"{url}/change?pod={number}&ready={str(ready).lower()}", method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return float(answer.read())


def _bench_update(url: str, lag: str, pipes: list[Connection], destination: Process) -> None:
    """One endpoint of the Service that one in five talks to comes and goes."""
    latencies: list[float] = []
    before, used = _lags(lag), destination.cpu
    for turn in range(10):
        _asked(pipes, "heard")
        told = _change(url, HOT, ready=turn % 2 == 1)
        time.sleep(2)
        latencies += [heard - told for found in _asked(pipes, "heard") for heard in found]
    used = destination.cpu - used
    p99 = statistics.quantiles(latencies, n=100)[98]
    each = len(latencies) // 10
    row(f"one endpoint changes → {each} subscribers told", f"p99 {p99:.2f} s", "≤ 1 s, goal 0.3 s")
    row("the same until destination has written it", _p99_bound(before, _lags(lag)), "")
    row("CPU of destination per message", f"{used / len(latencies) * 1e6:.0f} µs", "")


def _lags(url: str) -> dict[float, float]:
    """The histogram of `destination_update_lag_seconds`: how many were at most so late."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = (line for line in lines if line.startswith("destination_update_lag_seconds_bucket"))
    return {float(line.split('"')[1]): float(line.split()[-1]) for line in found}


def _p99_bound(before: dict[float, float], after: dict[float, float]) -> str:
    seen = {bound: after[bound] - before[bound] for bound in after}
    wanted = 0.99 * max(seen.values())
    return f"p99 ≤ {min(bound for bound, count in seen.items() if count >= wanted):g} s"


def _bench_churn(url: str, pipes: list[Connection], destination: Process, services: int, pods: int) -> None:
    """Half of the pods go and come back, at the pace of half of them in a minute, for twenty seconds."""
    ready = dict.fromkeys(range(pods), True)
    began = time.monotonic()
    pace = pods / 60
    done = 0
    while time.monotonic() - began < 20:
        number = random.randrange(pods)
        ready[number] = not ready[number]
        _change(url, number, ready=ready[number])
        done += 1
        time.sleep(max(0.0, began + done / pace - time.monotonic()))
    used = destination.cpu
    time.sleep(1)
    stale = sum(_is_stale(found, target, ready, services, pods) for target, found in _states(pipes).items())
    row(f"{done} pods churn in 20 s → stale Services 1 s later", str(stale), "0")
    used = destination.cpu
    time.sleep(2)
    row("CPU of destination after that", f"{(destination.cpu - used) / 2:.1%} of a core", "idle")


def _asked(pipes: list[Connection], what: str) -> list:
    for pipe in pipes:
        pipe.send(what)
    return [pipe.recv() for pipe in pipes]


def _states(pipes: list[Connection]) -> dict[int, set[tuple[int, ...]]]:
    merged: dict[int, set[tuple[int, ...]]] = {}
    for state in _asked(pipes, "state"):
        for target, found in state.items():
            merged.setdefault(target, set()).update(found)
    return merged


def _is_stale(found: set[tuple[int, ...]], target: int, ready: dict[int, bool], services: int, pods: int) -> bool:
    there = [number for number in range(target, pods, services) if ready[number]]
    addresses = (int.from_bytes(socket.inet_aton(pod_ip(number))) for number in there)
    return found != {tuple(sorted(addresses))}


# Identity


def bench_identity(directory: Path) -> None:
    root = new_root("root.linkerd.cluster.local", timedelta(days=10))
    issuer = new_issuer("identity.linkerd.cluster.local", root, timedelta(days=5))
    (directory / "crt.pem").write_text(certificate_pem(issuer.certificate))
    (directory / "key.pem").write_text(key_pem(issuer.key))
    (directory / "ca-bundle.crt").write_text(certificate_pem(root.certificate))
    port = free_port()
    with api_server(directory, 10, 1) as (_, kubeconfig):
        flags = [f"--identity-issuer-dir={directory}", f"--identity-trust-anchors={directory}/ca-bundle.crt"]
        process, ready = component("identity", kubeconfig, f"--addr=127.0.0.1:{port}", "--log-level=error", *flags)
        with process:
            wait_answers(f"http://127.0.0.1:{ready}/ready")
            used = process.cpu
            done, seconds = asyncio.run(_certify(f"127.0.0.1:{port}"))
            used = process.cpu - used
    row("Certify", f"{done / seconds:.0f}/s, {done / used:.0f}/s per core", "≥ 200/s per core, goal 500")


async def _certify(address: str, seconds: float = 6.0) -> tuple[int, float]:
    requests = [_certify_request(number) for number in range(50)]
    done = 0
    async with grpc.aio.insecure_channel(address) as channel:
        certify = channel.unary_unary(
            "/io.linkerd.proxy.identity.Identity/Certify",
            request_serializer=CertifyRequest.SerializeToString,
            response_deserializer=CertifyResponse.FromString,
        )
        began = time.monotonic()

        async def client(number: int) -> None:
            nonlocal done
            while time.monotonic() - began < seconds:
                await certify(requests[number % len(requests)])
                done += 1

        await asyncio.gather(*(client(number) for number in range(64)))
        return done, time.monotonic() - began


def _certify_request(number: int) -> CertifyRequest:
    name = f"svc-{number}.{NAMESPACE}.serviceaccount.identity.linkerd.cluster.local"
    claims = {
        "sub": f"system:serviceaccount:{NAMESPACE}:svc-{number}",
        "aud": ["identity.l5d.io"],
        "exp": time.time() + 3600,
    }
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    request = builder.sign(new_key(), hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    return CertifyRequest(identity=name, token=f"e30.{payload}.c2ln".encode(), certificate_signing_request=request)


# Injector


def bench_injector(directory: Path) -> None:
    values = default_values() | {"linkerdVersion": "bench"}
    (directory / "values").write_text(yaml.safe_dump(values))
    root = new_root("root.linkerd.cluster.local", timedelta(days=10))
    (directory / "ca-bundle.crt").write_text(certificate_pem(root.certificate))
    port = free_port()
    tls = tls_directory(directory)
    with api_server(directory, 10, 1) as (_, kubeconfig):
        flags = [
            f"--addr=127.0.0.1:{port}",
            f"--config-file={directory}/values",
            f"--trust-anchors-file={directory}/ca-bundle.crt",
            f"--tls-dir={tls}",
            "--log-level=error",
        ]
        process, ready = component("proxy-injector", kubeconfig, *flags)
        with process:
            wait_answers(f"http://127.0.0.1:{ready}/ready")
            latencies = asyncio.run(_bursts(f"https://localhost:{port}/", tls / "ca.crt"))
    p99 = statistics.quantiles(latencies, n=100)[98] * 1000
    median = statistics.median(latencies) * 1000
    row("injector, bursts of 200 pods", f"p99 {p99:.0f} ms, median {median:.0f} ms", "p99 ≤ 80 ms, goal 30 ms")


async def _bursts(url: str, ca: Path) -> list[float]:
    context = ssl.create_default_context(cafile=ca)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    latencies: list[float] = []
    async with aiohttp.ClientSession(connector=connector) as session:

        async def review(number: int) -> None:
            began = time.monotonic()
            async with session.post(url, data=_review(number)) as answer:
                assert b"patch" in await answer.read()
            latencies.append(time.monotonic() - began)

        await asyncio.gather(*(review(number) for number in range(200)))  # connections, as an API server keeps them
        latencies.clear()
        for _ in range(5):
            await asyncio.gather(*(review(number) for number in range(200)))
    return latencies


def _review(number: int) -> bytes:
    obj = pod(number, 1)
    obj["metadata"]["annotations"] = {"linkerd.io/inject": "enabled"}
    del obj["metadata"]["managedFields"]
    request = {"uid": str(number), "kind": {"kind": "Pod"}, "namespace": NAMESPACE, "object": obj}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "request": request}).encode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxies", type=int, default=5000)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--only", choices=("discovery", "identity", "injector"))
    values = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 100_000), hard))
    print("| what | found | must |\n| --- | --- | --- |", flush=True)
    for name, bench in (
        ("identity", bench_identity),
        ("injector", bench_injector),
        ("discovery", lambda directory: bench_discovery(directory, values.proxies, values.services, values.pods)),
    ):
        if values.only in (None, name):
            with tempfile.TemporaryDirectory() as directory:
                bench(Path(directory))


if __name__ == "__main__":
    main()
