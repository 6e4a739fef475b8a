"""Routes, edges, splits and pods over a real Prometheus."""

from __future__ import annotations

from linkerd.k8s.resources import SERVICE_PROFILES, SERVICES, TRAFFIC_SPLITS
from linkerd.proto import viz_pb2 as pb

WINDOW = "2s"


def resource(viz, kind: str, name: str = "") -> pb.Resource:
    return pb.Resource(namespace=viz.namespace, type=kind, name=name)


async def create_service(viz, name: str, routes: tuple[str, ...] = ()) -> str:
    """With a ServiceProfile of these routes, if any; gives its authority."""
    ports = [{"port": 8080}]
    await viz.client.create(
        SERVICES, {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": ports}}, viz.namespace
    )
    fqdn = f"{name}.{viz.namespace}.svc.cluster.local"
    if routes:
        spec = {"routes": [{"name": route, "condition": {"pathRegex": "/.*"}} for route in routes]}
        await viz.client.create(SERVICE_PROFILES, {"metadata": {"name": fqdn}, "spec": spec}, viz.namespace)
    return f"{fqdn}:8080"


async def test_routes_are_those_of_the_profile_and_the_rest(viz, scraped):
    dst = await create_service(viz, "web", ("GET /a", "GET /b"))
    await scraped.watched_for(WINDOW)
    labels = {"direction": "inbound", "dst": dst, "classification": "success"}
    scraped.proxies.add("web-1", "route_response_total", 30, rt_route="GET /a", **labels)
    scraped.proxies.add("web-2", "route_response_total", 5, **labels)
    await scraped.now()
    request = pb.TopRoutesRequest(
        selector=pb.ResourceSelection(resource=resource(viz, "deployment", "web")), time_window=WINDOW
    )
    (table,) = (await viz.api.TopRoutes(request)).ok.routes
    found = {(row.route, row.authority): row.stats.success_count for row in table.rows}
    assert found == {("GET /a", "web"): 30, ("GET /b", "web"): 0, ("[DEFAULT]", "web"): 5}


async def test_routes_towards_a_service_tell_effective_from_actual(viz, scraped):
    dst = await create_service(viz, "api", ("GET /a",))
    await scraped.watched_for(WINDOW)
    labels = {"direction": "outbound", "dst": dst, "rt_route": "GET /a"}
    scraped.proxies.add("web-1", "route_response_total", 10, classification="success", **labels)
    scraped.proxies.add("web-1", "route_actual_response_total", 10, classification="success", **labels)
    scraped.proxies.add("web-1", "route_actual_response_total", 5, classification="failure", **labels)
    await scraped.now()
    request = pb.TopRoutesRequest(
        selector=pb.ResourceSelection(resource=resource(viz, "deployment", "web")),
        time_window=WINDOW,
        to_resource=resource(viz, "service", "api"),
    )
    (table,) = (await viz.api.TopRoutes(request)).ok.routes
    stats = {row.route: row.stats for row in table.rows}["GET /a"]
    assert (stats.success_count, stats.failure_count) == (10, 0)
    assert (stats.actual_success_count, stats.actual_failure_count) == (10, 5)


async def test_edges_name_both_ends_and_why_one_is_not_secured(viz, scraped):
    labels = {"direction": "outbound", "peer": "dst", "dst_namespace": viz.namespace}
    server = "api.shop.serviceaccount.identity.linkerd.cluster.local"
    scraped.proxies.add("web-1", "tcp_open_connections", 2, dst_deployment="api", server_id=server, **labels)
    scraped.proxies.add("web-1", "tcp_open_connections", 1, dst_deployment="plain", no_tls_reason="ingress_x", **labels)
    scraped.proxies.add("web-2", "tcp_open_connections", 0, dst_deployment="gone", **labels)
    await scraped.now()
    response = await viz.api.Edges(pb.EdgesRequest(selector=pb.ResourceSelection(resource=resource(viz, "deployment"))))
    edges = {(edge.src.name, edge.dst.name): (edge.server_id, edge.no_identity_msg) for edge in response.ok.edges}
    assert edges == {("web", "api"): (server, ""), ("web", "plain"): ("", "Ingress x")}


async def test_a_split_shows_each_leafs_share_of_the_apexs_traffic(viz, scraped):
    backends = [{"service": "api-stable", "weight": 900}, {"service": "api-canary", "weight": 100}]
    split = {"metadata": {"name": "api-split"}, "spec": {"service": "api", "backends": backends}}
    await viz.client.create(TRAFFIC_SPLITS, split, viz.namespace)
    await scraped.watched_for(WINDOW)
    authority = f"api.{viz.namespace}.svc.cluster.local:8080"
    labels = {"direction": "outbound", "authority": authority, "dst_namespace": viz.namespace}
    scraped.proxies.answer("web-1", success=90, dst_service="api-stable", **labels)
    scraped.proxies.answer("web-2", success=8, failure=2, dst_service="api-canary", **labels)
    await scraped.now()
    request = pb.StatSummaryRequest(
        selector=pb.ResourceSelection(resource=resource(viz, "trafficsplit", "api-split")), time_window=WINDOW
    )
    rows = (await viz.api.StatSummary(request)).ok.stat_tables[0].pod_group.rows
    found = {row.ts_stats.leaf: (row.stats.success_count, row.stats.failure_count, row.ts_stats.weight) for row in rows}
    assert found == {"api-stable": (90, 0, "900"), "api-canary": (8, 2, "100")}


async def test_pods_are_listed_with_what_prometheus_knows(viz, scraped):
    await scraped.now()
    response = await viz.api.ListPods(
        pb.ListPodsRequest(selector=pb.ResourceSelection(resource=pb.Resource(namespace=viz.namespace)))
    )
    pods = {pod.name.partition("/")[2]: pod for pod in response.pods}
    assert {name: pod.added for name, pod in pods.items()} == {
        "web-1": True, "web-2": True, "api-1": True, "plain-1": False,
    }  # fmt: skip
    assert pods["web-1"].deployment == f"{viz.namespace}/web"
    assert pods["web-1"].controllerNamespace == "linkerd"
    assert 3600 <= pods["web-1"].uptime.seconds < 3700


async def test_the_self_check_names_what_it_reached(viz):
    response = await viz.api.SelfCheck(pb.SelfCheckRequest())
    assert {result.SubsystemName: result.Status for result in response.results} == {"kubernetes": 0, "prometheus": 0}
