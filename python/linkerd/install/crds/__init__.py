"""The CustomResourceDefinitions, one file each."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's takes a tenth of the time

GATEWAY_API = ("grpcroutes.gateway.networking.k8s.io", "httproutes.gateway.networking.k8s.io")
"""The kinds of Gateway API that the mesh reads, for clusters that have none."""

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


def definitions(
    version: str, *, control_plane: str = "linkerd", traffic_split: bool = True, gateway_api: bool = False
) -> list[dict[str, Any]]:
    """In the order of `VERSIONS`, marked as of the control plane in that namespace."""
    names = [*VERSIONS, _TRAFFIC_SPLIT] if traffic_split else list(VERSIONS)
    found = [_definition("crds", name) for name in names]
    found += [_definition("gateway_api", name) for name in GATEWAY_API] if gateway_api else []
    for definition in found:
        metadata = definition["metadata"]
        metadata["annotations"] = {"linkerd.io/created-by": f"linkerd/cli {version}", **metadata.get("annotations", {})}
        metadata["labels"] = {"linkerd.io/control-plane-ns": control_plane}
    return found


def _definition(folder: str, name: str) -> dict[str, Any]:
    return yaml.load((files("linkerd.install") / folder / f"{name}.yaml").read_text(), Loader=_LOADER)
