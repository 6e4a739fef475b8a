"""One whole output of every format of every table (goldens of other verbs lie beside their own tests). What a test of a
detail would miss, a reader of the difference sees."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509 as library
from linkerd.checks.model import Check, Outcome, Report, Result
from linkerd.cli.commands import stat as own_stat
from linkerd.cli.commands.diagnostics import endpoints
from linkerd.cli.commands.viz import authz, edges, routes
from linkerd.cli.commands.viz import list as listing
from linkerd.cli.output import certificate, json, stat, tap, top
from linkerd.cli.output.check import Printer, as_json
from linkerd.core import kinds
from linkerd.kit import x509
from linkerd.proto import viz_pb2 as pb
from linkerd.viz.index import pod_from_object
from linkerd.viz.tap.translate import parse_event
from support.golden import check_golden
from support.tapping import Request

GOLDENS = Path(__file__).parents[1] / "goldens"
NAMES = {
    kinds.AUTHORIZATION_POLICY: "frontend-only",
    kinds.HTTP_ROUTE: "users",
    kinds.NAMESPACE: "shop",
    kinds.POD: "web-5d9c-x2x1z",
    kinds.SERVER: "web-http",
    kinds.SERVICE: "web",
    kinds.TRAFFIC_SPLIT: "web-split",
}


def golden(name: str, text: str) -> None:
    check_golden(GOLDENS / name, text)


def row(kind: kinds.Kind, **more) -> stat.Row:
    own: dict = {"meshed": 2, "running": 3} if kind.pods else {}
    if kind is kinds.POD:
        own = {"meshed": 1, "running": 1, "status": "Running"}
    if kind in (kinds.SERVER, kinds.HTTP_ROUTE):
        own |= {"denied": 6, "server": "web-http"}
    name = "" if kind is kinds.NAMESPACE else "shop"
    numbers = {"traffic": stat.Traffic(998, 2, 3, 25, 250), "tcp": stat.Tcp(4, 6000, 120000)}
    return stat.Row(kind, name, NAMES.get(kind, f"a-{kind.name}"), **own | numbers | more)


def split_rows() -> list[stat.Row]:
    backends = (("web-canary", "100", 98), ("web-stable", "900", 902))
    return [
        row(
            kinds.TRAFFIC_SPLIT,
            apex="web",
            leaf=leaf,
            weight=weight,
            tcp=None,
            traffic=stat.Traffic(count, 0, 3, 9, 20),
        )
        for leaf, weight, count in backends
    ]


ROWS = [
    *(row(kind) for kind in stat.ORDER if kind is not kinds.TRAFFIC_SPLIT),
    *split_rows(),
    row(kinds.DEPLOYMENT, traffic=None, tcp=None),
]


def test_stat():
    golden("stat.txt", stat.tables(ROWS, stat.Layout(60)))
    golden("stat_wide.txt", stat.tables(ROWS, stat.Layout(60, namespaces=True, wide=True)))
    golden("stat.json", json.indented(stat.json_rows(ROWS, 60)))


def test_stat_without_viz():
    report = own_stat.Report(5.0)
    report.rows = [row(kinds.DEPLOYMENT)]
    report.proxies = 2
    report.unmeshed, report.not_ready = ["shop/deploy/old"], ["shop/web-1 (CrashLoopBackOff)"]
    report.unread = ["shop/web-2: no answer in time"]
    golden("own_stat.txt", report.text(False, False))
    golden("own_stat.json", json.indented(report.json()))


def route_row(route: str, success: int, failure: int, actual_failure: int = 0) -> pb.RouteTable.Row:
    found = pb.RouteTable.Row(route=route, authority="web", time_window="1m")
    stats = found.stats
    stats.success_count, stats.failure_count = success, failure
    stats.actual_success_count, stats.actual_failure_count = success, failure + actual_failure
    stats.latency_ms_p50, stats.latency_ms_p95, stats.latency_ms_p99 = 5, 15, 30
    return found


def test_routes():
    rows = [route_row("GET /users/{id}", 590, 10, 120), pb.RouteTable.Row(route="[DEFAULT]", authority="web")]
    golden("routes.txt", routes.render([("deployment/web", rows)], 60, wide=False))
    golden("routes_wide.txt", routes.render([("deployment/web", rows), ("deployment/x", rows[1:])], 60, wide=True))
    golden("routes.json", json.indented({"deployment/web": routes._json_rows(rows, 60, True)}))


def test_edges():
    identity = "default.shop.serviceaccount.identity.linkerd.cluster.local"
    keys = ("src", "src_namespace", "dst", "dst_namespace", "client_id", "server_id", "no_tls_reason")
    found = [
        dict(zip(keys, values, strict=True))
        for values in (
            ("web", "shop", "api", "shop", identity, identity, ""),
            ("web", "shop", "old", "legacy", "", "", "Not Provided By Service Discovery"),
        )
    ]
    golden("edges.txt", edges.render(found, wide=False))
    golden("edges_wide.txt", edges.render(found, wide=True))
    golden("edges.json", json.indented(found))


def authz_rows() -> list[dict[str, str]]:
    allowed = pb.StatTable.PodGroup.Row()
    allowed.stats.success_count, allowed.stats.latency_ms_p99 = 600, 12
    allowed.srv_stats.srv.type, allowed.srv_stats.srv.name = "server", "web-http"
    allowed.srv_stats.authz.type, allowed.srv_stats.authz.name = "authorizationpolicy", "frontend-only"
    denied = pb.StatTable.PodGroup.Row()
    denied.srv_stats.srv.type, denied.srv_stats.srv.name = "default", "deny"
    denied.srv_stats.denied_count = 30
    return [found for one in (allowed, denied) if (found := authz.cells(one, 60)) is not None]


def test_authz():
    golden("authz.txt", authz.render(authz_rows()))
    golden("authz.json", json.indented([authz._json(found) for found in authz_rows()]))


def events() -> list:
    requests = (Request(stream=1, path="/api/users"), Request(stream=2, method="POST", status=503, milliseconds=1500))
    return [parse_event(event.SerializeToString()) for request in requests for event in request.events()]


def test_tap():
    golden("tap.txt", "".join(tap.line(event) + "\n" for event in events()))
    golden("tap_wide.txt", "".join(tap.line(event, wide=True) + "\n" for event in events()))
    values = tap.JsonEvents()
    golden("tap.jsonl", "".join(json.line(values.value(event)) for event in events()))


def test_top():
    counted = top.Top()
    for event in events():
        counted.add(event)
    golden("top.txt", "\n".join(top.table(counted.headings, counted.rows(), counted.right_aligned)) + "\n")


def endpoint(ip: str, pod: str) -> endpoints.Endpoint:
    return endpoints.Endpoint("shop", ip, 8080, pod, "web.shop", 10000, True, {"pod": pod, "zone": "a"})


def test_endpoints():
    found = [endpoint("10.0.0.15", "web-abc123"), endpoint("10.0.0.16", "web-def456")]
    golden("endpoints.txt", endpoints.render(found))
    golden("endpoints.json", json.indented([endpoints._json(one) for one in found]))


def test_list():
    def pod(name: str, **annotations: str):
        keyed = {f"viz.linkerd.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
        return pod_from_object({"metadata": {"name": name, "namespace": "shop", "annotations": keyed}})

    pods = [pod("b", tap_enabled="true"), pod("a", tap_enabled="true"), pod("c", disable_tap="true"), pod("d")]
    golden("list.txt", listing.render(pods) + "\n")
    golden("list.json", json.indented([listing.json_value(one) for one in pods]))


async def nothing() -> None:
    pass


def check_report() -> Report:
    def result(category: str, description: str, outcome: Outcome = Outcome.OK, error: str = "") -> Result:
        return Result(category, Check(description, "l5d-anchor", nothing, "do this"), outcome, error)

    return Report(
        [
            result("kubernetes-api", "can initialize the client"),
            result("kubernetes-api", "can query the Kubernetes API"),
            result("linkerd-identity", "issuer cert is valid for at least 60 days", Outcome.WARNING, "will expire"),
            result("linkerd-data-plane", "data plane proxies are ready", Outcome.FAILED, "two:\n* shop/a\n* shop/b"),
        ]
    )


@pytest.mark.parametrize(("short", "name"), [(False, "check.txt"), (True, "check_short.txt")])
def test_check(capsys, short, name):
    report, printer = check_report(), Printer(short=short)
    for result in report.results:
        printer.add(result)
    printer.end(report.success)
    golden(name, capsys.readouterr().out)


def test_check_as_json():
    golden("check.json", as_json(check_report()))


def test_a_certificate_as_json():
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    root = x509.new_root("identity.linkerd.cluster.local", timedelta(days=9), now=start)
    names = ["default.shop.serviceaccount.identity.linkerd.cluster.local"]
    until = start + timedelta(days=1)
    leaf = x509.new_leaf(root, names, x509.new_key().public_key(), not_before=start, not_after=until, serial=255)
    golden("identity.json", json.indented([certificate.json_value(leaf)]))
    assert library.load_pem_x509_certificate(certificate.pem(leaf).encode()) == leaf
