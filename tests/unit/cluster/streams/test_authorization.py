import pytest
from linkerd.cluster.streams.authorization import (
    Attributes,
    User,
    attributes_of,
    forbidden_message,
    user_from_certificate,
    user_from_review,
)


@pytest.mark.parametrize(
    ("method", "path", "verb", "subresources"),
    [
        ("GET", "/metrics/resource", "get", ("metrics",)),
        ("GET", "/stats/summary", "get", ("stats",)),
        ("GET", "/logs/messages", "get", ("log",)),
        ("GET", "/pods", "get", ("pods", "proxy")),
        ("GET", "/runningpods/", "get", ("pods", "proxy")),
        ("GET", "/healthz", "get", ("healthz", "proxy")),
        ("POST", "/exec/ns/pod/c", "create", ("proxy",)),
        ("GET", "/containerLogs/ns/pod/c", "get", ("proxy",)),
        ("GET", "/metricsx", "get", ("proxy",)),
        ("BREW", "/pods", "", ("pods", "proxy")),
    ],
)
def test_requests_need_the_subresource_that_kubelet_asks_for(method, path, verb, subresources):
    assert attributes_of(method, path) == Attributes(verb, subresources)


def test_a_certificate_names_its_user_and_groups():
    subject = ((("organizationName", "system:masters"),), (("organizationName", "b"),), (("commonName", "admin"),))
    assert user_from_certificate({"subject": subject}) == User("admin", groups=("system:masters", "b"))
    assert user_from_certificate({"subject": ()}) is None
    assert user_from_certificate(None) is None


def test_a_review_gives_a_user_only_when_it_is_one():
    status = {"authenticated": True, "user": {"username": "a", "uid": "1", "groups": ["g"], "extra": {"k": ["v"]}}}
    assert user_from_review(status) == User("a", "1", ("g",), (("k", ("v",)),))
    assert user_from_review({"authenticated": False, "user": {"username": "a"}}) is None


def test_only_masters_and_the_api_server_are_trusted_unasked():
    assert User("x", groups=("system:masters",)).trusted
    assert User("kube-apiserver-kubelet-client").trusted
    assert not User("system:node:node-1", groups=("system:nodes",)).trusted


def test_a_denial_says_what_was_missing():
    message = forbidden_message(User("eve"), Attributes("get", ("pods", "proxy")))
    assert message == "Forbidden (user=eve, verb=get, resource=nodes, subresource(s)=[pods proxy])"
