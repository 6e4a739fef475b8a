"""A client of Prometheus' HTTP API: instant queries, and what its configuration says about scraping."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
import yaml

from linkerd.viz.metrics.queries import parse_window
from linkerd.viz.metrics.samples import Sample

_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=5)
_CONFIG_TTL_SECONDS = 60.0
_CONCURRENT_QUERIES = 8
_PROXY_JOB = "linkerd-proxy"


class PrometheusError(Exception):
    """Prometheus was not reached, or refused the query; the message is its own."""


class Prometheus:
    """Use as an async context manager. Queries beyond a few at a time wait, so that one request of ours (a table of
    ten kinds is seventy queries) leaves Prometheus time for others."""

    def __init__(self, url: str, *, user: str = "", password: str = "") -> None:
        self.url = url.rstrip("/")
        self._auth = aiohttp.BasicAuth(user, password) if user else None
        self._slots = asyncio.Semaphore(_CONCURRENT_QUERIES)
        self._session: aiohttp.ClientSession | None = None
        self._interval: float | None = None
        self._interval_read = -_CONFIG_TTL_SECONDS

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT, auth=self._auth)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def query(self, promql: str) -> list[Sample]:
        """An instant vector, as of now. Raises PrometheusError."""
        async with self._slots:
            result = await self._call("POST", "/api/v1/query", {"query": promql})
        return [Sample(item["metric"], float(item["value"][1])) for item in result["result"]]

    async def ready(self) -> None:
        """Raises PrometheusError unless it answers queries."""
        await self._call("POST", "/api/v1/query", {"query": "vector(1)"})

    async def scrape_interval(self) -> float | None:
        """Seconds between two scrapes of the proxies; None when this Prometheus does not tell (a hosted one may not).

        Raises PrometheusError when it cannot be reached.
        """
        if time.monotonic() - self._interval_read > _CONFIG_TTL_SECONDS:
            try:
                config = await self._call("GET", "/api/v1/status/config", {})
            except PrometheusRefusal:
                self._interval = None
            else:
                self._interval = interval_from_config(config.get("yaml") or "")
            self._interval_read = time.monotonic()
        return self._interval

    async def _call(self, method: str, path: str, form: dict[str, str]) -> Any:
        if self._session is None:
            raise RuntimeError("the client is used outside of its `async with`")
        try:
            async with self._session.request(method, self.url + path, data=form or None) as response:
                return _data(response.status, await response.read())
        except (aiohttp.ClientError, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            raise PrometheusError(f"cannot reach Prometheus at {self.url}: {reason}") from error


class PrometheusRefusal(PrometheusError):
    """It answered, with an error."""


def _data(status: int, body: bytes) -> Any:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise PrometheusRefusal(f"Prometheus answered with HTTP status {status}") from None
    if answer.get("status") != "success":
        raise PrometheusRefusal(f"Prometheus: {answer.get('errorType', 'error')}: {answer.get('error', status)}")
    return answer["data"]


def interval_from_config(text: str) -> float | None:
    """The scrape interval of the proxies' job, else the global one, in seconds."""
    config = yaml.safe_load(text) or {}
    jobs = {job.get("job_name"): job for job in config.get("scrape_configs") or []}
    own = (jobs.get(_PROXY_JOB) or {}).get("scrape_interval")
    interval = own or (config.get("global") or {}).get("scrape_interval")
    try:
        return parse_window(interval) if interval else None
    except ValueError:
        return None


def credentials(user_file: str, password_file: str) -> tuple[str, str]:
    """What the two files hold. Raises OSError and ValueError."""
    if bool(user_file) != bool(password_file):
        raise ValueError("--prometheus-user-file and --prometheus-password-file go together")
    if not user_file:
        return "", ""
    return Path(user_file).read_text().strip(), Path(password_file).read_text().strip()
