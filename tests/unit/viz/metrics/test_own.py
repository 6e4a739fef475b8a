"""What metrics-api itself exposes."""

from __future__ import annotations

from linkerd.viz.index import PodIndex, pod_from_object
from linkerd.viz.metrics.own import PodGauge


def pod(name, namespace="shop", *, meshed=True, phase="Running", **spec):
    labels = {"linkerd.io/control-plane-ns": "linkerd"} if meshed else {}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return pod_from_object({"metadata": metadata, "spec": spec, "status": {"phase": phase}})


def test_pods_by_namespace_and_by_whether_they_are_meshed():
    index = PodIndex()
    for one in (
        pod("web-1"),
        pod("web-2"),
        pod("old", meshed=False),
        pod("ended", meshed=False, phase="Succeeded"),
        pod("agent", meshed=False, hostNetwork=True),
        pod("dns", "kube-system", meshed=False),
    ):
        index.apply(one)
    (family,) = PodGauge(index, "linkerd", frozenset({"kube-system"})).collect()
    assert {tuple(sample.labels.values()): sample.value for sample in family.samples} == {
        ("shop", "true"): 2,
        ("shop", "false"): 1,
    }
