"""Which workload a pod belongs to, at the root of its chain of owners."""

from __future__ import annotations

from typing import Any

from linkerd.injector.inject import Owner
from linkerd.k8s.client import Client
from linkerd.k8s.errors import ApiError
from linkerd.k8s.resources import JOBS

Object = dict[str, Any]


def controller_of(obj: Object) -> Owner:
    """The direct controller; an empty Owner for an object that has none."""
    for reference in obj["metadata"].get("ownerReferences") or []:
        if reference.get("controller"):
            return Owner(reference["kind"], reference["name"])
    return Owner()


async def owner_of(pod: Object, namespace: str, client: Client) -> Owner:
    """The Deployment behind a ReplicaSet and the CronJob behind a Job.

    A ReplicaSet's name says its Deployment: the Deployment's controller appends the pod template's hash, which is
    also a label of the pod. So bursts of pods ask the API server for nothing. A Job's name does not, so it is read.
    """
    owner = controller_of(pod)
    if owner.kind == "ReplicaSet":
        return deployment_of_replica_set(pod, owner) or owner
    if owner.kind == "Job":
        try:
            parent = controller_of(await client.get(JOBS, owner.name, namespace))
        except ApiError:
            return owner  # the label is then the Job's, which is true as well
        return parent if parent.kind else owner
    return owner


def deployment_of_replica_set(pod: Object, owner: Owner) -> Owner | None:
    """None for a ReplicaSet that stands for itself."""
    template_hash = (pod["metadata"].get("labels") or {}).get("pod-template-hash")
    if template_hash and owner.name.endswith(f"-{template_hash}"):
        return Owner("Deployment", owner.name.removesuffix(f"-{template_hash}"))
    return None
