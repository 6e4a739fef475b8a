"""Where the cluster is and who we are: from a kubeconfig, or from inside a pod."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ConfigError(Exception):
    """The configuration cannot be used; the message says which file and what in it."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """An API server and the credentials to use there. `token_file` is re-read, since such tokens rotate."""

    server: str
    namespace: str = "default"
    ca_data: bytes | None = None
    verify: bool = True
    server_name: str | None = None
    client_cert: bytes | None = None
    client_key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    context: str = ""
    impersonate_user: str = ""
    impersonate_groups: tuple[str, ...] = ()

    def ssl_context(self) -> ssl.SSLContext | None:
        """For an https server. The key is in a file only for the moment of loading: OpenSSL wants one."""
        if not self.server.startswith("https:"):
            return None
        context = ssl.create_default_context(cadata=self.ca_data.decode() if self.ca_data else None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.client_cert and self.client_key:
            with tempfile.NamedTemporaryFile() as pem:
                pem.write(self.client_cert + b"\n" + self.client_key)
                pem.flush()
                context.load_cert_chain(pem.name)
        return context


def load_config(kubeconfig: str | None = None, context: str | None = None) -> ClusterConfig:
    """As kubectl chooses: the file given, `$KUBECONFIG`, `~/.kube/config`, else the pod's service account.

    Raises ConfigError.
    """
    if kubeconfig:
        return config_from_kubeconfig(_read(Path(kubeconfig)), Path(kubeconfig), context)
    paths = [Path(p) for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p] or [Path.home() / ".kube/config"]
    existing = [p for p in paths if p.exists()]
    if existing:
        merged = _merge([(_read(p), p) for p in existing])
        return config_from_kubeconfig(merged, existing[0], context)
    if "KUBERNETES_SERVICE_HOST" in os.environ and (_SERVICE_ACCOUNT / "token").exists():
        return in_cluster_config()
    looked = ", ".join(str(p) for p in paths)
    raise ConfigError(f"no kubeconfig found (looked for {looked}); set KUBECONFIG or pass --kubeconfig")


def in_cluster_config(directory: Path = _SERVICE_ACCOUNT) -> ClusterConfig:
    """The API server as pods see it."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if ":" in host:
        host = f"[{host}]"
    namespace = directory / "namespace"
    return ClusterConfig(
        server=f"https://{host}:{port}",
        namespace=namespace.read_text().strip() if namespace.exists() else "default",
        ca_data=(directory / "ca.crt").read_bytes(),
        token_file=directory / "token",
    )


def config_from_kubeconfig(document: Any, path: Path, context: str | None = None) -> ClusterConfig:
    """The chosen context of a parsed kubeconfig; `path` anchors relative file names and error messages."""
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: not a kubeconfig (a mapping was expected)")
    name = context or document.get("current-context") or ""
    chosen = _named(document, "contexts", "context", name, path)
    cluster = _named(document, "clusters", "cluster", chosen.get("cluster", ""), path)
    user = _named(document, "users", "user", chosen.get("user", ""), path) if chosen.get("user") else {}
    if not cluster.get("server"):
        raise ConfigError(f"{path}: cluster `{chosen.get('cluster')}` has no server")
    token, cert, key = user.get("token"), _data(user, "client-certificate", path), _data(user, "client-key", path)
    if user.get("exec"):
        token, cert, key = _exec_credential(user["exec"], path)
    return ClusterConfig(
        server=str(cluster["server"]).rstrip("/"),
        namespace=chosen.get("namespace") or "default",
        ca_data=_data(cluster, "certificate-authority", path),
        verify=not cluster.get("insecure-skip-tls-verify", False),
        server_name=cluster.get("tls-server-name"),
        client_cert=cert,
        client_key=key,
        token=token,
        token_file=_beside(path, user["tokenFile"]) if user.get("tokenFile") else None,
        context=name,
    )


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error


def _merge(documents: list[tuple[Any, Path]]) -> dict[str, Any]:
    """`$KUBECONFIG` with several files: the first one that sets a name wins."""
    merged: dict[str, Any] = {"clusters": [], "users": [], "contexts": []}
    for document, path in documents:
        if not isinstance(document, dict):
            raise ConfigError(f"{path}: not a kubeconfig (a mapping was expected)")
        merged.setdefault("current-context", document.get("current-context") or "")
        merged["current-context"] = merged["current-context"] or document.get("current-context") or ""
        for section in ("clusters", "users", "contexts"):
            known = {entry.get("name") for entry in merged[section]}
            merged[section] += [e for e in document.get(section) or [] if e.get("name") not in known]
    return merged


def _named(document: dict[str, Any], section: str, key: str, name: str, path: Path) -> dict[str, Any]:
    for entry in document.get(section) or []:
        if entry.get("name") == name:
            return entry.get(key) or {}
    raise ConfigError(f"{path}: no {key} named `{name}`")


def _beside(path: Path, name: str) -> Path:
    return path.parent / name


def _data(section: dict[str, Any], key: str, path: Path) -> bytes | None:
    if section.get(f"{key}-data"):
        try:
            return base64.b64decode(section[f"{key}-data"], validate=False)
        except ValueError as error:
            raise ConfigError(f"{path}: `{key}-data` is not base64") from error
    if section.get(key):
        file = _beside(path, section[key])
        try:
            return file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: `{key}`: {file}: {error.strerror}") from error
    return None


def _exec_credential(spec: dict[str, Any], path: Path) -> tuple[str | None, bytes | None, bytes | None]:
    """client.authentication.k8s.io: a program of the user's prints the credential."""
    command = [spec["command"], *(spec.get("args") or [])]
    env = os.environ | {e["name"]: e["value"] for e in spec.get("env") or []}
    env["KUBERNETES_EXEC_INFO"] = orjson.dumps(
        {"apiVersion": spec.get("apiVersion"), "kind": "ExecCredential", "spec": {"interactive": False}}
    ).decode()
    try:
        done = subprocess.run(command, env=env, capture_output=True, check=True, timeout=60)
        status = orjson.loads(done.stdout)["status"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: credential program `{command[0]}` failed: {error}") from error
    encode = lambda text: text.encode() if text else None  # noqa: E731
    return status.get("token"), encode(status.get("clientCertificateData")), encode(status.get("clientKeyData"))
