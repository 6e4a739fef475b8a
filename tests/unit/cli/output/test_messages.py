from linkerd.cli.output.messages import go_struct
from linkerd.proto import destination_pb2


def test_a_message_is_gos_struct():
    profile = destination_pb2.DestinationProfile(fully_qualified_name="web.shop.svc.cluster.local")
    profile.retry_budget.ttl.seconds = 10
    route = profile.routes.add()
    route.condition.path.regex = "/a"
    route.metrics_labels["route"] = "GET /a"
    profile.endpoint.addr.ip.ipv4 = 167772161
    assert go_struct(profile) == {
        "fully_qualified_name": "web.shop.svc.cluster.local",
        "retry_budget": {"ttl": {"seconds": 10}},
        "routes": [
            {"condition": {"Match": {"Path": {"regex": "/a"}}}, "metrics_labels": {"route": "GET /a"}},
        ],
        "endpoint": {"addr": {"ip": {"Ip": {"Ipv4": 167772161}}}},
    }
