"""Which containers of the control plane have metrics."""

from __future__ import annotations

from linkerd.cli.commands.diagnostics.controller_metrics import Container, containers


def container(name, *ports):
    return {"name": name, "ports": [{"name": port, "containerPort": number} for port, number in ports]}


def test_every_container_with_an_admin_port_by_pod_and_name():
    destination = [
        container("policy", ("policy-grpc", 8090), ("policy-admin", 9990)),
        container("linkerd-proxy", ("linkerd-admin", 4191), ("linkerd-proxy", 4143)),
        container("bare"),
    ]
    pods = [
        {"metadata": {"name": "linkerd-identity-1"}, "spec": {"containers": [container("identity", ("admin", 9990))]}},
        {"metadata": {"name": "linkerd-destination-1"}, "spec": {"containers": destination}},
    ]
    assert list(containers(pods)) == [
        Container("linkerd-destination-1", "linkerd-proxy", 4191),
        Container("linkerd-destination-1", "policy", 9990),
        Container("linkerd-identity-1", "identity", 9990),
    ]
