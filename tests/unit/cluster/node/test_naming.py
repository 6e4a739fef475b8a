from __future__ import annotations

from typing import Any

import pytest
from linkerd.cluster.node.naming import full_name, hostname, hosts_file, parse_resolv_conf, resolv_conf

HOST = "nameserver 1.1.1.1\nsearch lan\noptions timeout:1 edns0\n# comment\n"


def pod(name: str = "web-1", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def conf(**spec: Any) -> str:
    return resolv_conf(pod(**spec), HOST, "10.96.0.10", "cluster.local")


def test_cluster_first_is_the_default() -> None:
    assert conf() == (
        "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    )


def test_a_pod_in_the_nodes_network_sees_the_nodes_names() -> None:
    assert conf(hostNetwork=True) == conf(dnsPolicy="Default")
    assert "10.96.0.10" in conf(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet")


def test_default_is_the_machines_own() -> None:
    assert conf(dnsPolicy="Default") == "search lan\nnameserver 1.1.1.1\noptions timeout:1 edns0\n"


def test_dns_config_adds_and_overrides() -> None:
    config = {"nameservers": ["9.9.9.9"], "searches": ["x.y"], "options": [{"name": "ndots", "value": "1"}]}
    text = conf(dnsConfig=config)
    assert "cluster.local x.y\n" in text
    assert text.endswith("nameserver 10.96.0.10\nnameserver 9.9.9.9\noptions ndots:1\n")


def test_policy_none_is_only_the_config() -> None:
    assert conf(dnsPolicy="None", dnsConfig={"nameservers": ["9.9.9.9"]}) == "nameserver 9.9.9.9\n"


def test_a_resolv_conf_is_read() -> None:
    assert parse_resolv_conf(HOST) == (["1.1.1.1"], ["lan"], {"timeout": "1", "edns0": None})


def test_hosts_has_the_pod_and_its_aliases() -> None:
    alias = {"ip": "10.0.0.1", "hostnames": ["a", "b"]}
    lines = hosts_file(pod(hostAliases=[alias]), "10.244.0.7", "cluster.local").splitlines()
    assert "10.244.0.7\tweb-1" in lines
    assert lines[-1] == "10.0.0.1\ta\tb"


def test_a_pod_of_a_headless_service_has_a_full_name() -> None:
    member = pod("db-0", hostname="db-0", subdomain="db")
    assert full_name(member, "cluster.local") == "db-0.db.shop.svc.cluster.local"
    assert "\tdb-0.db.shop.svc.cluster.local\tdb-0\n" in hosts_file(member, "10.244.0.7", "cluster.local")


@pytest.mark.parametrize(("name", "expected"), [("web", "web"), ("x" * 70, "x" * 63), ("y" * 62 + "-z", "y" * 62)])
def test_host_names_fit_the_kernel(name: str, expected: str) -> None:
    assert hostname(pod(name)) == expected
