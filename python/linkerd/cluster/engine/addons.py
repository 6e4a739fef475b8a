"""What the cluster brings along as ordinary objects: CoreDNS, metrics-server, and the node agent's extra rights.

Applied at each start with server-side apply, so that a newer version's objects replace the older ones.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import yaml

from linkerd.cluster.engine import settings as names
from linkerd.cluster.engine.certificates import read_pem
from linkerd.cluster.engine.settings import Settings
from linkerd.k8s import resources
from linkerd.k8s.client import Client
from linkerd.k8s.resources import Resource

MANAGER = "linkerd-cluster"

_RESOURCES = {
    "APIService": resources.API_SERVICES,
    "ClusterRole": resources.CLUSTER_ROLES,
    "ClusterRoleBinding": resources.CLUSTER_ROLE_BINDINGS,
    "ConfigMap": resources.CONFIG_MAPS,
    "Deployment": resources.DEPLOYMENTS,
    "RoleBinding": resources.ROLE_BINDINGS,
    "Secret": resources.SECRETS,
    "Service": resources.SERVICES,
    "ServiceAccount": resources.SERVICE_ACCOUNTS,
}

Manifest = dict[str, Any]


async def apply_addons(client: Client, settings: Settings) -> None:
    """Raises what the client raises."""
    for manifest in manifests(settings):
        metadata = manifest["metadata"]
        namespace = metadata.get("namespace")
        await client.apply(resource_of(manifest), metadata["name"], manifest, namespace, manager=MANAGER)


def manifests(settings: Settings) -> Iterator[Manifest]:
    """All objects in the order in which to apply them."""
    for name in ("node-agent", "coredns", "metrics-server"):
        text = (files("linkerd.cluster.engine") / "manifests" / f"{name}.yaml").read_text()
        yield from yaml.safe_load_all(_filled(text, _values(settings)))


def resource_of(manifest: Manifest) -> Resource:
    """Where an object of an add-on goes."""
    return _RESOURCES[manifest["kind"]]


def _values(settings: Settings) -> dict[str, str]:
    certificate, key = read_pem(settings.pki, "metrics-server")
    return {
        "CLUSTER_DOMAIN": names.CLUSTER_DOMAIN,
        "DNS_SERVICE_IP": names.DNS_SERVICE_IP,
        "NODE_NAME": names.NODE_NAME,
        "CA": _base64((settings.pki / "ca.crt").read_text()),
        "METRICS_SERVER_CERTIFICATE": _base64(certificate),
        "METRICS_SERVER_KEY": _base64(key),
    }


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    return text


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
