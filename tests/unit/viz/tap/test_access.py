import pytest
from linkerd.core import kinds
from linkerd.core.kinds import Target
from linkerd.viz.tap.access import (
    FrontProxy,
    NotTheFrontProxy,
    User,
    access_review,
    certificate_names,
    front_proxy_from,
)
from multidict import CIMultiDict, CIMultiDictProxy


def headers(*pairs):
    return CIMultiDictProxy(CIMultiDict(pairs))


def test_user_groups_and_extras_come_from_headers():
    found = FrontProxy().user(
        headers(
            ("X-Remote-User", "ada"),
            ("X-Remote-Group", "devs"),
            ("X-Remote-Group", "ops"),
            ("X-Remote-Extra-Scopes%2fA", "read"),
        )
    )
    assert found == User("ada", ("devs", "ops"), {"scopes/a": ("read",)})


def test_nobody_is_not_a_user():
    with pytest.raises(NotTheFrontProxy, match="names no user"):
        FrontProxy().user(headers(("X-Remote-Group", "devs")))


@pytest.mark.parametrize(
    ("allowed", "names", "passes"),
    [((), ["x"], True), (("a",), ["b", "a"], True), (("a",), ["b"], False), ((), [], False)],
)
def test_the_certificate_must_be_the_front_proxys(allowed, names, passes):
    front = FrontProxy(allowed_names=allowed)
    if passes:
        front.check_certificate(names)
    else:
        with pytest.raises(NotTheFrontProxy):
            front.check_certificate(names)


def test_names_are_the_common_name_and_the_alternatives():
    certificate = {
        "subject": ((("organizationName", "k8s"),), (("commonName", "cn"),)),
        "subjectAltName": (("DNS", "a"),),
    }
    assert certificate_names(certificate) == ["cn", "a"]
    assert certificate_names(None) == []


def test_a_cluster_without_aggregation_is_named():
    with pytest.raises(ValueError, match="requestheader-client-ca-file"):
        front_proxy_from({"data": {"client-ca-file": "x"}})


@pytest.mark.parametrize(
    ("target", "resource", "namespace"),
    [
        (Target(kinds.DEPLOYMENT, "web", "shop"), "deployments", "shop"),
        (Target(kinds.NAMESPACE, "shop"), "namespaces", "shop"),
    ],
)
def test_the_right_asked_for_is_to_watch_the_tap_of_the_target(target, resource, namespace):
    attributes = access_review(User("ada"), target)["spec"]["resourceAttributes"]
    assert (attributes["verb"], attributes["subresource"]) == ("watch", "tap")
    assert (attributes["resource"], attributes["namespace"], attributes["name"]) == (resource, namespace, target.name)
