"""The CustomResourceDefinitions, one file each."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's takes a tenth of the time

_TRAFFIC_SPLIT = "trafficsplits.split.smi-spec.io"

VERSIONS = {
    "authorizationpolicies.policy.linkerd.io": "v1alpha1",
    "egressnetworks.policy.linkerd.io": "v1alpha1",
    "httplocalratelimitpolicies.policy.linkerd.io": "v1alpha1",
    "httproutes.policy.linkerd.io": "v1beta3",
    "meshtlsauthentications.policy.linkerd.io": "v1alpha1",
    "networkauthentications.policy.linkerd.io": "v1alpha1",
    "serverauthorizations.policy.linkerd.io": "v1beta1",
    "servers.policy.linkerd.io": "v1beta3",
    "serviceprofiles.linkerd.io": "v1alpha2",
    "externalworkloads.workload.linkerd.io": "v1beta1",
}
"""What the mesh cannot do without, and the version of each that it reads: the newest."""


def definitions(version: str, *, traffic_split: bool = True) -> list[dict[str, Any]]:
    """In the order of `VERSIONS`, marked as ours."""
    names = [*VERSIONS, _TRAFFIC_SPLIT] if traffic_split else VERSIONS
    return [_definition(name, version) for name in names]


def _definition(name: str, version: str) -> dict[str, Any]:
    definition = yaml.load((files(__name__) / f"{name}.yaml").read_text(), Loader=_LOADER)
    definition["metadata"] |= {
        "annotations": {"linkerd.io/created-by": f"linkerd/cli {version}"},
        "labels": {"linkerd.io/control-plane-ns": "linkerd"},
    }
    return definition
