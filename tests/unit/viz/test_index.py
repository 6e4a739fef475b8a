import pytest
from linkerd.viz.index import Owner, PodIndex, pod_from_object, pod_status


def pod(name="web-1", ip="10.0.0.1", owner=("ReplicaSet", "web-5d9c"), **status):
    metadata = {"name": name, "namespace": "shop", "labels": {"linkerd.io/control-plane-ns": "linkerd"}}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner[0], "name": owner[1], "controller": True}]
    return {"metadata": metadata, "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIP": ip} | status}


def waiting(reason, **more):
    return {"name": "app", "state": {"waiting": {"reason": reason, "message": "why"}}, "ready": False, **more}


RUNNING = {"name": "app", "state": {"running": {}}, "ready": True}
ENDED = {"name": "app", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}, "ready": False}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"containerStatuses": [RUNNING]}, "Running"),
        ({"containerStatuses": [waiting("CrashLoopBackOff")]}, "CrashLoopBackOff"),
        ({"phase": "Failed", "reason": "Evicted"}, "Evicted"),
        ({"phase": "Pending"}, "Pending"),
        ({"containerStatuses": [ENDED]}, "Completed"),
        ({"containerStatuses": [ENDED, RUNNING]}, "NotReady"),
        ({"initContainerStatuses": [waiting("ImagePullBackOff")]}, "Init:ImagePullBackOff"),
        ({"initContainerStatuses": [waiting("PodInitializing")]}, "Init:0/0"),
        ({"containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 3}}}]}, "ExitCode:3"),
    ],
)
def test_status_is_what_kubectl_shows(status, expected):
    assert pod_status(pod(**status)) == expected


def test_a_pod_on_its_way_out_is_terminating_and_not_counted():
    leaving = pod(containerStatuses=[RUNNING])
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    parsed = pod_from_object(leaving)
    assert (parsed.status, parsed.counts) == ("Terminating", False)


def test_a_crash_is_told_with_what_went_before():
    crashed = waiting("CrashLoopBackOff", lastState={"terminated": {"reason": "Error", "exitCode": 1}})
    problems = pod_from_object(pod(containerStatuses=[crashed])).problems
    assert [problem.reason for problem in problems] == ["CrashLoopBackOff", "Error"]


def test_the_proxys_identity_has_its_variables_filled_in():
    env = [
        {"name": "_l5d_ns", "value": "linkerd"},
        {
            "name": "LINKERD2_PROXY_IDENTITY_LOCAL_NAME",
            "value": "$(_pod_sa).$(_pod_ns).serviceaccount.identity.$(_l5d_ns).cluster.local",
        },
    ]
    meshed = pod()
    image = "cr.l5d.io/linkerd/proxy:stable-1"
    meshed["spec"] |= {
        "serviceAccountName": "web",
        "containers": [{"name": "linkerd-proxy", "env": env, "image": image}],
    }
    parsed = pod_from_object(meshed)
    assert parsed.proxy_identity == "web.shop.serviceaccount.identity.linkerd.cluster.local"
    assert parsed.proxy_version == "stable-1"


@pytest.fixture
def index():
    index = PodIndex()
    for one in (
        pod(),
        pod("web-2", "10.0.0.2"),
        pod("job-1", "10.0.0.3", ("Job", "nightly-7")),
        pod("alone", "", None),
    ):
        index.apply(pod_from_object(one))
    index.apply_parent(Owner("replicaset", "shop", "web-5d9c"), Owner("deployment", "shop", "web"))
    index.apply_parent(Owner("job", "shop", "nightly-7"), Owner("cronjob", "shop", "nightly"))
    return index


@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        ("deployment", {("shop", "web"): 2}),
        ("replicaset", {("shop", "web-5d9c"): 2}),
        ("cronjob", {("shop", "nightly"): 1}),
        ("job", {("shop", "nightly-7"): 1}),
        ("namespace", {("", "shop"): 4}),
    ],
)
def test_pods_belong_to_each_workload_above_them(index, kind, groups):
    assert {key: len(pods) for key, pods in index.by_workload(kind).items()} == groups


def test_an_address_leads_to_the_pod_that_has_it_now(index):
    index.apply(pod_from_object(pod("web-3", "10.0.0.1")))
    index.delete("shop", "web-1")
    assert index.by_ip("10.0.0.1").name == "web-3"


def test_addresses_of_pods_that_are_gone_lead_nowhere(index):
    index.delete("shop", "web-1")
    index.apply(pod_from_object(pod("web-2", "10.0.0.2", phase="Succeeded")))
    assert index.by_ip("10.0.0.1") is index.by_ip("10.0.0.2") is None
