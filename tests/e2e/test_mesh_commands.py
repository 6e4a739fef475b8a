"""The commands of the guide on a running mesh: their shape, and that what they say is so."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from support.clusters import CommandFailed
from support.waiting import wait_until
from support.workloads import APPS, client, namespace, server

NAMESPACE = "commands"


@pytest.fixture(scope="module")
def shop(mesh):
    """Two meshed services and one that was left out, with a little traffic."""
    objects = [namespace(NAMESPACE), *server("server", NAMESPACE, replicas=2), *client("client", NAMESPACE)]
    mesh.apply(yaml.safe_dump_all(objects))
    mesh.kubectl("wait", "--for=condition=Available", "--timeout=120s", "-n", NAMESPACE, "deploy", "--all")
    ask = [mesh.python, str(APPS / "client.py"), "http://server:8080", "--count", "40"]
    mesh.kubectl("exec", "-n", NAMESPACE, "deploy/client", "-c", "client", "--", *ask)
    yield mesh
    mesh.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_version_names_both_sides(shop):
    client_line, server_line = shop.linkerd("version").splitlines()
    assert re.fullmatch(r"Client version: stable-\d+\.\d+\.\d+", client_line)
    assert server_line == client_line.replace("Client", "Server")


@pytest.mark.parametrize("options", [(), ("--proxy",), ("--proxy", "-n", NAMESPACE)])
def test_check_is_all_ok(shop, options):
    output = shop.linkerd("check", *options)
    assert output.splitlines()[:3] == [
        "kubernetes-api",
        "---------------------",
        "can initialize the client...................................[ok]",
    ]
    assert output.splitlines()[-1] == "Status check results are [ok]"
    assert "[FAIL]" not in output


def test_check_as_json_is_one_document(shop):
    assert json.loads(shop.linkerd("check", "-o", "json"))["success"] is True


def test_pre_check_says_what_is_there_already(shop):
    with pytest.raises(CommandFailed) as failed:
        shop.linkerd("check", "--pre")
    assert 'The "linkerd" namespace already exists' in failed.value.stdout
    assert failed.value.exit_code == 1


@pytest.mark.parametrize(("kind", "name"), [("deploy", "server"), ("pod", "server-"), ("ns", NAMESPACE)])
def test_stat_has_the_columns_of_the_guide(shop, kind, name):
    where = [] if kind == "ns" else ["-n", NAMESPACE]

    def row() -> list[str] | None:
        header, *rows = shop.linkerd("viz", "stat", kind, *where, "-t", "5m").splitlines()
        assert header.split()[:7] == ["NAME", "MESHED", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99"]
        assert ("STATUS" in header) == (kind == "pod")
        found = [cells for cells in map(str.split, rows) if cells[0].startswith(name)]
        return found[0] if found and "100.00%" in found[0] else None

    cells = wait_until(row, timeout=30, message="a row with traffic")
    assert re.fullmatch(r"\d+/\d+", cells[1])


def test_window_shorter_than_two_scrapes_is_refused_naming_the_smallest(shop):
    with pytest.raises(CommandFailed) as failed:
        shop.linkerd("viz", "stat", "deploy", "-n", NAMESPACE, "-t", "3s")
    assert "10s" in failed.value.stderr


def test_stat_without_viz_reads_the_proxies(shop):
    output = shop.linkerd("stat", "deploy", "-n", NAMESPACE)
    assert re.search(r"^server +2/2", output, re.M)


def test_endpoints_are_those_of_kubernetes(shop):
    rows = json.loads(
        shop.linkerd("diagnostics", "endpoints", f"server.{NAMESPACE}.svc.cluster.local:8080", "-o", "json")
    )
    pods = json.loads(shop.kubectl("get", "pods", "-n", NAMESPACE, "-l", "app=server", "-o", "json"))["items"]
    assert {(row["pod"], row["ip"]) for row in rows} == {(p["metadata"]["name"], p["status"]["podIP"]) for p in pods}
    table = shop.linkerd("diagnostics", "endpoints", f"server.{NAMESPACE}.svc.cluster.local:8080")
    assert table.splitlines()[0].split()[:4] == ["NAMESPACE", "IP", "PORT", "POD"]


def test_identity_prints_the_certificate_of_each_meshed_pod(shop):
    output = shop.linkerd("identity", "-n", NAMESPACE)
    assert output.count("Subject: CN=default.commands.serviceaccount.identity.linkerd.cluster.local") == 3
    assert "(3 of 3)" in output


def test_proxy_metrics_are_those_of_the_pod(shop):
    output = shop.linkerd("diagnostics", "proxy-metrics", "-n", NAMESPACE, "deploy/client")
    assert re.match(r"#\n# POD client-\S+ \(1 of 1\)\n#\n", output)
    assert 'request_total{direction="outbound"' in output


def test_guides_jsonpath_finds_the_proxy(shop):
    names = shop.shell(
        f"kubectl get pods -n {NAMESPACE} -l app=server -o jsonpath='{{.items[*].spec.containers[*].name}}'"
        " | tr ' ' '\\n' | grep linkerd-proxy"
    )
    assert names.split() == ["linkerd-proxy"] * 2


def test_top_prints_tables_when_piped(shop):
    ask = f"{shop.python} {APPS / 'client.py'} http://server:8080 --count 200 --interval 50 --concurrency 1"
    output = shop.shell(
        f"kubectl exec -n {NAMESPACE} deploy/client -c client -- {ask} >/dev/null &"
        f" linkerd viz top deploy/server -n {NAMESPACE} --duration 8s; wait"
    )
    assert output.splitlines()[0].split()[:8] == [
        "Source",
        "Destination",
        "Method",
        "Path",
        "Count",
        "Best",
        "Worst",
        "Last",
    ]
    assert re.search(r"^client-\S+ +server-\S+ +GET +/ +\d+ ", output, re.M)


def test_proxy_reaches_a_service_by_hand(shop):
    """As the guide tests connectivity."""
    page = shop.kubectl(
        "exec",
        "-n",
        NAMESPACE,
        "deploy/client",
        "-c",
        "linkerd-proxy",
        "--",
        "wget",
        "-qO-",
        "http://server:8080/health",
    )
    assert page.startswith("server-")
