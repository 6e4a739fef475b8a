"""Traffic by server, route and backend: from samples to rows and tables."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from linkerd.cli.output import per_route as output
from linkerd.core.kinds import parse_target
from linkerd.viz.metrics.per_route import inbound_queries, inbound_rows, outbound_queries, outbound_rows
from linkerd.viz.metrics.samples import Sample
from support.golden import check_golden

GOLDENS = Path(__file__).parents[2] / "cli" / "goldens"
DEPLOY = parse_target("deploy", "shop")
BUCKETS = {"0.05": 50.0, "0.5": 100.0, "+Inf": 100.0}
ROUTE = {"deployment": "web", "parent_name": "api", "parent_port": "8080", "route_kind": "HTTPRoute", "route_name": "r"}


def inbound(**labels):
    known = {"srv_kind": "server", "srv_name": "web-http", "route_kind": "HTTPRoute", "route_name": "users"}
    return {"deployment": "web", "target_port": "8080"} | known | labels


DEFAULTS = {"srv_kind": "default", "srv_name": "all-unauthenticated", "route_kind": "default", "route_name": "default"}
INBOUND = {
    "requests": [
        Sample(inbound(classification="success"), 90.0),
        Sample(inbound(classification="failure"), 10.0),
        Sample(inbound(**DEFAULTS, classification="success"), 60.0),
        Sample(inbound(route_name="idle", classification="success"), 0.0),
    ],
    "latency": [Sample(inbound(le=le), count) for le, count in (("10", 50.0), ("100", 100.0), ("+Inf", 100.0))],
}


def outbound_answers(**more):
    return {name: [] for name in outbound_queries(DEPLOY, "1m")} | more


def backend(name, **labels):
    return ROUTE | {"backend_name": name, "backend_port": "8080"} | labels


OUTBOUND = outbound_answers(
    http_requests=[
        Sample(ROUTE | {"http_status": "200", "error": ""}, 90.0),
        Sample(ROUTE | {"http_status": "503", "error": ""}, 6.0),
        Sample(ROUTE | {"http_status": "", "error": "REQUEST_TIMEOUT"}, 4.0),
    ],
    http_retries=[Sample(ROUTE, 25.0)],
    http_latency=[Sample(ROUTE | {"le": le}, count) for le, count in BUCKETS.items()],
    http_backend_requests=[
        Sample(backend("api-v1", http_status="200", error=""), 100.0),
        Sample(backend("api-v2", http_status="500", error=""), 25.0),
    ],
)


def test_the_tables_of_inbound_and_outbound():
    check_golden(GOLDENS / "stat_inbound.txt", output.inbound_table(inbound_rows(INBOUND, DEPLOY), 60))
    check_golden(GOLDENS / "stat_outbound.txt", output.outbound_table(outbound_rows(OUTBOUND, DEPLOY), 60))


def test_their_json():
    rows = [output.inbound_json(*row, 60) for row in inbound_rows(INBOUND, DEPLOY)]
    check_golden(GOLDENS / "stat_inbound.json", json.dumps(rows, indent=2) + "\n")
    rows = list(output.outbound_json(outbound_rows(OUTBOUND, DEPLOY), 60))
    check_golden(GOLDENS / "stat_outbound.json", json.dumps(rows, indent=2) + "\n")


def test_failures_timeouts_and_retries_of_a_route():
    counted = outbound_rows(OUTBOUND, DEPLOY)[0][1].counted
    assert (counted.success, counted.failure) == (90, 10)
    assert (counted.timeout_rate, counted.retry_rate) == (0.04, 0.2)
    assert counted.latency(0.5) == pytest.approx(50)


@pytest.mark.parametrize(("status", "success"), [("OK", 1), ("UNAVAILABLE", 0)])
def test_grpc_fails_by_its_own_status(status, success):
    samples = [Sample(ROUTE | {"grpc_status": status, "error": ""}, 1.0)]
    assert outbound_rows(outbound_answers(grpc_requests=samples), DEPLOY)[0][1].counted.success == success


def test_a_row_without_latencies_says_so():
    rows = outbound_rows(outbound_answers(http_requests=OUTBOUND["http_requests"]), DEPLOY)
    assert math.isnan(rows[0][1].counted.latency(0.99))
    assert output.outbound_table(rows, 60).splitlines()[1].split()[-5:-2] == ["-", "-", "-"]


def test_what_is_asked_is_the_workloads_own():
    text = inbound_queries(parse_target("deploy/web", "shop"), "1m")["requests"]
    assert 'response_total{deployment="web", direction="inbound", namespace="shop"}' in text
    of_namespace = inbound_queries(parse_target("ns/shop"), "1m")["requests"]
    assert 'response_total{direction="inbound", namespace="shop"}' in of_namespace
