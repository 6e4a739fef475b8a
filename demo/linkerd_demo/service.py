"""One HTTP service of the shop: it works a little, calls whom it has to call, and fails when told to."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import signal

import aiohttp
from aiohttp import web

from linkerd_demo.cache import CacheClient
from linkerd_demo.faults import FaultFile
from linkerd_demo.openapi import openapi_document
from linkerd_demo.topology import CACHE_PORT, PORT, Call, Route, Service

log = logging.getLogger(__name__)

CALL_TIMEOUT_SECONDS = 10


class CallFailed(Exception):
    """A service that this one needs answered with an error, or not at all."""


class HttpService:
    """Handlers of one service. `run` serves until SIGTERM, then lets open requests end."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._faults = FaultFile(service.name)
        self._session: aiohttp.ClientSession | None = None
        self._cache = CacheClient("cache", CACHE_PORT)
        self._draining = False

    async def run(self) -> None:
        app = web.Application()
        for route in self._service.routes:
            app.router.add_route(route.method, route.path, self._handler(route))
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/api/health", self._api_health)
        if self._service.name.startswith("api-service"):
            app.router.add_get("/openapi.json", self._openapi)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=20)
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as self._session:
            await runner.setup()
            await web.TCPSite(runner, None, PORT).start()
            log.info("%s listens on %d", self._service.name, PORT)
            await _wait_terminated()
            self._draining = True
            log.info("%s ends", self._service.name)
            await runner.cleanup()

    def _handler(self, route: Route):
        async def handle(request: web.Request) -> web.Response:
            failed = await self._suffer(request.path)
            if failed is not None:
                return failed
            await asyncio.sleep(_work_seconds(route))
            if random.random() < route.error_share:
                return web.json_response({"error": "out of luck", "service": self._service.name}, status=500)
            try:
                await self._call_all(route)
            except CallFailed as error:
                log.warning("%s %s: error: %s", request.method, request.path, error)
                return web.json_response({"error": str(error), "service": self._service.name}, status=502)
            return web.json_response({"service": self._service.name, "path": request.path, "pod": _pod()})

        return handle

    async def _api_health(self, request: web.Request) -> web.Response:
        """For callers, and with the faults that they are to see; the node's probes ask elsewhere."""
        return await self._suffer(request.path) or await self._health(request)

    async def _suffer(self, path: str) -> web.Response | None:
        """The faults that were asked for; an answer if one of them is an error."""
        for fault in self._faults.matching(path):
            if fault.crash:
                self._crash()
            if fault.latency_ms:
                await asyncio.sleep(fault.latency_ms / 1000)
            if fault.fails():
                return web.json_response({"error": "fault", "service": self._service.name}, status=fault.status)
        return None

    def _crash(self) -> None:
        log.error("error: crashing, as the fault asks")
        os._exit(1)

    async def _call_all(self, route: Route) -> None:
        if route.cache_key:
            await self._ask_cache(route.cache_key)
        for call in route.calls:
            await self._call(call)
        if route.ledger:
            await self._book()

    async def _call(self, call: Call) -> None:
        assert self._session is not None, "handlers run while `run` holds the session"
        try:
            async with self._session.request(call.method, call.url) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise CallFailed(f"{call.url}: {error or type(error).__name__}") from error
        if response.status >= 500:
            raise CallFailed(f"{call.url} answered {response.status}")

    async def _ask_cache(self, key: str) -> None:
        try:
            if await self._cache.get(key) is None:
                await self._cache.set(key, "warm")
        except (OSError, TimeoutError) as error:
            # A cache that is away makes things slower, not wrong.
            log.warning("cache: error: %s", error or type(error).__name__)

    async def _book(self) -> None:
        from linkerd_demo.ledger import LedgerError, book

        try:
            await book("ledger-service", random.randint(1, 500))
        except LedgerError as error:
            raise CallFailed(str(error)) from error

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "service": self._service.name})

    async def _ready(self, request: web.Request) -> web.Response:
        faults = self._faults.current()
        if any(fault.crash for fault in faults):
            self._crash()
        if self._draining or any(fault.not_ready for fault in faults):
            return web.json_response({"status": "not ready"}, status=503)
        return web.json_response({"status": "ready"})

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(openapi_document(self._service))


def _work_seconds(route: Route) -> float:
    factor = 10 if random.random() < route.slow_share else random.uniform(0.5, 1.5)
    return route.latency_ms * factor / 1000


def _pod() -> str:
    return re.sub(r"\..*", "", os.environ.get("HOSTNAME", "")) or os.uname().nodename


async def _wait_terminated() -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
