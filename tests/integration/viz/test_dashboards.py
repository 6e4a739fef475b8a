"""The Grafana dashboards: every query of theirs, asked of the real Prometheus, finds the series that proxies have."""

from __future__ import annotations

import json
import time

import pytest
from linkerd.install.monitoring import alert_rules, dashboards
from linkerd.viz.metrics.prometheus import Prometheus
from support.scraped import PROGRAM, Proxies, Scraped, running_prometheus, serving

PODS = {
    "web-1": {"namespace": "shop", "deployment": "web"},
    "identity-1": {"namespace": "linkerd", "job": "linkerd-controller", "component": "identity"},
}
VARIABLES = {"$namespace": ".*", "$deployment": ".*", "$__rate_interval": "5s"}
INBOUND = {"direction": "inbound", "route_kind": "default", "route_name": "default"}
OUTBOUND = {"direction": "outbound", "dst_namespace": "shop", "dst_service": "api"}
PROFILE = {"direction": "outbound", "dst": "api.shop.svc.cluster.local:8080", "rt_route": "GET /"}
QUERIES = [
    (f"{name}: {panel['title']}", target["expr"])
    for name, text in dashboards().items()
    for panel in json.loads(text)["panels"]
    for target in panel["targets"]
]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built (`make build`)")
    proxies = Proxies()
    for pod in PODS:
        proxies.start(pod, time.time() - 3600)
    _count("web-1", proxies)
    directory = tmp_path_factory.mktemp("prometheus")
    with serving(proxies) as port, running_prometheus(directory, port, PODS, rules=alert_rules()) as url:
        yield proxies, url


def _count(pod: str, proxies: Proxies) -> None:
    """A little of everything that a proxy and the control plane expose."""
    for labels in (INBOUND, OUTBOUND):
        proxies.answer(pod, success=9, failure=1, **labels)
        proxies.observe(pod, [5.0] * 10, **labels)
    for metric in ("route_response_total", "route_actual_response_total"):
        proxies.add(pod, metric, 9, classification="success", **PROFILE)
    proxies.add(pod, "route_response_latency_ms_bucket", 9, le="+Inf", **PROFILE)
    proxies.add(pod, "inbound_http_authz_deny_total", 1, srv_name="web")
    proxies.add(pod, "tcp_open_connections", 2, direction="inbound", peer="src")
    proxies.add(pod, "proxy_metrics_overflow_total", 1, family="response_total")
    for metric in ("process_cpu_seconds_total", "process_resident_memory_bytes"):
        proxies.add(pod, metric, 1)
    proxies.add(pod, "control_identity_cert_expiration_timestamp_seconds", time.time() + 3600)
    proxies.add("identity-1", "process_cpu_seconds_total", 1)
    for metric in ("issuer_cert_ttl_seconds", "destination_streams", "policy_streams"):
        proxies.add("identity-1", metric, 1)
    for meshed in ("true", "false"):
        proxies.add("identity-1", "viz_pods", 1, of_namespace="shop", meshed=meshed)


@pytest.mark.parametrize(("where", "query"), QUERIES, ids=[f"{where} {n}" for n, (where, _) in enumerate(QUERIES)])
async def test_a_panels_query_finds_something(prometheus, where, query):
    proxies, url = prometheus
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query, where
    async with Prometheus(url) as client:
        await Scraped(proxies, client, url).until(query)  # rates need a second scrape, rules an evaluation


def test_dashboards_can_be_told_apart():
    found = [json.loads(text) for text in dashboards().values()]
    assert len({dashboard["uid"] for dashboard in found}) == len(found)
    assert all(len({p["id"] for p in d["panels"]}) == len(d["panels"]) for d in found)
