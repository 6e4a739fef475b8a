"""What an older version left behind."""

from __future__ import annotations

from linkerd.cli.removal import stale


def obj(kind, name, namespace=None, version="v1"):
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def test_what_is_no_longer_rendered_is_stale():
    kept, gone = obj("Service", "web", "linkerd"), obj("Service", "old", "linkerd")
    assert stale([kept, gone], [kept]) == [gone]


def test_another_version_of_the_same_object_is_not():
    old = obj("Server", "s", "linkerd", "policy.linkerd.io/v1beta1")
    assert stale([old], [obj("Server", "s", "linkerd", "policy.linkerd.io/v1beta3")]) == []


def test_the_same_name_in_another_namespace_or_group_is():
    found = [obj("HTTPRoute", "r", "a", "policy.linkerd.io/v1beta3"), obj("Role", "r", "b")]
    rendered = [obj("HTTPRoute", "r", "a", "gateway.networking.k8s.io/v1"), obj("Role", "r", "a")]
    assert stale(found, rendered) == found
