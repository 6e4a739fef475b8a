"""Policy resources as they come from the API server, and an index of them."""

from __future__ import annotations

from typing import Any

from linkerd.core.identities import TrustDomain
from linkerd.core.labels import CONTROL_PLANE_NS
from linkerd.core.networks import parse_networks
from linkerd.core.ports import parse_port_set
from linkerd.core.services import Service, ServicePort
from linkerd.core.workloads import ContainerPort, Pod
from linkerd.policy.index import Index, Settings
from linkerd.policy.parsing import (
    parse_authorization_policy,
    parse_egress_network,
    parse_mesh_tls_authentication,
    parse_network_authentication,
    parse_rate_limit,
    parse_route,
    parse_server,
    parse_server_authorization,
)

Object = dict[str, Any]
NS = "shop"
TRUST = TrustDomain()

_PARSERS = {
    "Server": parse_server,
    "ServerAuthorization": lambda o: parse_server_authorization(o, TRUST),
    "AuthorizationPolicy": parse_authorization_policy,
    "MeshTLSAuthentication": lambda o: parse_mesh_tls_authentication(o, TRUST),
    "NetworkAuthentication": parse_network_authentication,
    "HTTPLocalRateLimitPolicy": parse_rate_limit,
    "EgressNetwork": parse_egress_network,
}


def policy_object(kind: str, name: str, spec: Object, *, group: str = "policy.linkerd.io", **metadata: Any) -> Object:
    return {
        "apiVersion": f"{group}/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": NS, "creationTimestamp": "2026", **metadata},
        "spec": spec,
    }


def parsed(kind: str, name: str, spec: Object, **metadata: Any) -> Any:
    return _PARSERS.get(kind, parse_route)(policy_object(kind, name, spec, **metadata))


def index_of(*values: Any, **options: Any) -> Index:
    defaults = {
        "cluster_networks": parse_networks("10.0.0.0/8"),
        "probe_networks": parse_networks("192.168.0.0/16"),
        "opaque_ports": parse_port_set("3306"),
    }
    index = Index(Settings(**(defaults | options)))
    for value in values:
        index.apply(value)
    return index


def web_pod(**changes: Any) -> Pod:
    values: dict[str, Any] = {
        "namespace": NS,
        "name": "web-1",
        "labels": {CONTROL_PLANE_NS: "linkerd", "app": "web"},
        "ports": (ContainerPort(8080, "http"),),
    }
    return Pod(**(values | changes))


def web_service(name: str = "web", **changes: Any) -> Service:
    values: dict[str, Any] = {
        "namespace": NS,
        "name": name,
        "cluster_ips": ("10.96.0.5",) if name == "web" else (),
        "ports": (ServicePort(80, "http"), ServicePort(3306, "db")),
    }
    return Service(**(values | changes))


def server_ref(name: str = "web") -> Object:
    return {"group": "policy.linkerd.io", "kind": "Server", "name": name}
