"""The admin port of a component: `/ready`, `/live`, `/ping`, `/metrics`.

Ready means that each named condition holds (caches synced, issuer loaded); the answer names those that do not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import generate_latest

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

disable_created_metrics()  # a series more for every counter, that nobody asks for

Condition = Callable[[], bool]


class Readiness:
    """Named conditions that must all hold."""

    def __init__(self, **conditions: Condition) -> None:
        self._conditions: dict[str, Condition] = dict(conditions)

    def require(self, name: str, condition: Condition) -> None:
        self._conditions[name] = condition

    def missing(self) -> list[str]:
        return [name for name, holds in self._conditions.items() if not holds()]


def admin_app(readiness: Readiness, registry: CollectorRegistry = REGISTRY) -> web.Application:
    async def ready(_: web.Request) -> web.Response:
        missing = readiness.missing()
        if missing:
            return web.Response(status=503, text=f"not ready: {', '.join(missing)}\n")
        return web.Response(text="ok\n")

    async def live(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ping(_: web.Request) -> web.Response:
        return web.Response(text="pong\n")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": _CONTENT_TYPE})

    app = web.Application()
    app.add_routes(
        [web.get("/ready", ready), web.get("/live", live), web.get("/ping", ping), web.get("/metrics", metrics)]
    )
    return app


@asynccontextmanager
async def serve_admin(address: str, readiness: Readiness, registry: CollectorRegistry = REGISTRY) -> AsyncIterator[int]:
    """Serves on `host:port` (`:9990` for all interfaces) while the block runs; gives the port that was bound."""
    async with serve_http(admin_app(readiness, registry), address) as port:
        yield port


@asynccontextmanager
async def serve_http(
    app: web.Application, address: str, ssl_context: object | None = None, *, grace: float = 5.0
) -> AsyncIterator[int]:
    """Any application on `host:port` while the block runs; requests in flight get `grace` seconds at the end."""
    host, port = parse_address(address)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=grace, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=ssl_context, reuse_address=True)  # type: ignore[arg-type]
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def parse_address(address: str) -> tuple[str | None, int]:
    """`host:port`, `[v6]:port` or `:port`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"`{address}` is not an address: host:port or :port is wanted")
    return host.strip("[]") or None, int(port)
