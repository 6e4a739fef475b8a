"""What becomes of pods: meshed, left alone, and why."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml
from linkerd.injector.inject import Owner, Reason, inbound_ports, inject, with_opaque_ports
from linkerd.injector.settings import settings_from_values
from support.golden import check_golden

GOLDENS = Path(__file__).parent / "goldens"
SETTINGS = settings_from_values({"linkerdVersion": "stable-9.9.9"}, "linkerd", "PEM")
ENABLED = {"linkerd.io/inject": "enabled"}
DEPLOYMENT = Owner("Deployment", "web")


def pod(annotations=None, **spec):
    container = {"name": "app", "image": "app", "ports": [{"name": "http", "containerPort": 8080}]}
    return {
        "metadata": {"labels": {"app": "web"}, **({"annotations": annotations} if annotations else {})},
        "spec": {"containers": [container], **spec},
    }


def injected(given, namespace=ENABLED, owner=DEPLOYMENT, **options):
    return inject(given, "production", namespace, owner, SETTINGS, **options)


def env(meshed):
    containers = [*meshed["spec"]["containers"], *meshed["spec"]["initContainers"]]
    proxy = next(c for c in containers if c["name"] == "linkerd-proxy")
    return {v["name"].removeprefix("LINKERD2_PROXY_"): v.get("value", v.get("valueFrom")) for v in proxy["env"]}


def names(containers):
    return [container["name"] for container in containers]


@pytest.mark.parametrize(
    ("name", "given", "options"),
    [
        ("deployment", pod(), {}),
        ("job", pod(restartPolicy="Never"), {"owner": Owner("Job", "once")}),
        ("destination", pod({"config.linkerd.io/skip-outbound-ports": "443,6443"}), {"component": "destination"}),
        (
            "configured",
            pod(
                {
                    "linkerd.io/inject": "ingress",
                    "config.linkerd.io/proxy-cpu-request": "100m",
                    "config.linkerd.io/proxy-memory-limit": "64Mi",
                    "config.linkerd.io/skip-inbound-ports": "9000-9010",
                    "config.linkerd.io/opaque-ports": "http",
                    "config.linkerd.io/enable-debug-sidecar": "true",
                    "config.alpha.linkerd.io/proxy-wait-before-exit-seconds": "5",
                    "viz.linkerd.io/disable-tap": "true",
                }
            ),
            {},
        ),
    ],
)
def test_a_meshed_pod(name, given, options):
    before = copy.deepcopy(given)
    result = injected(given, **options)
    assert result.injected
    assert given == before, "the pod that was given is not changed"
    check_golden(GOLDENS / f"{name}.yaml", yaml.safe_dump(result.pod, sort_keys=False))


def test_the_proxy_comes_first_and_the_app_stays_default():
    meshed = injected(pod()).pod
    assert names(meshed["spec"]["containers"]) == ["linkerd-proxy", "app"]
    assert names(meshed["spec"]["initContainers"]) == ["linkerd-init"]
    assert meshed["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "app"


def test_a_pod_that_ends_gets_a_native_sidecar():
    meshed = injected(pod(restartPolicy="OnFailure"), owner=Owner("CronJob", "nightly")).pod
    assert names(meshed["spec"]["containers"]) == ["app"]
    assert names(meshed["spec"]["initContainers"]) == ["linkerd-init", "linkerd-proxy"]
    assert meshed["spec"]["initContainers"][1]["restartPolicy"] == "Always"


def test_own_init_containers_run_after_the_redirection():
    meshed = injected(pod(initContainers=[{"name": "migrate", "image": "m"}])).pod
    assert names(meshed["spec"]["initContainers"]) == ["linkerd-init", "migrate"]


@pytest.mark.parametrize(
    ("given", "namespace", "reason"),
    [
        (pod(), {}, Reason.NOT_ASKED),
        (pod({"linkerd.io/inject": "disabled"}), ENABLED, Reason.DISABLED),
        (pod(), {"linkerd.io/inject": "disabled"}, Reason.NAMESPACE_DISABLED),
        (pod({"linkerd.io/inject": "yes"}), {}, Reason.UNKNOWN_ANNOTATION),
        (pod(hostNetwork=True), ENABLED, Reason.HOST_NETWORK),
        (pod(initContainers=[{"name": "linkerd-proxy", "image": "x"}]), ENABLED, Reason.SIDECAR),
    ],
)
def test_a_pod_that_is_left_alone(given, namespace, reason):
    result = injected(given, namespace)
    assert (result.reason, result.pod) == (reason, given)


def test_a_pod_wins_over_its_namespace():
    assert injected(pod(ENABLED), {"linkerd.io/inject": "disabled"}).injected


def test_configuration_of_the_namespace_is_taken_over():
    meshed = injected(pod(), ENABLED | {"config.linkerd.io/proxy-log-level": "debug"}).pod
    assert meshed["metadata"]["annotations"]["config.linkerd.io/proxy-log-level"] == "debug"
    assert env(meshed)["LOG"].startswith("debug,")


def test_tap_is_on_unless_somebody_says_no():
    meshed = injected(pod()).pod
    tap = "tap.linkerd-viz.serviceaccount.identity.linkerd.cluster.local"
    assert env(meshed)["TAP_SVC_NAME"] == tap
    assert meshed["metadata"]["annotations"]["viz.linkerd.io/tap-enabled"] == "true"
    quiet = injected(pod(), ENABLED | {"viz.linkerd.io/disable-tap": "true"}).pod
    assert "TAP_SVC_NAME" not in env(quiet)
    assert "viz.linkerd.io/tap-enabled" not in quiet["metadata"]["annotations"]


def test_control_plane_proxies_reach_their_own_container_over_loopback():
    variables = env(injected(pod(), {}, component="identity").pod)
    assert variables["IDENTITY_SVC_ADDR"] == "localhost.:8080"
    assert variables["IDENTITY_TRUST_ANCHORS"]["configMapKeyRef"]["name"] == "linkerd-identity-trust-roots"
    assert variables["DESTINATION_SVC_ADDR"] == "linkerd-dst-headless.linkerd.svc.cluster.local.:8086"


def test_variables_are_defined_before_they_are_used():
    proxy = injected(pod()).pod["spec"]["containers"][0]
    seen = set()
    for variable in proxy["env"]:
        used = {part.partition(")")[0] for part in variable.get("value", "").split("$(")[1:]}
        assert used <= seen, variable["name"]
        seen.add(variable["name"])


def test_additional_variables_replace_those_of_the_same_name():
    extra = '[{"name": "LINKERD2_PROXY_LOG_FORMAT", "value": "json"}, {"name": "MORE", "value": "1"}]'
    variables = env(injected(pod({"config.linkerd.io/proxy-additional-env": extra})).pod)
    assert (variables["LOG_FORMAT"], variables["MORE"]) == ("json", "1")


def test_ports_of_probes_count_as_inbound():
    spec = pod()["spec"]
    spec["containers"][0]["livenessProbe"] = {"httpGet": {"port": 9000}}
    spec["containers"][0]["ports"].append({"containerPort": 53, "protocol": "UDP"})
    assert inbound_ports(spec) == [8080, 9000]


def opaque(obj):
    return obj["metadata"].get("annotations", {}).get("config.linkerd.io/opaque-ports")


def test_exposed_ports_of_the_default_list_become_opaque():
    given = pod()
    given["spec"]["containers"][0]["ports"] = [{"containerPort": 3306}, {"containerPort": 8080}]
    assert opaque(injected(given).pod) == "3306"
    assert opaque(injected(given, {}).pod) == "3306", "unmeshed pods say it too"


def test_a_service_takes_the_opaque_ports_of_its_namespace():
    service = {"metadata": {}, "spec": {"ports": [{"port": 6379, "targetPort": 1}]}}
    assert opaque(with_opaque_ports(service, {}, SETTINGS)) == "6379"
    assert opaque(with_opaque_ports(service, {"config.linkerd.io/opaque-ports": "9"}, SETTINGS)) == "9"
    own = {"metadata": {"annotations": {"config.linkerd.io/opaque-ports": ""}}, "spec": service["spec"]}
    assert opaque(with_opaque_ports(own, {}, SETTINGS)) == ""


def test_the_given_pod_stays_as_it_is():
    given = pod()
    before = copy.deepcopy(given)
    assert inject(given, "ns", {"linkerd.io/inject": "enabled"}, Owner(), SETTINGS).injected
    assert given == before
