"""The cluster itself: can it be reached, is it new enough, may we install into it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from linkerd.checks.cluster import Cluster, listed
from linkerd.checks.model import Category, Check, CheckFailure, Severity
from linkerd.k8s.errors import AlreadyExists, ApiError
from linkerd.k8s.resources import CONFIG_MAPS, NAMESPACES, NODES, SELF_SUBJECT_ACCESS_REVIEWS, Resource

Object = dict[str, Any]

MINIMUM_VERSION = (1, 29, 0)
"""Native sidecars, which Jobs get, are on by default since then."""

_CLOCK_SKEW = timedelta(minutes=5, seconds=10)
_NAMESPACED = (
    ("ServiceAccounts", "", "serviceaccounts"),
    ("Services", "", "services"),
    ("Deployments", "apps", "deployments"),
    ("ConfigMaps", "", "configmaps"),
    ("Secrets", "", "secrets"),
)


def reachable(cluster: Cluster) -> list[Category]:
    async def initialize() -> None:
        """A client could be made, or there would be no Cluster."""

    async def query() -> None:
        await cluster.reader.request("GET", "/version")

    async def version() -> None:
        git = (await cluster.reader.request("GET", "/version"))["gitVersion"]
        found = parse_version(git)
        if found < MINIMUM_VERSION:
            wanted = ".".join(map(str, MINIMUM_VERSION))
            raise CheckFailure(f"Kubernetes is on version [{git}], but version [{wanted}] or more recent is required")

    return [
        Category(
            "kubernetes-api",
            [
                Check("can initialize the client", "k8s-api", initialize),
                Check("can query the Kubernetes API", "k8s-api", query, "is the cluster up, and the kubeconfig right?"),
            ],
        ),
        Category(
            "kubernetes-version",
            [
                Check(
                    "is running the minimum Kubernetes API version",
                    "k8s-version",
                    version,
                    "upgrade the cluster",
                    Severity.ERROR,
                )
            ],
        ),
    ]


def parse_version(text: str) -> tuple[int, int, int]:
    """`v1.29.3+k3s1` and the like. Raises CheckFailure."""
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if match is None:
        raise CheckFailure(f"`{text}` is not a version of Kubernetes")
    return int(match[1]), int(match[2]), int(match[3] or 0)


def before_installation(cluster: Cluster, cluster_objects: Iterable[tuple[Resource, Object]]) -> Category:
    """`cluster_objects`: what an installation would create outside of namespaces."""

    async def absent() -> None:
        if await cluster.find(NAMESPACES, cluster.namespace) is not None:
            raise CheckFailure(f'The "{cluster.namespace}" namespace already exists')

    async def clocks() -> None:
        nodes = await cluster.list(NODES)
        late = [message for node in nodes if (message := clock_skew(node, datetime.now(UTC)))]
        if late:
            raise CheckFailure(
                listed("the clocks of these nodes differ from this machine's, or their agents are late:", late)
            )

    rights = [
        Check(
            f"can create {title}",
            "pre-k8s",
            lambda group=group, plural=plural: _may(cluster, "create", group, plural),
            "ask for the rights of a cluster administrator",
            Severity.ERROR,
        )
        for title, group, plural in _NAMESPACED
    ]
    return Category(
        "pre-kubernetes-setup",
        [
            Check(
                "control plane namespace does not already exist",
                "pre-ns",
                absent,
                "`linkerd upgrade` changes an existing installation, `linkerd uninstall` removes it",
                Severity.ERROR,
            ),
            Check(
                "can create non-namespaced resources",
                "pre-k8s-cluster-k8s",
                lambda: _dry_run(cluster, cluster_objects),
                "ask for the rights of a cluster administrator",
                Severity.ERROR,
            ),
            *rights,
            Check(
                "can read Secrets",
                "pre-k8s",
                lambda: _may(cluster, "get", "", "secrets"),
                "ask for the rights of a cluster administrator",
                Severity.ERROR,
            ),
            Check(
                "can read extension-apiserver-authentication configmap",
                "pre-k8s",
                lambda: _front_proxy(cluster),
                "the API server must run with an aggregation layer (--requestheader-client-ca-file)",
                Severity.ERROR,
            ),
            Check("no clock skew detected", "pre-k8s-clock-skew", clocks, "use NTP on all nodes", Severity.WARNING),
        ],
    )


async def _may(cluster: Cluster, verb: str, group: str, plural: str) -> None:
    attributes = {"namespace": cluster.namespace, "verb": verb, "group": group, "resource": plural}
    review = await cluster.reader.create(SELF_SUBJECT_ACCESS_REVIEWS, {"spec": {"resourceAttributes": attributes}})
    if not review["status"].get("allowed"):
        reason = review["status"].get("reason") or ""
        raise CheckFailure(
            f"not authorized to {verb} {plural}{f'.{group}' if group else ''}{f': {reason}' if reason else ''}"
        )


async def _dry_run(cluster: Cluster, objects: Iterable[tuple[Resource, Object]]) -> None:
    refused = []
    for resource, body in objects:
        try:
            await cluster.reader.create(resource, body, dry_run=True)
        except AlreadyExists:
            pass  # it could be created, since it was
        except ApiError as error:
            refused.append(f"cannot create {resource.kind}/{body['metadata']['name']}: {error}")
    if refused:
        raise CheckFailure("\n".join(refused))


async def _front_proxy(cluster: Cluster) -> None:
    config = await cluster.find(CONFIG_MAPS, "extension-apiserver-authentication", "kube-system")
    if config is None:
        raise CheckFailure("ConfigMap kube-system/extension-apiserver-authentication does not exist")
    if not (config.get("data") or {}).get("requestheader-client-ca-file"):
        raise CheckFailure("ConfigMap extension-apiserver-authentication has no requestheader-client-ca-file")


def clock_skew(node: Object, now: datetime) -> str:
    """What is wrong with a Ready node's last heartbeat, empty for nothing."""
    for condition in (node.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Ready" and condition["status"] == "True" and condition.get("lastHeartbeatTime"):
            skew = now - datetime.fromisoformat(condition["lastHeartbeatTime"])
            if abs(skew) > _CLOCK_SKEW:
                return f"{node['metadata']['name']}: last heartbeat {int(skew.total_seconds())}s ago"
    return ""
