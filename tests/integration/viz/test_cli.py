"""`linkerd viz …` as it is typed, against a metrics API on loopback."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE

WINDOW = "2s"


async def linkerd(viz, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    command = (sys.executable, "-m", "linkerd.cli.main", "--api-addr", viz.address, "viz", *arguments)
    process = await asyncio.create_subprocess_exec(*command, "-n", viz.namespace, stdout=PIPE, stderr=PIPE)
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(), errors.decode()


async def test_stat_prints_the_guides_table(viz, scraped):
    await scraped.watched_for(WINDOW)
    scraped.proxies.answer("web-1", success=19, failure=1)
    scraped.proxies.observe("web-1", [5.0] * 20)
    await scraped.now()
    code, output, errors = await linkerd(viz, "stat", "deploy", "-t", WINDOW)
    assert (code, errors) == (0, "")
    assert output == (
        "NAME   MESHED   SUCCESS       RPS   LATENCY_P50   LATENCY_P95   LATENCY_P99   TCP_CONN\n"
        "api       1/1         -         -             -             -             -          -\n"
        "web       2/2    95.00%   10.0rps           4ms           5ms           5ms          -\n"
    )


async def test_no_traffic_is_said_on_stderr(viz):
    assert await linkerd(viz, "stat", "deploy/plain") == (0, "", "No traffic found.\n")


async def test_an_unknown_name_and_a_window_too_short_are_errors(viz):
    code, output, errors = await linkerd(viz, "stat", "deploy/nobody")
    assert (code, output) == (1, "")
    assert errors.startswith('error: StatSummary API error: deployments "nobody" not found')
    code, _, errors = await linkerd(viz, "stat", "deploy", "-t", "100ms")
    assert code == 1
    assert "the smallest is 400ms" in errors
