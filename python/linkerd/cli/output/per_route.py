"""The tables of `viz stat-inbound` and `viz stat-outbound`, and their JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from linkerd.cli.output import numbers
from linkerd.cli.output.table import Column, padded
from linkerd.viz.metrics.per_route import BackendKey, Counted, InboundKey, OutboundRoute, RouteKey

_LATENCIES = ("LATENCY_P50", "LATENCY_P95", "LATENCY_P99")
_INBOUND = ("NAME", "SERVER", "ROUTE", "TYPE")
_OUTBOUND = ("NAME", "SERVICE", "ROUTE", "TYPE", "BACKEND")
_TRAFFIC = ("SUCCESS", "RPS", *_LATENCIES)
_QUANTILES = (0.5, 0.95, 0.99)
_DEFAULT = "[default]"


def _columns(left: Sequence[str], right: Sequence[str]) -> list[Column]:
    return [*(Column(heading, left=True) for heading in left), *(Column(heading) for heading in right)]


def inbound_table(rows: Iterable[tuple[InboundKey, Counted]], seconds: float) -> str:
    cells = [
        [
            key.name,
            f"{key.server or _DEFAULT}:{key.port}",
            key.route or _DEFAULT,
            key.route_type,
            *_traffic(counted, seconds),
        ]
        for key, counted in rows
    ]
    return padded(_columns(_INBOUND, _TRAFFIC), cells)


def inbound_json(key: InboundKey, counted: Counted, seconds: float) -> dict[str, Any]:
    return {
        "name": key.name,
        "server": key.server or _DEFAULT,
        "port": _port(key.port),
        "route": key.route or _DEFAULT,
        "routeType": key.route_type,
        **_json_traffic(counted, seconds),
    }


def outbound_table(rows: Iterable[tuple[RouteKey, OutboundRoute]], seconds: float) -> str:
    cells: list[list[str]] = []
    for key, route in rows:
        cells.append(
            [
                key.name,
                f"{key.service}:{key.port}",
                key.route or _DEFAULT,
                key.route_type,
                "",
                *_traffic(route.counted, seconds),
                _share(route.counted.timeout_rate),
                _share(route.counted.retry_rate),
            ]
        )
        cells += _backend_cells(route, seconds)
    return padded(_columns(_OUTBOUND, (*_TRAFFIC, "TIMEOUTS", "RETRIES")), cells)


def _backend_cells(route: OutboundRoute, seconds: float) -> Iterator[list[str]]:
    """Branches below the route's row."""
    backends = sorted(route.backends.items())
    for number, (key, counted) in enumerate(backends, 1):
        branch = "└─" if number == len(backends) else "├─"
        traffic = [*_traffic(counted, seconds), _share(counted.timeout_rate), ""]
        yield ["", "", branch, "─►", f"{key.name}:{key.port}", *traffic]


def outbound_json(rows: Iterable[tuple[RouteKey, OutboundRoute]], seconds: float) -> Iterator[dict[str, Any]]:
    """A route, then its backends."""
    for key, route in rows:
        retries = {"retryRate": _number(route.counted.retry_rate)}
        yield _outbound_value(key, None, route.counted, seconds) | retries
        for backend, counted in sorted(route.backends.items()):
            yield _outbound_value(key, backend, counted, seconds)


def _outbound_value(key: RouteKey, backend: BackendKey | None, counted: Counted, seconds: float) -> dict[str, Any]:
    value: dict[str, Any] = {
        "name": key.name,
        "service": key.service,
        "port": _port(key.port),
        "route": key.route or _DEFAULT,
        "routeType": key.route_type,
    }
    if backend is not None:
        value |= {"backend": backend.name, "backendPort": _port(backend.port)}
    return value | _json_traffic(counted, seconds) | {"timeoutRate": _number(counted.timeout_rate)}


def _traffic(counted: Counted, seconds: float) -> list[str]:
    latencies = [counted.latency(q) for q in _QUANTILES]
    return [
        _share(counted.success_rate),
        f"{counted.total / seconds:.2f}",
        *(numbers.NONE if math.isnan(value) else numbers.milliseconds(value) for value in latencies),
    ]


def _json_traffic(counted: Counted, seconds: float) -> dict[str, Any]:
    p50, p95, p99 = (_number(counted.latency(q)) for q in _QUANTILES)
    return {
        "successRate": _number(counted.success_rate),
        "rps": counted.total / seconds,
        "latencyMsP50": p50,
        "latencyMsP95": p95,
        "latencyMsP99": p99,
    }


def _share(value: float) -> str:
    return numbers.NONE if math.isnan(value) else numbers.percent(value)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _port(text: str) -> int | None:
    return int(text) if text.isdigit() else None
