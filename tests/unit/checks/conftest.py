"""A healthy installation as objects, for each test to break in one place."""

from __future__ import annotations

import pytest
from linkerd.checks.cluster import Cluster
from linkerd.cli.rendering import complete_values, control_plane_documents
from linkerd.install import crds
from linkerd.install.certificates import new_credentials
from linkerd.install.control_plane import Installation, server_certificates
from support.fake_cluster import FakeReader


@pytest.fixture(scope="session")
def installation_documents():
    """Made once: keys cost milliseconds."""
    values = complete_values({})
    credentials = new_credentials("linkerd", "cluster.local")
    servers = server_certificates("linkerd", "8760h")
    documents = control_plane_documents(Installation("linkerd", values, credentials, servers, {}))
    return [*crds.definitions(values["linkerdVersion"]), *documents]


@pytest.fixture
def reader(installation_documents):
    return FakeReader([*installation_documents, *_pods(installation_documents), _node()])


@pytest.fixture
def cluster(reader):
    return Cluster(reader, "linkerd")


@pytest.fixture
def find(reader):
    """`find(kind, name)`: a copy in the cluster, to be broken."""
    import copy

    def find(kind, name):
        for index, obj in enumerate(reader.objects):
            if obj["kind"] == kind and obj["metadata"]["name"] == name:
                reader.objects[index] = copy.deepcopy(obj)
                return reader.objects[index]
        raise LookupError(f"{kind}/{name}")

    return find


@pytest.fixture
def remove(reader):
    def remove(kind, name):
        reader.objects[:] = [o for o in reader.objects if (o["kind"], o["metadata"]["name"]) != (kind, name)]

    return remove


def _pods(documents):
    for number, deployment in enumerate(d for d in documents if d["kind"] == "Deployment"):
        template = deployment["spec"]["template"]
        statuses = [{"name": c["name"], "ready": True} for c in template["spec"]["containers"]]
        yield {
            "kind": "Pod",
            "metadata": {
                "name": deployment["metadata"]["name"],
                "namespace": "linkerd",
                "labels": template["metadata"]["labels"],
            },
            "spec": template["spec"],
            "status": {"phase": "Running", "podIP": f"10.244.0.{number + 2}", "containerStatuses": statuses},
        }


def _node():
    return {"kind": "Node", "metadata": {"name": "node-1"}, "spec": {"podCIDR": "10.244.0.0/16"}, "status": {}}
