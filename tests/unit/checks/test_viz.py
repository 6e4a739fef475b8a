"""The checks of the viz extension, on one that is in order and on broken ones."""

from __future__ import annotations

from datetime import timedelta

import pytest
from linkerd import VERSION
from linkerd.checks import viz
from linkerd.checks.cluster import Cluster
from linkerd.checks.model import CheckFailure, Skipped
from linkerd.cli.rendering import complete_values
from linkerd.install.certificates import new_server_certificate
from linkerd.install.viz import VizInstallation, render


async def fine():
    return []


async def broken(category):
    found = {}
    for check in category.checks:
        try:
            await check.run()
        except Skipped:
            continue
        except CheckFailure as error:
            found[check.description] = str(error)
    return found


def pod_of(deployment):
    template = deployment["spec"]["template"]
    proxy = {"name": "linkerd-proxy", "image": f"proxy:{VERSION}"}
    containers = [proxy, *template["spec"]["containers"]]
    return {
        "kind": "Pod",
        "metadata": {
            "name": deployment["metadata"]["name"],
            "namespace": "linkerd-viz",
            "labels": template["metadata"]["labels"] | {"linkerd.io/control-plane-ns": "linkerd"},
        },
        "spec": {**template["spec"], "containers": containers},
        "status": {
            "phase": "Running",
            "containerStatuses": [{"name": c["name"], "ready": True} for c in containers],
        },
    }


@pytest.fixture
def cluster(reader):
    certificate = new_server_certificate("tap.linkerd-viz.svc", timedelta(days=365))
    documents = render(VizInstallation("linkerd-viz", complete_values({}, "viz_values.yaml"), certificate))
    service = next(d for d in documents if d["kind"] == "APIService")
    service["status"] = {"conditions": [{"type": "Available", "status": "True"}]}
    reader.objects += [*documents, *(pod_of(d) for d in documents if d["kind"] == "Deployment")]
    return Cluster(reader, "linkerd")


VIZ_PODS = {f"linkerd-viz/{name}" for name in ("metrics-api", "tap", "prometheus")}


async def all_scraped(namespace):
    return VIZ_PODS


def category(cluster, namespace="linkerd-viz", self_check=fine, scraped=all_scraped):
    return viz.viz(cluster, namespace, VERSION, self_check, scraped)


async def test_an_extension_in_order_passes(cluster):
    assert await broken(category(cluster)) == {}


async def test_no_extension(cluster):
    found = await broken(category(cluster, namespace=""))
    assert found["linkerd-viz Namespace exists"] == 'namespace with label "linkerd.io/extension: viz" not found'


async def test_a_tap_api_that_is_not_available(cluster, find):
    conditions = find("APIService", "v1alpha1.tap.linkerd.io")["status"]["conditions"]
    conditions[0] |= {"status": "False", "reason": "FailedDiscoveryCheck", "message": "no answer"}
    assert await broken(category(cluster)) == {"tap API service is running": "FailedDiscoveryCheck: no answer"}


async def test_a_tap_certificate_that_the_api_server_does_not_trust(cluster, find):
    find("APIService", "v1alpha1.tap.linkerd.io")["spec"]["caBundle"] = ""
    assert "caBundle" in (await broken(category(cluster)))["tap API server has valid cert"]


async def test_a_pod_without_a_proxy(cluster, find):
    find("Pod", "prometheus")["spec"]["containers"].pop(0)
    found = await broken(category(cluster))
    assert "linkerd-viz/prometheus" in found["linkerd-viz pods are injected"]


async def test_no_prometheus(cluster, remove):
    remove("Pod", "prometheus")
    found = await broken(category(cluster))
    assert found == {"prometheus is installed and configured correctly": 'No running pods for "prometheus"'}


async def test_a_prometheus_of_the_users_is_not_looked_for(cluster, find, remove):
    find("Namespace", "linkerd-viz")["metadata"]["annotations"]["viz.linkerd.io/external-prometheus"] = "http://mine"
    remove("Pod", "prometheus")
    assert await broken(category(cluster)) == {}


async def test_a_prometheus_of_the_users_that_does_not_scrape_the_mesh(cluster, find, remove):
    find("Namespace", "linkerd-viz")["metadata"]["annotations"]["viz.linkerd.io/external-prometheus"] = "http://mine"
    remove("Pod", "prometheus")

    async def scraped(namespace):
        return {"linkerd-viz/tap"}

    assert await broken(category(cluster, scraped=scraped)) == {
        "prometheus is installed and configured correctly": (
            "the Prometheus at http://mine has no metrics of the proxies of these pods:\n* linkerd-viz/metrics-api"
        )
    }


async def test_what_metrics_api_says_of_itself(cluster):
    async def problem():
        return ["[prometheus] can query: connection refused"]

    assert "connection refused" in (await broken(category(cluster, self_check=problem)))["viz extension self-check"]


async def test_pods_that_prometheus_has_not_seen_are_named(cluster):
    async def scraped(namespace):
        return {"linkerd/linkerd-identity"}

    found = await broken(viz.data_plane(cluster, None, scraped))
    assert "linkerd/linkerd-destination" in found["data plane proxy metrics are present in Prometheus"]
    assert "linkerd/linkerd-identity" not in found["data plane proxy metrics are present in Prometheus"]
