"""The URLs of the tap API, and the documents with which an aggregated API says what it has. Pure."""

from __future__ import annotations

from typing import Any

from linkerd.core import kinds
from linkerd.core.kinds import Kind, Target

GROUP = "tap.linkerd.io"
VERSION = "v1alpha1"
GROUP_VERSION = f"{GROUP}/{VERSION}"
ROOT = f"/apis/{GROUP_VERSION}"

KINDS: tuple[Kind, ...] = (
    kinds.NAMESPACE,
    kinds.POD,
    kinds.REPLICATION_CONTROLLER,
    kinds.SERVICE,
    kinds.DAEMON_SET,
    kinds.DEPLOYMENT,
    kinds.REPLICA_SET,
    kinds.STATEFUL_SET,
    kinds.JOB,
    kinds.CRON_JOB,
)


def tap_path(target: Target) -> str:
    """Where the request for this target is posted."""
    if target.kind is kinds.NAMESPACE:
        return f"{ROOT}/watch/namespaces/{target.name}/tap"
    return f"{ROOT}/watch/namespaces/{target.namespace}/{target.kind.plural}/{target.name}/tap"


def api_group() -> dict[str, Any]:
    version = {"groupVersion": GROUP_VERSION, "version": VERSION}
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [version],
        "preferredVersion": version,
    }


def api_group_list() -> dict[str, Any]:
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [api_group()]}


def api_resource_list() -> dict[str, Any]:
    """Each kind twice: `pods`, and the subresource `pods/tap` that rights are given for."""
    names = [name for kind in KINDS for name in (kind.plural, f"{kind.plural}/tap")]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": GROUP_VERSION,
        "resources": [
            {
                "name": name,
                "singularName": "",
                "namespaced": not name.startswith("namespaces"),
                "kind": "Tap",
                "verbs": ["watch"],
            }
            for name in names
        ],
    }


def paths() -> list[str]:
    """What a stray request is told."""
    watched = []
    for kind in KINDS:
        of_kind = f"{ROOT}/watch/namespaces/:namespace"
        if kind is not kinds.NAMESPACE:
            of_kind += f"/{kind.plural}/:name"
        watched += [of_kind, f"{of_kind}/tap"]
    fixed = ["/apis", f"/apis/{GROUP}", ROOT, "/healthz", "/healthz/log", "/healthz/ping", "/metrics", "/openapi/v2"]
    return ["/", *fixed, "/version", *sorted(watched)]
