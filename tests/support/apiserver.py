"""A real API server for tests: etcd and kube-apiserver on loopback ports, no nodes, no controllers.

What controllers would do (EndpointSlices, service account tokens' objects) the tests do themselves.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import yaml
from linkerd.k8s.config import ClusterConfig
from linkerd.kit.x509 import (
    Authority,
    certificate_pem,
    key_pem,
    new_root,
    new_server_certificate,
)

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / ".venv/bin/linkerd-kube"
CRDS = ROOT / "python/linkerd/install/crds"


@dataclass(frozen=True)
class ApiServer:
    url: str
    token: str
    directory: Path
    ca: str

    def config(self) -> ClusterConfig:
        """As cluster administrator."""
        return ClusterConfig(self.url, token=self.token, ca_data=self.ca.encode(), server_name="kubernetes.default.svc")

    def write_kubeconfig(self, path: Path) -> Path:
        cluster = {
            "server": self.url,
            "tls-server-name": "kubernetes.default.svc",
            "certificate-authority": str(self.directory / "ca.crt"),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(document))
        return path


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def running_apiserver(directory: Path) -> Iterator[ApiServer]:
    """Up when the block begins, gone when it ends. Raises TimeoutError with the end of its log."""
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    authority = _write_material(directory)
    token = secrets.token_hex(16)
    (directory / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    etcd = _start(
        directory,
        "etcd",
        f"--data-dir={directory}/etcd",
        f"--listen-client-urls=http://127.0.0.1:{etcd_port}",
        f"--advertise-client-urls=http://127.0.0.1:{etcd_port}",
        f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
        f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
        "--unsafe-no-fsync",
    )
    server = _start(
        directory,
        "kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={directory}/server.crt",
        f"--tls-private-key-file={directory}/server.key",
        f"--token-auth-file={directory}/tokens.csv",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={directory}/accounts.crt",
        f"--service-account-signing-key-file={directory}/accounts.key",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
    )
    try:
        url = f"https://127.0.0.1:{port}"
        _wait_ready(url, token, server, directory)
        yield ApiServer(url, token, directory, certificate_pem(authority.certificate))
    finally:
        # Nothing in it outlives the test: no need to wait for an orderly end.
        for process in (server, etcd):
            process.kill()
        for process in (server, etcd):
            process.wait()


def _write_material(directory: Path) -> Authority:
    leaf, key, authority = new_server_certificate("kubernetes.default.svc", timedelta(days=1))
    (directory / "server.crt").write_text(certificate_pem(leaf))
    (directory / "server.key").write_text(key_pem(key))
    (directory / "ca.crt").write_text(certificate_pem(authority.certificate))
    accounts = new_root("accounts", timedelta(days=1))
    (directory / "accounts.key").write_text(key_pem(accounts.key))
    (directory / "accounts.crt").write_text(certificate_pem(accounts.certificate))
    return authority


def _start(directory: Path, program: str, *arguments: str) -> subprocess.Popen[bytes]:
    with (directory / f"{program}.log").open("wb") as log:
        return subprocess.Popen([PROGRAM, program, *arguments], stdout=log, stderr=log, cwd=directory)


def _wait_ready(url: str, token: str, server: subprocess.Popen[bytes], directory: Path) -> None:
    context = ssl._create_unverified_context()
    request = Request(f"{url}/readyz", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(request, context=context, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    end = (directory / "kube-apiserver.log").read_text(errors="replace")[-2000:]
    raise TimeoutError(f"the API server did not get ready:\n{end}")
