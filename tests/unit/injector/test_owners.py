"""The workload behind a pod."""

from __future__ import annotations

import pytest
from linkerd.injector.inject import Owner
from linkerd.injector.owners import owner_of
from linkerd.k8s.errors import NotFound


class Jobs:
    """Answers for the job `nightly-28`, which a CronJob made, and for `once`, which nobody did."""

    def __init__(self):
        self.asked = 0

    async def get(self, resource, name, namespace):
        self.asked += 1
        if name == "gone":
            raise NotFound(404, "NotFound", "gone")
        owners = [reference("CronJob", "nightly")] if name == "nightly-28" else []
        return {"metadata": {"name": name, "ownerReferences": owners}}


def reference(kind, name, controller=True):
    return {"kind": kind, "name": name, "controller": controller}


def pod(*references, **labels):
    return {"metadata": {"ownerReferences": list(references), "labels": labels}}


@pytest.mark.parametrize(
    ("given", "owner"),
    [
        (pod(), Owner()),
        (pod(reference("ReplicaSet", "web-5d8b", controller=False)), Owner()),
        (pod(reference("StatefulSet", "db")), Owner("StatefulSet", "db")),
        (pod(reference("ReplicaSet", "web-5d8b"), **{"pod-template-hash": "5d8b"}), Owner("Deployment", "web")),
        (pod(reference("ReplicaSet", "alone")), Owner("ReplicaSet", "alone")),
        (pod(reference("Job", "nightly-28")), Owner("CronJob", "nightly")),
        (pod(reference("Job", "once")), Owner("Job", "once")),
        (pod(reference("Job", "gone")), Owner("Job", "gone")),
    ],
)
async def test_the_owner(given, owner):
    assert await owner_of(given, "ns", Jobs()) == owner


async def test_a_deployments_pod_asks_the_api_server_nothing():
    jobs = Jobs()
    await owner_of(pod(reference("ReplicaSet", "web-5d8b"), **{"pod-template-hash": "5d8b"}), "ns", jobs)
    assert jobs.asked == 0
