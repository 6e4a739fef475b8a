"""Pods that should be meshed and are not."""

from __future__ import annotations

import pytest
from linkerd.injector.inject import Owner
from linkerd.injector.reconciling import UNMESHED, Reconciler, parse_candidate, should_be_meshed
from linkerd.k8s.watching import Change

INJECT = "linkerd.io/inject"


def pod(name="web-abc-1", *, containers=("app",), annotations=None, labels=None, phase="Running", **spec):
    owner = {"kind": "ReplicaSet", "name": "web-abc", "controller": True}
    metadata = {
        "namespace": "shop",
        "name": name,
        "labels": {"pod-template-hash": "abc"} | (labels or {}),
        "annotations": annotations or {},
        "ownerReferences": [owner],
    }
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": name} for name in containers], **spec},
        "status": {"phase": phase},
    }


def namespace(labels=None, **annotations):
    return {"metadata": {"name": "shop", "labels": labels or {}, "annotations": annotations}}


MESHED = namespace(**{INJECT: "enabled"})


def judged(obj, of=MESHED, excluded=()):
    return should_be_meshed(parse_candidate(obj), of, excluded)


def test_a_pod_without_proxy_in_a_namespace_that_asks_for_it_is_found():
    assert judged(pod())
    assert judged(pod(annotations={INJECT: "enabled"}), namespace())


@pytest.mark.parametrize(
    "obj",
    [
        pod(containers=("app", "linkerd-proxy")),
        pod(initContainers=[{"name": "linkerd-proxy"}]),
        pod(annotations={INJECT: "disabled"}),
        pod(hostNetwork=True),
        pod(phase="Succeeded"),
        pod(labels={"linkerd.io/control-plane-component": "identity"}),
    ],
    ids=["meshed", "meshed natively", "opted out", "host network", "finished", "the mesh itself"],
)
def test_a_pod_that_has_one_or_cannot_or_must_not_is_none(obj):
    assert not judged(obj)


@pytest.mark.parametrize(
    ("of", "excluded"),
    [
        (namespace(), ()),
        (namespace({"config.linkerd.io/admission-webhooks": "disabled"}, **{INJECT: "enabled"}), ()),
        (MESHED, ("shop",)),
        (None, ()),
    ],
    ids=["not asked", "webhook off", "excluded", "not known yet"],
)
def test_where_the_webhook_is_not_asked_nothing_is_missing(of, excluded):
    assert not judged(pod(), of, excluded)


class Events(list):
    def record(self, *event):
        self.append(event)


def test_each_workload_is_told_once_until_it_is_mended():
    events, namespaces = Events(), {("", "shop"): MESHED}
    reconciler = Reconciler(None, namespaces, events, lambda: ())  # type: ignore[arg-type]
    pods = [parse_candidate(pod(f"web-abc-{number}")) for number in range(3)]
    for found in pods:
        reconciler.note(Change("applied", found))
    reconciler.tell()
    reconciler.tell()
    ((where, involved, kind, reason, message),) = events
    assert (where, involved["kind"], involved["name"], kind) == ("shop", "Deployment", "web", "Warning")
    assert (reason, "should be meshed" in message) == ("NotMeshed", True)
    assert UNMESHED.labels("shop")._value.get() == 3
    for found in pods:
        reconciler.note(Change("deleted", found))
    reconciler.tell()
    reconciler.note(Change("applied", pods[0]))
    reconciler.tell()
    assert len(events) == 2


def test_the_owner_is_the_deployment():
    assert parse_candidate(pod()).owner == Owner("Deployment", "web")
