"""What is plain HTTP on the node's port: logs, usage, who may ask."""

from __future__ import annotations

import asyncio
import json
import ssl

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

LOGS = "/containerLogs/apps/web/app"


@pytest.fixture
def container(node):
    (found,) = node.runtime.pods["apps", "web"]
    found.log += [b"one\n", b"two\n"]
    return found


async def test_logs_are_the_containers_output(node, container):
    assert await node.get(LOGS) == (200, "one\ntwo\n")
    assert await node.get(LOGS, [("tailLines", "1")]) == (200, "two\n")


async def test_following_logs_sends_the_head_at_once_and_lines_as_they_come(node, container):
    url, context = node.url(LOGS, [("follow", "true"), ("tailLines", "0")]), node.tls()
    async with node.session.get(url, ssl=context, server_hostname="node-1") as response:
        container.log.append(b"three\n")
        container.log_changed.set()
        assert await response.content.readline() == b"three\n"


@pytest.mark.parametrize(
    ("path", "query", "status", "words"),
    [
        ("/containerLogs/apps/none/app", (), 404, 'pod "none" does not exist'),
        ("/containerLogs/apps/web/none", (), 404, 'container "none" not found in pod "web"'),
        (LOGS, [("previous", "true")], 400, 'previous terminated container "app" in pod "web" not found'),
        (LOGS, [("tailLines", "-1")], 422, "tailLines"),
        (LOGS, [("sinceTime", "yesterday")], 400, "sinceTime"),
    ],
)
async def test_logs_that_cannot_be_had_are_refused(node, path, query, status, words):
    found = await node.get(path, query)
    assert found[0] == status
    assert words in found[1]


async def test_resource_metrics_are_what_metrics_server_reads(node):
    _, text = await node.get("/metrics/resource")
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    (sample,) = families["container_cpu_usage_seconds"]
    assert sample.labels == {"container": "app", "namespace": "apps", "pod": "web"}
    assert (sample.value, sample.timestamp) == (12.5, 1767323045.0)
    assert families["node_memory_working_set_bytes"][0].value == 2**30
    assert families["resource_scrape_error"][0].value == 0


async def test_the_summary_has_rates_from_the_second_reading_on(node):
    _, first = await node.get("/stats/summary")
    assert "usageNanoCores" not in json.loads(first)["pods"][0]["cpu"]
    assert json.loads(first)["pods"][0]["podRef"] == {"name": "web", "namespace": "apps", "uid": "uid-1"}


async def test_the_other_pages(node):
    assert await node.get("/healthz") == (200, "ok")
    assert len(json.loads((await node.get("/pods"))[1])["items"]) == 2
    assert len(json.loads((await node.get("/runningpods/"))[1])["items"]) == 1
    assert 'kubelet_http_requests_total{method="GET",path="healthz"} 1.0' in (await node.get("/metrics"))[1]
    assert "container_memory_working_set_bytes" in (await node.get("/metrics/cadvisor"))[1]


async def test_one_connection_serves_request_after_request(node, container):
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=node.tls(), server_hostname="node-1")
    for path, body in (("/healthz", b"ok"), (LOGS, b"two\n"), ("/healthz", b"ok")):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: n\r\n\r\n".encode())
        assert body in await reader.readuntil(body)
        if path == LOGS:
            await reader.readuntil(b"0\r\n\r\n")
    writer.close()


async def test_nobody_is_refused_with_401(node):
    assert (await node.get("/healthz", token="none"))[0] == 401
    assert (await node.get("/healthz", token="bad"))[0] == 401


async def test_a_token_may_do_what_its_user_may(node):
    node.api.allowed.add(("get", "metrics"))
    assert (await node.get("/metrics/resource", token="good"))[0] == 200
    status, text = await node.get("/containerLogs/apps/web/app", token="good")
    assert status == 403
    assert "user=alice, verb=get, resource=nodes, subresource(s)=[proxy]" in text


async def test_the_api_server_is_asked_once_for_the_same(node):
    node.api.allowed.add(("get", "metrics"))
    for _ in range(3):
        await node.get("/metrics/resource", token="good")
    assert node.api.asked == ["TokenReview", "SubjectAccessReview"]


async def test_a_certificate_of_another_authority_is_refused(node, tmp_path):
    context = node.tls(certificate="front-proxy-client")
    with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
        async with node.session.get(node.url("/healthz"), ssl=context, server_hostname="node-1") as response:
            await response.read()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\r\nnonsense\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: n\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", b"431"),
        (b"PUT /healthz HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n", b"405"),
        (b"HEAD /healthz HTTP/1.1\r\nHost: n\r\n\r\n", b"405"),
        (b"POST /exec/apps/web/app?output=1&command=true HTTP/1.1\r\nHost: n\r\nContent-Length: 0\r\n\r\n", b"400"),
        (b"POST /healthz HTTP/1.1\r\nHost: n\r\nContent-Length: 2000000\r\n\r\n" + bytes(2_000_000), b"413"),
    ],
)
async def test_bad_requests_get_an_answer(node, raw, status):
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=node.tls(), server_hostname="node-1")
    writer.write(raw)
    assert (await reader.readline()).startswith(b"HTTP/1.1 " + status)
    writer.close()
    assert (await node.get("/healthz"))[0] == 200
