"""`linkerd inject` and `linkerd uninject` on single objects."""

from __future__ import annotations

from linkerd.injector.inject import Reason
from linkerd.injector.manifests import Change, annotated, meshed, transformed, unmeshed
from linkerd.injector.settings import settings_from_values

SETTINGS = settings_from_values({}, "linkerd", "PEM")


def deployment(**spec):
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app"}], **spec}}
    return {"kind": "Deployment", "metadata": {"name": "web", "namespace": "ns"}, "spec": {"template": template}}


def annotations(document):
    return document["spec"]["template"]["metadata"]["annotations"]


def test_a_workload_is_annotated_in_its_template():
    outcome = annotated(deployment(), "enabled", {"config.linkerd.io/admin-port": "9"})
    assert outcome.change == Change.ANNOTATED
    assert annotations(outcome.document) == {"linkerd.io/inject": "enabled", "config.linkerd.io/admin-port": "9"}


def test_a_cron_job_is_annotated_in_its_jobs_template():
    document = {"kind": "CronJob", "metadata": {}, "spec": {"jobTemplate": {"spec": deployment()["spec"]}}}
    changed = annotated(document, "enabled", {}).document["spec"]["jobTemplate"]["spec"]["template"]
    assert changed["metadata"]["annotations"] == {"linkerd.io/inject": "enabled"}


def test_a_workload_on_the_host_network_is_left_alone():
    outcome = annotated(deployment(hostNetwork=True), "enabled", {})
    assert (outcome.change, outcome.problem) == (Change.SKIPPED, Reason.HOST_NETWORK)


def test_a_service_is_annotated_with_opaque_ports_only():
    service = {"kind": "Service", "metadata": {"name": "db"}, "spec": {}}
    assert annotated(service, "enabled", {"config.linkerd.io/admin-port": "9"}).change == Change.SKIPPED
    assert annotated(service, "enabled", {"config.linkerd.io/opaque-ports": "9"}).change == Change.ANNOTATED


def test_uninject_takes_back_what_inject_put_in():
    outcome = meshed(deployment(), "enabled", {}, SETTINGS, "linkerd/cli")
    assert outcome.change == Change.INJECTED
    bare = unmeshed(outcome.document)
    assert (bare.change, bare.document) == (Change.UNINJECTED, deployment())


def test_uninject_does_not_touch_the_control_plane():
    document = deployment()
    document["spec"]["template"]["metadata"]["labels"]["linkerd.io/control-plane-component"] = "identity"
    assert unmeshed(document).document == document


def test_the_items_of_a_list_are_changed_one_by_one():
    document = {"kind": "List", "items": [deployment(), {"kind": "ConfigMap", "metadata": {"name": "c"}}]}
    whole, first, second = transformed(document, lambda item: annotated(item, "enabled", {}))
    assert [item["kind"] for item in whole.document["items"]] == ["Deployment", "ConfigMap"]
    assert (first.change, second.change) == (Change.ANNOTATED, Change.SKIPPED)
