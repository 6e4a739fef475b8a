"""The CustomResourceDefinitions, one file each."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

_TRAFFIC_SPLIT = "trafficsplits.split.smi-spec.io"

NAMES = (
    "authorizationpolicies.policy.linkerd.io",
    "egressnetworks.policy.linkerd.io",
    "httplocalratelimitpolicies.policy.linkerd.io",
    "httproutes.policy.linkerd.io",
    "meshtlsauthentications.policy.linkerd.io",
    "networkauthentications.policy.linkerd.io",
    "serverauthorizations.policy.linkerd.io",
    "servers.policy.linkerd.io",
    "serviceprofiles.linkerd.io",
    "externalworkloads.workload.linkerd.io",
)
"""What the mesh cannot do without."""


def definitions(version: str, *, traffic_split: bool = True) -> list[dict[str, Any]]:
    """In the order of `NAMES`, marked as ours."""
    names = [*NAMES, _TRAFFIC_SPLIT] if traffic_split else NAMES
    return [_definition(name, version) for name in names]


def _definition(name: str, version: str) -> dict[str, Any]:
    definition = yaml.safe_load((files(__name__) / f"{name}.yaml").read_text())
    definition["metadata"] |= {
        "annotations": {"linkerd.io/created-by": f"linkerd/cli {version}"},
        "labels": {"linkerd.io/control-plane-ns": "linkerd"},
    }
    return definition


def newest_versions() -> dict[str, str]:
    """The version of each definition that the control plane reads, by its name."""
    return {name: _definition(name, "")["spec"]["versions"][-1]["name"] for name in NAMES}
