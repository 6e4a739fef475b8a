"""Each control plane process as it is started in its container: gets ready, says so, ends when asked."""

from __future__ import annotations

import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from linkerd.kit.x509 import certificate_pem, key_pem, new_issuer, new_root, new_server_certificate
from support.apiserver import ROOT, free_port
from support.waiting import wait_until

PROGRAM = ROOT / ".venv/bin/linkerd-controller"


@pytest.fixture
def tls_dir(tmp_path: Path) -> Path:
    leaf, key, authority = new_server_certificate("localhost", timedelta(days=1))
    (tmp_path / "tls.crt").write_text(certificate_pem(leaf))
    (tmp_path / "tls.key").write_text(key_pem(key))
    (tmp_path / "ca.crt").write_text(certificate_pem(authority.certificate))
    return tmp_path


@pytest.fixture
def issuer_dir(tmp_path: Path) -> Path:
    root = new_root("root.linkerd.cluster.local", timedelta(days=1))
    issuer = new_issuer("identity.linkerd.cluster.local", root, timedelta(days=1))
    (tmp_path / "crt.pem").write_text(certificate_pem(issuer.certificate))
    (tmp_path / "key.pem").write_text(key_pem(issuer.key))
    (tmp_path / "ca-bundle.crt").write_text(certificate_pem(root.certificate))
    return tmp_path


@contextmanager
def running(*arguments: str) -> Iterator[int]:
    """The process, until it says it is ready; gives its admin port, and ends it, which it must do well."""
    port = free_port()
    command = [PROGRAM, *arguments, f"--admin-addr=127.0.0.1:{port}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: ready(port) or process.poll() is not None, timeout=20, message="ready")
        yield port
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=10)
        assert process.returncode == 0, log
    finally:
        process.kill()
        process.communicate()


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
        return answer.read().decode()


def review(port: int, ca: Path, obj: dict) -> dict:
    body = {"request": {"uid": "1", "kind": {"kind": obj["kind"]}, "operation": "CREATE", "object": obj}}
    context = ssl.create_default_context(cafile=ca)
    request = urllib.request.Request(f"https://localhost:{port}/", data=orjson.dumps(body), method="POST")
    with urllib.request.urlopen(request, timeout=5, context=context) as answer:
        return orjson.loads(answer.read())["response"]


def test_identity(kubeconfig: Path, issuer_dir: Path):
    arguments = [
        "identity",
        f"--kubeconfig={kubeconfig}",
        f"--addr=127.0.0.1:{free_port()}",
        f"--identity-issuer-dir={issuer_dir}",
        f"--identity-trust-anchors={issuer_dir}/ca-bundle.crt",
        "--controller-namespace=linkerd",
        "--identity-trust-domain=cluster.local",
        "--identity-issuance-lifetime=24h0m0s",
        "--identity-clock-skew-allowance=20s",
        "--identity-scheme=linkerd.io/tls",
        "--log-level=info",
    ]
    with running(*arguments) as port:
        assert "issuer_cert_ttl_seconds 86" in metrics(port)


def test_destination(kubeconfig: Path):
    with running("destination", f"--kubeconfig={kubeconfig}", f"--addr=127.0.0.1:{free_port()}") as port:
        assert 'destination_streams{kind="endpoints"} 0' in metrics(port)


def test_policy_refuses_what_cannot_work(kubeconfig: Path, tls_dir: Path):
    webhook = free_port()
    arguments = [
        "policy",
        f"--kubeconfig={kubeconfig}",
        f"--grpc-addr=127.0.0.1:{free_port()}",
        f"--server-addr=127.0.0.1:{webhook}",
        f"--tls-dir={tls_dir}",
        "--log-level=info",
    ]
    server = {"kind": "Server", "metadata": {"name": "a", "namespace": "b"}, "spec": {"podSelector": {}, "port": 0}}
    with running(*arguments):
        answer = review(webhook, tls_dir / "ca.crt", server)
    assert not answer["allowed"]
    assert "spec.port: `0`" in answer["status"]["message"]


def test_sp_validator_says_what_is_wrong(tls_dir: Path):
    webhook = free_port()
    spec = {"routes": [{"name": "x", "condition": {"pathRegex": "/a("}}]}
    profile = {"kind": "ServiceProfile", "metadata": {"name": "web.shop.svc.cluster.local"}, "spec": spec}
    with running("sp-validator", f"--addr=127.0.0.1:{webhook}", f"--tls-dir={tls_dir}"):
        answer = review(webhook, tls_dir / "ca.crt", profile)
    assert "spec.routes[0].condition.pathRegex: `/a(`" in answer["status"]["message"]


def test_an_unknown_component_is_an_error():
    done = subprocess.run([PROGRAM, "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown component `nothing`" in done.stderr
