import ipaddress

from linkerd.cli.commands.diagnostics.endpoints import EndpointState, render
from linkerd.proto import destination_pb2, net_pb2


def address(ip: str, port: int = 8080) -> net_pb2.TcpAddress:
    return net_pb2.TcpAddress(ip=net_pb2.IPAddress(ipv4=int(ipaddress.IPv4Address(ip))), port=port)


def add(*pods: tuple[str, str]) -> destination_pb2.Update:
    update = destination_pb2.Update()
    update.add.metric_labels.update({"service": "web", "namespace": "shop"})
    for ip, pod in pods:
        update.add.addrs.add(addr=address(ip), weight=10000).metric_labels["pod"] = pod
    return update


def remove(ip: str) -> destination_pb2.Update:
    update = destination_pb2.Update()
    update.remove.addrs.append(address(ip))
    return update


def test_updates_are_applied_as_a_proxy_does():
    state = EndpointState()
    for update in (add(("10.0.0.1", "web-1"), ("10.0.0.2", "web-2")), add(("10.0.0.2", "web-3")), remove("10.0.0.1")):
        state.apply(update)
    assert [(e.ip, e.pod, e.service) for e in state.endpoints()] == [("10.0.0.2", "web-3", "web.shop")]


def test_no_endpoints_clears():
    state = EndpointState()
    state.apply(add(("10.0.0.1", "web-1")))
    state.apply(destination_pb2.Update(no_endpoints=destination_pb2.NoEndpoints(exists=True)))
    assert state.endpoints() == []


def test_the_guides_columns_come_first():
    state = EndpointState()
    state.apply(add(("10.0.0.15", "web-abc123")))
    assert render(state.endpoints()) == (
        "NAMESPACE   IP          PORT   POD          SERVICE\nshop        10.0.0.15   8080   web-abc123   web.shop\n"
    )
