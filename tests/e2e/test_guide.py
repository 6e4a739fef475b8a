"""The debugging guide on the demo application, word for word: each block is typed as it stands (`guide.md`), and what
comes of it is compared with what is known to be so."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path

import pytest
from support.guide import Section, Shell, Typed, sections
from support.waiting import wait_until

SECTIONS = sections(Path(__file__).with_name("guide.md"))
TYPED: set[str] = set()


@pytest.fixture(scope="module")
def directory(demo, tmp_path_factory):
    """With the OpenAPI document that the guide calls swagger.json."""
    found = tmp_path_factory.mktemp("guide")
    ask = ["wget", "-qO-", "http://api-service:8080/openapi.json"]
    text = demo.kubectl("exec", "-n", "production", "deploy/frontend", "-c", "linkerd-proxy", "--", *ask)
    (found / "swagger.json").write_text(text)
    return found


@pytest.fixture
def shell(demo, directory):
    pod = demo.pods("api-service")[0]["metadata"]["name"]
    words = {"your-namespace": "production", "your-service": "api-service", "your-pod-name": pod, "pod-name": pod}
    return Shell(demo, directory, words)


@pytest.fixture
def fault(demo):
    """`fault(service, …)` as `linkerd-demo fault`; taken back afterwards."""
    broken = []

    def fault(service, *options):
        broken.append(service)
        demo.control("fault", service, *options)

    yield fault
    for service in broken:
        demo.control("fault", service, "--off")


@pytest.fixture
def applied(demo, directory):
    """`applied(section)` applies its manifests; they are deleted afterwards."""
    names = []

    def applied(section):
        for name, text in section.manifests.items():
            (directory / name).write_text(text)
            names.append(directory / f"{name}.applied")
            names[-1].write_text(text)
            demo.kubectl("apply", "-f", str(directory / name))

    yield applied
    for name in names:
        demo.kubectl("delete", "--ignore-not-found", "-f", str(name))


def section(title: str) -> Section:
    TYPED.add(title)
    return SECTIONS[title]


def ended_well(*typed: Typed) -> None:
    for one in typed:
        assert one.code in (0, None), f"{one.command}\n{one.stderr}"
        assert "error: " not in one.stderr, one.stderr


def rows(table: str) -> dict[str, list[str]]:
    """By their first cell; without the heading."""
    return {cells[0]: cells for cells in map(str.split, table.splitlines()[1:]) if cells}


# 1. Prerequisites and setup verification


def test_check(shell):
    (check,) = shell.run(section("Check Linkerd Installation Status"))
    ended_well(check)
    lines = check.stdout.splitlines()
    assert lines[0] == "kubernetes-api"
    assert re.fullmatch(r"can initialize the client\.+\[ok\]", lines[2])
    assert lines[-1] == "Status check results are [ok]"


def test_version(shell):
    (version,) = shell.run(section("Verify Linkerd Version"))
    client, server = (line.partition(": ") for line in version.stdout.splitlines())
    assert (client[0], server[0]) == ("Client version", "Server version")
    assert client[2] == server[2]
    assert re.fullmatch(r"stable-\d+\.\d+\.\d+", client[2])


def test_data_plane_status(shell):
    stat, injected = shell.run(section("Check Data Plane Proxy Status"))
    ended_well(stat, injected)
    assert rows(stat.stdout)["api-service"][1] == "1/1"
    assert injected.stdout == "linkerd-proxy\n"


# 3. Diagnostic commands


def test_overall_health(shell):
    everything, production = shell.run(section("Check Overall Health"))
    ended_well(everything, production)
    for heading in ("linkerd-data-plane", "linkerd-identity", "control-plane-version"):
        assert f"\n{heading}\n" in everything.stdout
    assert production.stdout.endswith("Status check results are [ok]\n")


def test_logs(shell):
    destination, identity, proxy, streamed = shell.run(section("Inspect Control Plane Logs"))
    ended_well(destination, identity, proxy, streamed)
    assert all(one.stdout for one in (destination, identity, proxy))
    assert streamed.code is None, "-f ended by itself"


def test_proxy_configuration(shell, demo):
    endpoints, metrics = shell.run(section("Diagnose Proxy Configuration"))
    ended_well(endpoints, metrics)
    (pod,) = demo.pods("api-service")
    assert endpoints.stdout.splitlines()[0].split()[:4] == ["NAMESPACE", "IP", "PORT", "POD"]
    own = rows(endpoints.stdout)["production"]
    assert own[:4] == ["production", pod["status"]["podIP"], "8080", pod["metadata"]["name"]]
    assert 'response_total{direction="inbound"' in metrics.stdout


def test_dashboard_and_stat(shell):
    """The dashboard has tests of its own."""
    _, stat = section("View Linkerd Dashboard").commands
    found = shell.type(stat)
    ended_well(found)
    assert "api-service" in rows(found.stdout)


# 4. Tap

REQUEST = re.compile(
    r"req id=\d+:\d+ proxy=(?P<proxy>in |out) src=\S+:\d+ dst=\S+:\d+ tls=(?P<tls>\S+) "
    r":method=(?P<method>\S+) :authority=(?P<authority>\S+) :path=(?P<path>\S+)"
)
RESPONSE = re.compile(r"rsp id=\d+:\d+ proxy=(?P<proxy>in |out) .* :status=(?P<status>\d+) latency=[\d.]+ms")


def requests(tap: Typed) -> list[re.Match[str]]:
    return list(REQUEST.finditer(tap.stdout))


def test_tap(shell):
    (tap,) = shell.run(section("Basic Tap Usage"))
    ended_well(tap)
    # The node's probes come without an identity.
    assert {found["tls"] for found in requests(tap) if found["path"] != "/ready"} == {"true"}
    assert {found["proxy"] for found in requests(tap)} == {"in ", "out"}
    assert RESPONSE.search(tap.stdout)


def test_tap_by_path(shell, demo):
    orders, users = section("Filter Traffic by Path").commands
    found = requests(shell.type(orders))
    assert found
    assert all(one["path"].startswith("/api/v1/orders") for one in found)
    ended_well(shell.type(users))  # nobody creates users in the demo, so there may be nothing to see


def test_tap_by_status(shell, fault):
    fault("payment-service", "--error-rate", "1", "--status", "503")
    failing, between = section("Filter by Response Status").commands
    statuses = set(re.findall(r":status=(\d+)", shell.type(failing).stdout))
    assert statuses == {"503"}
    tap = shell.type(between, your_service="frontend")
    ended_well(tap)
    assert {found["authority"].partition(":")[0] for found in requests(tap)} == {"backend-service"}


def test_tap_between_services(shell):
    to, source = section("Tap Traffic Between Specific Services").commands
    to_backend, from_staging = requests(shell.type(to)), requests(shell.type(source))
    assert {(found["proxy"], found["authority"]) for found in to_backend} == {("out", "backend:8080")}
    assert {(found["proxy"], found["authority"]) for found in from_staging} == {("in ", "backend.production:8080")}


def test_tap_as_json(shell, fault):
    everything, slow = section("Output Tap Data as JSON").commands
    events = json_events(shell.type(everything).stdout)
    assert {key for event in events for key in event} >= {"requestInit", "responseInit", "responseEnd"}
    fault("api-service", "--path", "/api/v1/orders", "--latency", "200")
    wait_until(
        lambda: {e["requestInit"]["path"] for e in json_events(shell.type(slow).stdout)} >= {"/api/v1/orders"},
        timeout=60,
        message="the slow path is found",
    )
    found = json_events(shell.type(slow).stdout)
    assert min(event["responseEnd"]["sinceRequestInit"]["nanos"] for event in found) > 100_000_000


def json_events(text: str) -> list[dict]:
    """Of jq on a terminal: coloured, over several lines, the last one perhaps cut."""
    text, found = re.sub(r"\x1b\[[\d;]*m", "", text), []
    decoder, at = json.JSONDecoder(), 0
    while (start := text.find("{", at)) >= 0:
        try:
            value, at = decoder.raw_decode(text, start)
        except json.JSONDecodeError:
            break
        found.append(value)
    return found


# 5. Stat

COLUMNS = ["NAME", "MESHED", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99"]


def test_stat(shell):
    (stat,) = shell.run(section("Basic Stat Commands"))
    ended_well(stat)
    assert stat.stdout.splitlines()[0].split()[:7] == COLUMNS
    assert rows(stat.stdout)["user-service"][1] == "3/3"


def test_stat_with_windows(shell):
    typed = shell.run(section("Stat with Custom Time Window"))
    ended_well(*typed)
    assert all("api-service" in rows(one.stdout) for one in typed)


def test_stat_of_resources(shell, demo):
    one, pods, to, source = shell.run(section("Stat for Specific Resources"))
    ended_well(one, pods, to, source)
    assert list(rows(one.stdout)) == ["order-service"]
    assert set(rows(pods.stdout)) == {pod["metadata"]["name"] for pod in demo.pods("order-service")}
    assert set(rows(to.stdout)) == {"order-service", "user-service"}
    assert set(rows(source.stdout)) == {"api-gateway", "database", "order-service"}


def test_top(shell):
    (top,) = shell.run(section("Identify Traffic Sources (Top Command)"))
    headings = ["Source", "Destination", "Method", "Path", "Count", "Best", "Worst", "Last"]
    tables = [table for table in top.stdout.split("\n\n") if table.strip()]
    assert tables[0].splitlines()[0].split()[:8] == headings
    pods = [cells for cells in map(str.split, tables[-1].splitlines()[1:]) if "." not in cells[0]]
    callers = {cells[0].rsplit("-", 2)[0]: cells[2:4] for cells in pods}
    assert callers == {"frontend": ["GET", "/api/data"], "batch-processor": ["POST", "/api/process"]}


ROUTE = re.compile(
    r"^(?P<route>\[DEFAULT\]|[A-Z]+ \S+) +(?P<service>\S+) +(?P<success>\S+) +(?P<rps>\S+)", re.MULTILINE
)


def routes(table: str) -> dict[str, re.Match[str]]:
    return {found["route"]: found for found in ROUTE.finditer(table) if found["service"] == "api-service"}


def rate(route: re.Match[str]) -> float:
    return 0.0 if route["rps"] == "-" else float(route["rps"].removesuffix("rps"))


def test_routes_of_a_service_without_a_profile(shell):
    (found,) = shell.run(section("Stat Routes (Per-Endpoint Metrics)"))
    ended_well(found)
    assert set(routes(found.stdout)) == {"[DEFAULT]"}


# 6. Profiles


def test_service_profile(shell, applied, directory):
    create = section("Create a Service Profile")
    applied(create)
    again, from_openapi, from_traffic = create.commands
    ended_well(shell.type(again))
    profiles, described, shown = section("Debug Route Configuration").commands
    assert "api-service.production.svc.cluster.local" in shell.type(profiles).stdout
    assert "/api/v1/users/[^/]+" in shell.type(described).stdout

    def told_apart() -> dict[str, re.Match[str]] | None:
        found = routes(shell.type(shown).stdout)
        own = {"GET /api/v1/users", "POST /api/v1/orders"}
        return found if own <= {name for name, route in found.items() if rate(route)} else None

    found = wait_until(told_apart, timeout=90, message="routes have rates of their own")
    assert rate(found["[DEFAULT]"]) > 0, "GET /api/v1/orders/42 is in no route of the profile"

    ended_well(shell.type(from_openapi))
    assert "name: GET /api/v1/orders/{id}" in (directory / "service-profile.yaml").read_text()
    seen = shell.type(from_traffic)
    ended_well(seen)
    assert "name: GET /api/v1/orders/42" in seen.stdout


def test_retries_lift_the_effective_success(demo, applied, fault):
    applied(section("Configure Retries"))
    fault("backend-service", "--path", "/api/data", "--error-rate", "0.2")

    def lifted() -> bool:
        text = demo.linkerd(
            *("viz", "routes", "deploy/frontend", "-n", "production", "--to", "svc/backend-service"),
            *("-o", "json", "-t", "15s"),
        )
        found = {row["route"]: row for row in json.loads(text)["deployment/frontend"]}
        route = found["GET /api/data"]
        return route["effective_success"] > 0.95 and 0.6 < route["actual_success"] < 0.92

    wait_until(lifted, timeout=120, message="the caller sees success where attempts fail")


def test_a_timeout_cuts(demo, applied, fault):
    applied(section("Configure Timeouts"))
    fault("slow-service", "--path", "/api/health", "--latency", "3000")

    def cut() -> bool:
        status, seconds = asked(demo, "http://slow-service:8080/api/health")
        return status == 504 and 0.9 < seconds < 2

    wait_until(cut, timeout=60, message="the request is cut after its second")


ASK = """
import sys, time, urllib.error, urllib.request
began = time.monotonic()
try:
    status = urllib.request.urlopen(sys.argv[1], timeout=20).status
except urllib.error.HTTPError as error:
    status = error.code
print(status, time.monotonic() - began)
"""


def asked(demo, url: str) -> tuple[int, float]:
    """Status and seconds of a request that the frontend makes. Its own Python is at hand there."""
    script = ["/proc/1/exe", "-c", ASK, url]
    text = demo.kubectl("exec", "-n", "production", "deploy/frontend", "-c", "frontend", "--", *script)
    status, seconds = text.split()
    return int(status), float(seconds)


def received(demo, deployment: str) -> float:
    """Responses of a deployment's own, as its proxies count them."""
    text = demo.linkerd("diagnostics", "proxy-metrics", "-n", "production", f"deploy/{deployment}")
    own = [line for line in text.splitlines() if line.startswith('response_total{direction="inbound"')]
    return sum(float(line.rsplit(" ", 1)[1]) for line in own if 'route_name="probe"' not in line)


def test_a_split_gives_each_backend_its_share(shell, demo, applied):
    split = section("Debug Traffic Splits (Canary Deployments)")
    names = ("api-service-stable", "api-service-canary")
    applied(split)
    wait_until(lambda: received(demo, names[0]) > 20, timeout=60, message="the split is in force")
    before = [received(demo, name) for name in names]
    wait_until(
        lambda: sum(received(demo, name) for name in names) - sum(before) >= 300,
        timeout=120,
        message="three hundred requests",
    )
    stable, canary = (received(demo, name) - counted for name, counted in zip(names, before, strict=True))
    total = stable + canary
    assert abs(canary - 0.1 * total) < 4.5 * math.sqrt(total * 0.1 * 0.9), (stable, canary)

    both, canary_stat, stable_stat, tap = shell.run(split)
    ended_well(both, canary_stat, stable_stat, tap)
    assert {line.split()[0] for line in both.stdout.splitlines()} == {"api-service", *names}
    assert rows(canary_stat.stdout)[names[1]][2].endswith("%")
    assert rows(stable_stat.stdout)[names[0]][2].endswith("%")
    assert requests(tap)


# 7. Common issues


def test_a_service_that_is_not_meshed(shell, demo):
    listed, annotate, patch, restart = section("Issue: Service Not Meshed").commands
    words = {"your_namespace": "legacy", "your_service": "billing"}
    assert "linkerd-proxy" not in shell.type(listed, **words).stdout
    try:
        ended_well(*(shell.type(command, **words) for command in (annotate, patch, restart)))
        demo.kubectl("rollout", "status", "deploy/billing", "-n", "legacy", "--timeout=120s")
        (pod,) = wait_until(
            lambda: found if len(found := demo.pods("billing", "legacy")) == 1 else None,
            timeout=60,
            message="the old pod is gone",
        )
        containers = shell.type(listed, **words).stdout
        assert re.search(rf"^{pod['metadata']['name']}\tlinkerd-proxy billing$", containers, re.MULTILINE)
    finally:
        demo.kubectl("annotate", "namespace", "legacy", "linkerd.io/inject-")
        template = {"metadata": {"annotations": {"linkerd.io/inject": None}}}
        demo.kubectl("patch", "deploy", "billing", "-n", "legacy", "-p", json.dumps({"spec": {"template": template}}))
        demo.kubectl("rollout", "status", "deploy/billing", "-n", "legacy", "--timeout=120s")


def test_high_latency(shell, fault):
    shown, slow, database, external, usage = section("Issue: High Latency (P99 Spikes)").commands
    fault("api-service", "--path", "/api/v1/users", "--latency", "700")
    ended_well(shell.type(shown))
    found = wait_until(lambda: json_events(shell.type(slow).stdout), timeout=60, message="the slow requests are found")
    assert {(event["method"], event["path"]) for event in found} == {("GET", "/api/v1/users")}
    assert all(event["latency_ms"] > 500 for event in found)
    downstream = [shell.type(command, your_service="order-service") for command in (database, external)]
    ended_well(*downstream)
    assert all("order-service" in rows(one.stdout) for one in downstream)
    top = shell.type(usage)
    ended_well(top)
    assert re.search(r"^api-service-\S+ +\d+m +\d+Mi", top.stdout, re.MULTILINE)


def test_connection_failures(shell, demo, fault):
    failing, endpoints, of_kubernetes, pods, logs = section("Issue: Connection Failures (5xx Errors)").commands
    fault("api-service", "--path", "/api/v1/users", "--error-rate", "1", "--status", "502")
    wait_until(lambda: ":status=502" in shell.type(failing).stdout, timeout=60, message="the failures are found")
    address = demo.pods("api-service")[0]["status"]["podIP"]
    typed = [shell.type(command) for command in (endpoints, of_kubernetes, pods)]
    ended_well(*typed)
    assert all(address in one.stdout for one in typed)
    assert shell.type(logs).code in (0, 1), "grep finds something or not"


def test_certificates(shell, demo):
    checked, identity, dates, restart = section("Issue: mTLS Certificate Errors").commands
    meshed = {
        pod["metadata"]["name"]
        for pod in json.loads(demo.kubectl("get", "pods", "-n", "production", "-o", "json"))["items"]
    }
    ended_well(shell.type(checked))
    served, read = shell.type(identity), shell.type(dates)
    ended_well(served, read)
    assert set(re.findall(r"^POD (\S+) \(", served.stdout, re.MULTILINE)) == meshed
    served_ends = sorted(map(moment, re.findall(r"Not After : (.+) UTC$", served.stdout, re.MULTILINE)))
    read_ends = sorted(map(moment, re.findall(r"notAfter=(.+) GMT$", read.stdout, re.MULTILINE)))
    assert len(read_ends) == 1, "openssl reads the first of what it is given"
    assert read_ends[0] in served_ends
    ended_well(shell.type(restart))
    demo.kubectl("rollout", "status", "deploy/linkerd-identity", "-n", "linkerd", "--timeout=120s")
    assert [asked(demo, "http://api-service:8080/api/v1/users")[0] for _ in range(5)] == [200] * 5
    ended_well(shell.type(checked))


def moment(text: str) -> float:
    return time.mktime(time.strptime(text, "%b %d %H:%M:%S %Y"))


def test_traffic_that_does_not_arrive(shell):
    described, labels, policies, reached = shell.run(section("Issue: Traffic Not Reaching Service"))
    ended_well(described, labels, policies, reached)
    assert "app=api-service" in described.stdout
    assert "app=api-service" in labels.stdout
    assert reached.stdout


def test_every_section_of_the_guide_was_typed():
    assert set(SECTIONS) == TYPED
