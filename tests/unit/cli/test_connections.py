"""What the proxies' metrics say of their connections."""

from __future__ import annotations

from linkerd.checks.data_plane import Connections, PlainPair
from linkerd.cli.connections import admin_port, connections_of, meshed_connections
from linkerd.k8s.errors import ApiError

MESHED = 'dst_control_plane_ns="linkerd",dst_namespace="ns",dst_pod="server"'


def series(labels, value=1):
    return f'tcp_open_connections{{direction="outbound",peer="dst",{labels}}} {value}\n'


def test_only_open_outbound_connections_to_meshed_pods_count():
    text = (
        "# HELP tcp_open_connections x\n"
        + series(f'{MESHED},tls="true"', 2)
        + series(f'{MESHED},tls="true"', 0)
        + series('dst_pod="unmeshed",tls="no_identity"')
        + 'tcp_open_connections{direction="inbound",peer="src",tls="true"} 3\n'
        + 'tcp_close_total{direction="outbound"} 1\n'
    )
    assert [count for _, count in meshed_connections(text)] == [2]


def pod(name):
    ports = [{"name": "linkerd-admin", "containerPort": 4999}]
    return {
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"containers": [{"name": "linkerd-proxy", "ports": ports}]},
    }


class Proxies:
    def __init__(self, **texts):
        self.texts = texts

    async def request(self, method, path):
        name = path.split("/pods/")[1].partition(":")[0]
        if name not in self.texts:
            raise ApiError(503, "ServiceUnavailable", "no")
        return self.texts[name]


async def test_plain_pairs_are_named_with_the_reason():
    client = Proxies(
        a=series(f'{MESHED},tls="true"', 3),
        b=series(f'{MESHED},tls="no_identity",no_tls_reason="port_skipped"'),
    )
    found = await connections_of(client, [pod("a"), pod("b"), pod("c")])
    assert found == Connections(3, (PlainPair("ns/b", "ns/server", "port_skipped"),), ("ns/c",))


def test_the_admin_port_is_the_containers():
    assert admin_port(pod("a")) == 4999
    assert admin_port({"spec": {"containers": []}}) == 4191
