"""Labels and annotations: the names Linkerd gives a meaning to, and label selectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CONTROL_PLANE_NS = "linkerd.io/control-plane-ns"
PROXY_OWNERS = {
    f"linkerd.io/proxy-{kind}": kind
    for kind in (
        "deployment",
        "statefulset",
        "daemonset",
        "cronjob",
        "job",
        "replicationcontroller",
        "replicaset",
    )
}
POD_TEMPLATE_HASH = "pod-template-hash"
ZONE = "topology.kubernetes.io/zone"
SERVICE_NAME = "kubernetes.io/service-name"

OPAQUE_PORTS = "config.linkerd.io/opaque-ports"
SKIP_INBOUND_PORTS = "config.linkerd.io/skip-inbound-ports"
DEFAULT_INBOUND_POLICY = "config.linkerd.io/default-inbound-policy"
REQUIRE_IDENTITY_PORTS = "config.linkerd.io/proxy-require-identity-inbound-ports"


@dataclass(frozen=True, slots=True)
class Requirement:
    key: str
    operator: str  # In, NotIn, Exists, DoesNotExist
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "Exists":
            return value is not None
        if self.operator == "DoesNotExist":
            return value is None
        if self.operator == "NotIn":
            return value is None or value not in self.values
        return value is not None and value in self.values


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements together; none at all selects everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)


def parse_selector(selector: Mapping[str, Any]) -> Selector:
    """A Kubernetes LabelSelector. Raises ValueError for an operator that does not exist."""
    requirements = [
        Requirement(key, "In", frozenset([str(value)])) for key, value in (selector.get("matchLabels") or {}).items()
    ]
    for expression in selector.get("matchExpressions") or []:
        operator = expression.get("operator")
        if operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            raise ValueError(f"`{operator}` is not an operator of a label selector")
        values = frozenset(str(value) for value in expression.get("values") or [])
        requirements.append(Requirement(expression["key"], operator, values))
    return Selector(tuple(requirements))
