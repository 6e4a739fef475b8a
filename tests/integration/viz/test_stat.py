"""`StatSummary` over a real Prometheus: what the proxies counted is what comes out."""

from __future__ import annotations

import time

import pytest
from linkerd.proto import viz_pb2 as pb

WINDOW = "2s"


def request(namespace: str, kind: str = "deployment", name: str = "", **more) -> pb.StatSummaryRequest:
    resource = pb.Resource(namespace=namespace, type=kind, name=name)
    options = {"time_window": WINDOW, "tcp_stats": True} | more
    return pb.StatSummaryRequest(selector=pb.ResourceSelection(resource=resource), **options)


async def stat(viz, **more) -> dict[str, pb.StatTable.PodGroup.Row]:
    response = await viz.api.StatSummary(request(viz.namespace, **more))
    assert response.WhichOneof("response") == "ok", response.error.error
    return {row.resource.name: row for table in response.ok.stat_tables for row in table.pod_group.rows}


async def test_counts_a_burst_that_fell_between_two_scrapes(viz, scraped):
    await scraped.watched_for(WINDOW)
    scraped.proxies.answer("web-1", success=90, failure=10)
    scraped.proxies.answer("web-2", success=7)
    await scraped.now()
    row = (await stat(viz))["web"]
    assert (row.stats.success_count, row.stats.failure_count) == (97, 10)


async def test_leaves_out_what_was_before_the_window(viz, scraped):
    scraped.proxies.answer("web-1", success=1000)
    await scraped.now()
    await scraped.watched_for("3s")
    assert not (await stat(viz))["web"].HasField("stats")
    scraped.proxies.answer("web-1", success=5)
    await scraped.now()
    assert (await stat(viz))["web"].stats.success_count == 5


async def test_probes_of_the_node_are_no_traffic_but_a_route_of_that_name_is(viz, scraped):
    await scraped.watched_for(WINDOW)
    scraped.proxies.answer("web-1", success=8, route_kind="default", route_name="default")
    scraped.proxies.answer("web-1", failure=30, route_kind="default", route_name="probe")
    scraped.proxies.answer("web-1", success=2, route_kind="httproute", route_name="probe")
    await scraped.now()
    row = (await stat(viz))["web"]
    assert (row.stats.success_count, row.stats.failure_count) == (10, 0)


async def test_a_prometheus_that_just_started_does_not_take_the_past_for_the_present(viz, scraped):
    scraped.proxies.answer("api-1", success=1_000_000)
    await scraped.now()
    assert not (await stat(viz, time_window="1h"))["api"].HasField("stats")


async def test_counts_on_over_a_restart_of_the_proxy(viz, scraped):
    scraped.proxies.answer("web-1", success=500)
    await scraped.now()
    await scraped.watched_for(WINDOW)
    scraped.proxies.start("web-1", time.time())
    scraped.proxies.answer("web-1", success=20)
    await scraped.now()
    assert 20 <= (await stat(viz))["web"].stats.success_count <= 22


async def test_percentiles_are_those_of_the_buckets(viz, scraped):
    await scraped.watched_for(WINDOW)
    scraped.proxies.answer("web-1", success=100)
    scraped.proxies.observe("web-1", [5.0] * 50 + [90.0] * 45 + [450.0] * 5)
    await scraped.now()
    stats = (await stat(viz))["web"].stats
    assert (stats.latency_ms_p50, stats.latency_ms_p95, stats.latency_ms_p99) == (5, 100, 480)


async def test_meshed_pods_are_counted_out_of_running_ones(viz):
    rows = await stat(viz)
    counts = {name: (row.meshed_pod_count, row.running_pod_count) for name, row in rows.items()}
    assert counts == {"web": (2, 2), "api": (1, 1), "plain": (0, 1)}


async def test_to_a_service_shows_the_sources(viz, scraped):
    outbound = {"direction": "outbound", "dst_namespace": viz.namespace, "tls": "true"}
    await scraped.watched_for(WINDOW)
    scraped.proxies.answer("web-1", success=30, dst_service="api", dst_deployment="api", **outbound)
    scraped.proxies.answer("web-1", success=4, dst_service="other", dst_deployment="other", **outbound)
    await scraped.now()
    rows = await stat(viz, to_resource=pb.Resource(namespace=viz.namespace, type="service", name="api"))
    assert {name: row.stats.success_count for name, row in rows.items()} == {"web": 30}
    assert rows["web"].meshed_pod_count == 2


async def test_from_a_namespace_shows_the_destinations(viz, scraped):
    outbound = {"direction": "outbound", "dst_namespace": viz.namespace}
    await scraped.watched_for(WINDOW)
    scraped.proxies.answer("web-1", success=30, dst_deployment="api", **outbound)
    await scraped.now()
    rows = await stat(viz, from_resource=pb.Resource(type="namespace", name=viz.namespace))
    assert {name: row.stats.success_count for name, row in rows.items()} == {"api": 30}


async def test_services_are_shown_as_their_clients_see_them(viz, scraped):
    authority = f"api.{viz.namespace}.svc.cluster.local:8080"
    labels = {"direction": "outbound", "authority": authority, "dst_service": "api", "dst_namespace": viz.namespace}
    await scraped.watched_for(WINDOW)
    scraped.proxies.answer("web-1", success=12, failure=4, **labels)
    await scraped.now()
    row = (await stat(viz, kind="service", name="api"))["api"]
    assert (row.stats.success_count, row.stats.failure_count) == (12, 4)


async def test_connections_are_those_of_the_far_side(viz, scraped):
    await scraped.watched_for(WINDOW)
    for peer, count in (("src", 3), ("dst", 8)):
        scraped.proxies.add("api-1", "tcp_open_connections", count, direction="inbound", peer=peer)
        scraped.proxies.add("api-1", "tcp_read_bytes_total", count * 100, direction="inbound", peer=peer)
    await scraped.now()
    tcp = (await stat(viz))["api"].tcp_stats
    assert (tcp.open_connections, tcp.read_bytes_total) == (3, 300)


async def test_all_kinds_at_once(viz, scraped):
    await scraped.watched_for(WINDOW)
    scraped.proxies.answer("web-1", success=3)
    await scraped.now()
    response = await viz.api.StatSummary(request(viz.namespace, kind="all"))
    rows = [row for table in response.ok.stat_tables for row in table.pod_group.rows]
    found = {(row.resource.type, row.resource.name): row.stats.success_count for row in rows}
    assert found["deployment", "web"] == found["pod", "web-1"] == 3


async def test_pods_by_label(viz):
    resource = pb.Resource(namespace=viz.namespace, type="pod")
    selector = pb.ResourceSelection(resource=resource, label_selector="app=web")
    response = await viz.api.StatSummary(pb.StatSummaryRequest(selector=selector, time_window=WINDOW))
    rows = response.ok.stat_tables[0].pod_group.rows
    assert [(row.resource.name, row.status) for row in rows] == [("web-1", "Running"), ("web-2", "Running")]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"time_window": "300ms"}, "invalid time window: 300ms is shorter than two scrape intervals"),
        ({"time_window": "soon"}, "invalid time window: not a valid duration"),
        ({"kind": "nonsense"}, "invalid resource type"),
        ({"kind": "server", "to_resource": pb.Resource(type="deployment")}, "'to' queries are not supported"),
    ],
)
async def test_refuses_what_cannot_be_answered(viz, more, message):
    response = await viz.api.StatSummary(request(viz.namespace, **more))
    assert message in response.error.error


async def test_the_refused_window_names_the_smallest(viz):
    response = await viz.api.StatSummary(request(viz.namespace, time_window="300ms"))
    assert response.error.error.endswith("the smallest is 400ms")
