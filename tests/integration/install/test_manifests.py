"""A real API server takes what the command line prints, and its schemas refuse what they should."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from linkerd.k8s.client import Client
from linkerd.k8s.errors import AlreadyExists, Invalid
from linkerd.k8s.resources import (
    CONFIG_MAPS,
    HTTP_ROUTES,
    MESH_TLS_AUTHENTICATIONS,
    NAMESPACES,
    SERVERS,
    SERVICE_PROFILES,
    TRAFFIC_SPLITS,
    Resource,
)

KUBECTL = Path(sys.executable).parent / "kubectl"


async def run(kubeconfig, *argv, stdin=""):
    """Exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *map(str, argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"KUBECONFIG": str(kubeconfig)},
    )
    out, err = await process.communicate(stdin.encode())
    return process.returncode, out.decode(), err.decode()


async def linkerd(kubeconfig, *arguments):
    code, out, err = await run(kubeconfig, sys.executable, "-m", "linkerd.cli.main", *arguments)
    assert code == 0, err
    return out


async def namespaced(client, name):
    try:
        await client.create(NAMESPACES, {"metadata": {"name": name}})
    except AlreadyExists:
        pass


@pytest.mark.parametrize(
    ("namespace", "arguments"),
    [
        ("linkerd", ("install", "--crds", "--set", "installGatewayAPI=true")),
        ("linkerd", ("install",)),
        ("linkerd", ("install", "--ha")),
        ("linkerd", ("install", "-o", "json")),
        ("linkerd-viz", ("viz", "install", "--ignore-cluster")),
        ("linkerd-viz", ("viz", "install", "--ignore-cluster", "--ha")),
    ],
    ids=" ".join,
)
async def test_the_api_server_takes_the_manifests(client: Client, kubeconfig, namespace, arguments):
    await namespaced(client, namespace)  # a dry run does not make the one that it needs
    manifests = await linkerd(kubeconfig, *arguments)
    apply = (KUBECTL, "apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-")
    code, out, err = await run(kubeconfig, *apply, stdin=manifests)
    assert code == 0, err
    assert "Warning" not in err
    assert out.count("serverside-applied") >= 10


async def test_install_refuses_a_second_installation(client: Client, kubeconfig):
    await namespaced(client, "twice")
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "linkerd-config"}}
    await client.request("POST", "/api/v1/namespaces/twice/configmaps", body=config)
    code, out, err = await run(kubeconfig, sys.executable, "-m", "linkerd.cli.main", "install", "-L", "twice")
    assert (code, out) == (1, "")
    assert "ConfigMap/linkerd-config already exists" in err


async def test_inject_takes_the_anchors_that_are_trusted_now(client: Client, kubeconfig, namespace):
    """Those of the installation may have been replaced since."""
    for name, data in (
        ("linkerd-config", {"values": "linkerdVersion: stable-9.9.9\nidentityTrustAnchorsPEM: OLD\n"}),
        ("linkerd-identity-trust-roots", {"ca-bundle.crt": "NEW"}),
    ):
        await client.create(CONFIG_MAPS, {"metadata": {"name": name}, "data": data}, namespace)
    pod = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: app, image: app}]}}"
    inject = (sys.executable, "-m", "linkerd.cli.main", "inject", "--manual", "-L", namespace, "-")
    code, out, err = await run(kubeconfig, *inject, stdin=pod)
    assert code == 0, err
    assert "value: NEW" in out
    assert "OLD" not in out


async def test_check_pre_creates_everything_as_a_dry_run(kubeconfig):
    check = (sys.executable, "-m", "linkerd.cli.main", "check", "--pre", "-L", "free", "--wait", "0s")
    _, out, _ = await run(kubeconfig, *check)
    assert "can create non-namespaced resources.........................[ok]" in out
    assert "can create Deployments......................................[ok]" in out


def match(path="/", **more):
    return {"path": {"value": path}, **more}


PARENT = {"kind": "Server", "name": "web"}
ROUTE = {"name": "GET /x", "condition": {"method": "GET", "pathRegex": "/x"}}


@pytest.mark.parametrize(
    ("resource", "spec"),
    [
        (SERVERS, {"podSelector": {"matchLabels": {"app": "web"}}, "port": "http"}),
        (SERVERS, {"externalWorkloadSelector": {}, "port": 80, "accessPolicy": "audit"}),
        (MESH_TLS_AUTHENTICATIONS, {"identities": ["*", "*.ns.serviceaccount.identity.linkerd.cluster.local"]}),
        (MESH_TLS_AUTHENTICATIONS, {"identityRefs": [{"kind": "ServiceAccount", "name": "web"}]}),
        (HTTP_ROUTES, {"parentRefs": [PARENT], "rules": [{"matches": [match("/a", method="GET")]}]}),
        (HTTP_ROUTES, {"parentRefs": [PARENT], "rules": [{"timeouts": {"request": "1s"}}]}),
        (SERVICE_PROFILES, {"routes": [{**ROUTE, "isRetryable": True, "timeout": "5s"}]}),
        (
            SERVICE_PROFILES,
            {
                "retryBudget": {"retryRatio": 0.2, "minRetriesPerSecond": 10, "ttl": "10s"},
                "routes": [{"name": "n", "condition": {"not": {"method": "GET"}}}],
                "dstOverrides": [{"authority": "a.b.svc", "weight": "500m"}],
            },
        ),
        (TRAFFIC_SPLITS, {"service": "a", "backends": [{"service": "b", "weight": 900}]}),
        (
            Resource("split.smi-spec.io", "v1alpha1", "trafficsplits", "TrafficSplit"),
            {"service": "a", "backends": [{"service": "b", "weight": "500m"}]},
        ),
        (Resource("linkerd.io", "v1alpha1", "serviceprofiles", "ServiceProfile"), {"routes": [ROUTE]}),
    ],
)
async def test_a_right_resource_is_taken(client: Client, namespace, resource, spec):
    created = await client.create(resource, {"metadata": {"generateName": "r-"}, "spec": spec}, namespace)
    for key in spec:
        assert key in created["spec"], "nothing that was said is dropped"


@pytest.mark.parametrize(
    ("resource", "spec", "said"),
    [
        (SERVERS, {"port": 80}, "spec"),
        (SERVERS, {"podSelector": {}, "externalWorkloadSelector": {}, "port": 80}, "spec"),
        (SERVERS, {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}, "port": 80}, "operator"),
        (MESH_TLS_AUTHENTICATIONS, {"identities": ["UPPER case"]}, "identities"),
        (MESH_TLS_AUTHENTICATIONS, {"identities": []}, "identities"),
        (HTTP_ROUTES, {"rules": [{"matches": [match(method="FETCH")]}]}, "method"),
        (HTTP_ROUTES, {"parentRefs": [{"kind": "Server", "name": "w", "port": 70000}]}, "port"),
        (SERVICE_PROFILES, {"routes": [{"condition": {}}]}, "name"),
        (SERVICE_PROFILES, {"routes": [], "retryBudget": {"ttl": "1s"}}, "retryRatio"),
        (TRAFFIC_SPLITS, {"service": "a", "backends": [{"service": "b", "weight": "much"}]}, "weight"),
    ],
)
async def test_a_wrong_resource_is_refused_with_the_field(client: Client, namespace, resource, spec, said):
    with pytest.raises(Invalid, match=said):
        await client.create(resource, {"metadata": {"generateName": "r-"}, "spec": spec}, namespace)


async def test_routes_get_their_defaults(client: Client, namespace):
    body = {"metadata": {"name": "r"}, "spec": {"parentRefs": [PARENT]}}
    created = await client.create(HTTP_ROUTES, body, namespace)
    assert created["spec"]["parentRefs"][0]["group"] == "policy.linkerd.io"
    assert created["spec"]["rules"] == [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]
