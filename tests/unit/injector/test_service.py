"""The webhook: every review is allowed, with the patch, the warnings and the Events that belong to it."""

from __future__ import annotations

import base64
import json

import pytest
from aiohttp.test_utils import TestClient, TestServer
from linkerd.injector.inject import Owner
from linkerd.injector.patch import apply
from linkerd.injector.service import Webhook
from linkerd.injector.settings import settings_from_values

SETTINGS = settings_from_values({}, "linkerd", "PEM")
NAMESPACES = {"meshed": {"linkerd.io/inject": "enabled"}}


class Events(list):
    def record(self, *event):
        self.append(event)


@pytest.fixture
def events():
    return Events()


@pytest.fixture
async def client(events):
    async def annotations(name):
        return NAMESPACES.get(name, {})

    async def owner_of(pod, namespace):
        return Owner("Deployment", "web")

    app = Webhook(lambda: SETTINGS, annotations, owner_of, events).app()
    async with TestClient(TestServer(app)) as client:
        yield client


def review(obj, kind="Pod", namespace="meshed", **more):
    request = {"uid": "u1", "kind": {"kind": kind}, "namespace": namespace, "object": obj, **more}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def pod(**spec):
    return {"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "app"}], **spec}}


async def ask(client, body):
    answer = await client.post("/", data=json.dumps(body))
    document = await answer.json()
    assert (document["apiVersion"], document["response"]["uid"]) == ("admission.k8s.io/v1", "u1")
    assert document["response"]["allowed"] is True
    return document["response"]


def patched(response, obj):
    return apply(json.loads(base64.b64decode(response["patch"])), obj)


async def test_a_pod_gets_its_proxy_and_its_workload_an_event(client, events):
    response = await ask(client, review(pod()))
    assert response["patchType"] == "JSONPatch"
    assert patched(response, pod())["spec"]["containers"][0]["name"] == "linkerd-proxy"
    involved = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    assert events == [("meshed", involved, "Normal", "Injected", "Linkerd sidecar proxy injected")]


async def test_a_pod_that_cannot_have_one_runs_without_and_it_is_said(client, events):
    response = await ask(client, review(pod(hostNetwork=True)))
    assert "patch" not in response
    assert events[0][2:4] == ("Warning", "InjectionSkipped")
    assert "hostNetwork" in events[0][4]


async def test_nobody_is_told_about_pods_that_need_no_proxy(client, events):
    assert "patch" not in await ask(client, review(pod(), namespace="other"))
    assert events == []


async def test_a_dry_run_leaves_no_trace(client, events):
    assert "patch" in await ask(client, review(pod(), dryRun=True))
    assert events == []


async def test_a_wrong_annotation_is_a_warning_to_the_user(client):
    given = pod()
    given["metadata"]["annotations"] = {"config.linkerd.io/admin-port": "x"}
    response = await ask(client, review(given))
    assert "config.linkerd.io/admin-port" in response["warnings"][0]


async def test_a_service_is_told_its_opaque_ports(client):
    service = {"metadata": {}, "spec": {"ports": [{"port": 3306}]}}
    response = await ask(client, review(service, kind="Service"))
    assert patched(response, service)["metadata"]["annotations"] == {"config.linkerd.io/opaque-ports": "3306"}


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"request": {"uid": "u"}}'])
async def test_what_is_no_review_is_refused(client, body):
    answer = await client.post("/", data=body)
    assert answer.status == 400
