"""One embedded cluster for all end-to-end tests (`LINKERD_TEST_KUBECONFIG` names a running one instead)."""

from __future__ import annotations

import pytest
from support.clusters import running_cluster
from support.demo import deployed


@pytest.fixture(scope="session")
def cluster():
    with running_cluster() as found:
        yield found


@pytest.fixture(scope="session")
def mesh(cluster):
    """The cluster with the control plane and viz in it, by the commands that a user types."""
    if not cluster.kubectl("get", "deploy", "-n", "linkerd-viz", "--ignore-not-found", "-o", "name"):
        cluster.linkerd("check", "--pre")
        cluster.apply(cluster.linkerd("install", "--crds"))
        cluster.apply(cluster.linkerd("install"))
        cluster.kubectl("wait", "--for=condition=Available", "--timeout=180s", "-n", "linkerd", "deploy", "--all")
        cluster.apply(cluster.linkerd("viz", "install", "--set", "prometheus.scrapeInterval=5s"))
    for namespace in ("linkerd", "linkerd-viz"):
        cluster.kubectl("wait", "--for=condition=Available", "--timeout=180s", "-n", namespace, "deploy", "--all")
    return cluster


@pytest.fixture(scope="session")
def demo(mesh):
    """The demo application, with load. Tests put back what they change."""
    return deployed(mesh)
