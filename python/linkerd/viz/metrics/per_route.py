"""Traffic by server and route (inbound), and by route and backend (outbound), as `viz stat-inbound` and `stat-outbound`
show it: what is asked of Prometheus, and the rows that come of the answers. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from linkerd.core import kinds
from linkerd.core.histograms import quantile
from linkerd.core.kinds import Target
from linkerd.viz.metrics import queries
from linkerd.viz.metrics.queries import Matcher, Matchers, gain, sum_by
from linkerd.viz.metrics.samples import Sample

_TIMEOUTS = frozenset({"RESPONSE_HEADERS_TIMEOUT", "REQUEST_TIMEOUT"})
_DEFAULT = "default"
_MILLISECONDS = 1000.0


@dataclass(slots=True)
class Counted:
    """Of one row: counts in the window, and its latencies' cumulative buckets in milliseconds."""

    success: float = 0.0
    failure: float = 0.0
    timeouts: float = 0.0
    retries: float = 0.0
    buckets: dict[float, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def total(self) -> float:
        return self.success + self.failure

    @property
    def success_rate(self) -> float:
        return self.success / self.total if self.total else math.nan

    @property
    def timeout_rate(self) -> float:
        return self.timeouts / self.total if self.total else math.nan

    @property
    def retry_rate(self) -> float:
        """The share of retries in everything that was sent."""
        sent = self.total + self.retries
        return self.retries / sent if sent else math.nan

    def latency(self, q: float) -> float:
        return quantile(q, self.buckets)


def own_labels(target: Target) -> Matchers:
    """Of the proxies of a workload, or of all workloads of its kind in its namespace."""
    label = target.kind.label
    name = Matcher(label, target.name) if target.name else Matcher(label, "", "!=")
    if target.kind is kinds.NAMESPACE or not target.namespace:
        return (name,)
    return (name, Matcher("namespace", target.namespace))


# Inbound


@dataclass(frozen=True, slots=True, order=True)
class InboundKey:
    """`server` and `route` are empty for the defaults."""

    name: str
    server: str
    port: str
    route_type: str
    route: str


_INBOUND_GROUP = ("srv_name", "srv_kind", "route_name", "route_kind", "target_port")


def inbound_queries(target: Target, window: str) -> dict[str, str]:
    matchers = (*own_labels(target), Matcher("direction", "inbound"))
    group = (*_INBOUND_GROUP, target.kind.label)
    return {
        "requests": sum_by(gain(queries.REQUESTS, matchers, window), (*group, "classification")),
        "latency": sum_by(gain(queries.LATENCY, matchers, window), ("le", *group)),
    }


def inbound_rows(answers: Mapping[str, Iterable[Sample]], target: Target) -> list[tuple[InboundKey, Counted]]:
    """Those with traffic, sorted."""
    rows: dict[InboundKey, Counted] = defaultdict(Counted)
    for sample in answers["requests"]:
        row = rows[_inbound_key(sample.labels, target)]
        if sample.labels.get("classification") == "success":
            row.success += sample.value
        else:
            row.failure += sample.value
    for sample in answers["latency"]:
        rows[_inbound_key(sample.labels, target)].buckets[float(sample.labels["le"])] += sample.value
    return sorted((key, row) for key, row in rows.items() if row.total)


def _inbound_key(labels: Mapping[str, str], target: Target) -> InboundKey:
    route_kind = labels.get("route_kind", "")
    route = labels.get("route_name", "")
    return InboundKey(
        name=labels.get(target.kind.label, ""),
        server="" if labels.get("srv_kind") in (None, _DEFAULT) else labels.get("srv_name", ""),
        port=labels.get("target_port", ""),
        route_type="" if route_kind == _DEFAULT else route_kind,
        route="" if route == _DEFAULT else route,
    )


# Outbound


@dataclass(frozen=True, slots=True, order=True)
class RouteKey:
    """A route of a service, as one workload calls it."""

    name: str
    service: str
    port: str
    route_type: str
    route: str


@dataclass(frozen=True, slots=True, order=True)
class BackendKey:
    name: str
    port: str


@dataclass(slots=True)
class OutboundRoute:
    counted: Counted = field(default_factory=Counted)
    backends: dict[BackendKey, Counted] = field(default_factory=lambda: defaultdict(Counted))


_PROTOCOLS = ("http", "grpc")
_ROUTE_GROUP = ("parent_name", "parent_port", "route_name", "route_kind")
_BACKEND_GROUP = ("backend_name", "backend_port")


def outbound_queries(target: Target, window: str) -> dict[str, str]:
    found = {}
    for protocol in _PROTOCOLS:
        found |= _outbound_queries(protocol, own_labels(target), (*_ROUTE_GROUP, target.kind.label), window)
    return found


def _outbound_queries(protocol: str, matchers: Matchers, group: tuple[str, ...], window: str) -> dict[str, str]:
    prefix, status = f"outbound_{protocol}_route", f"{protocol}_status"
    with_backend = (*group, *_BACKEND_GROUP)

    def of(metric: str, labels: tuple[str, ...]) -> str:
        return sum_by(gain(f"{prefix}_{metric}", matchers, window), labels)

    return {
        f"{protocol}_requests": of("request_statuses_total", (*group, status, "error")),
        f"{protocol}_retries": of("retry_requests_total", group),
        f"{protocol}_latency": of("request_duration_seconds_bucket", ("le", *group)),
        f"{protocol}_backend_requests": of("backend_response_statuses_total", (*with_backend, status, "error")),
        f"{protocol}_backend_latency": of("backend_response_duration_seconds_bucket", ("le", *with_backend)),
    }


def outbound_rows(answers: Mapping[str, Iterable[Sample]], target: Target) -> list[tuple[RouteKey, OutboundRoute]]:
    """Those with traffic, sorted."""
    rows: dict[RouteKey, OutboundRoute] = defaultdict(OutboundRoute)
    for protocol in _PROTOCOLS:
        for sample in answers[f"{protocol}_requests"]:
            _add_status(rows[_route_key(sample.labels, target)].counted, protocol, sample)
        for sample in answers[f"{protocol}_retries"]:
            rows[_route_key(sample.labels, target)].counted.retries += sample.value
        for sample in answers[f"{protocol}_latency"]:
            _add_seconds(rows[_route_key(sample.labels, target)].counted, sample)
        for sample in answers[f"{protocol}_backend_requests"]:
            _add_status(_backend(rows, sample, target), protocol, sample)
        for sample in answers[f"{protocol}_backend_latency"]:
            _add_seconds(_backend(rows, sample, target), sample)
    return sorted(((key, row) for key, row in rows.items() if row.counted.total), key=lambda item: item[0])


def _add_status(counted: Counted, protocol: str, sample: Sample) -> None:
    error = sample.labels.get("error", "")
    status = sample.labels.get(f"{protocol}_status", "")
    failed = bool(error) or (status.startswith("5") if protocol == "http" else status != "OK")
    if failed:
        counted.failure += sample.value
    else:
        counted.success += sample.value
    if error in _TIMEOUTS:
        counted.timeouts += sample.value


def _add_seconds(counted: Counted, sample: Sample) -> None:
    counted.buckets[float(sample.labels["le"]) * _MILLISECONDS] += sample.value


def _route_key(labels: Mapping[str, str], target: Target) -> RouteKey:
    return RouteKey(
        name=labels.get(target.kind.label, ""),
        service=labels.get("parent_name", ""),
        port=labels.get("parent_port", ""),
        route_type="" if labels.get("route_kind") == _DEFAULT else labels.get("route_kind", ""),
        route="" if labels.get("route_name") == _DEFAULT else labels.get("route_name", ""),
    )


def _backend(rows: Mapping[RouteKey, OutboundRoute], sample: Sample, target: Target) -> Counted:
    key = BackendKey(sample.labels.get("backend_name", ""), sample.labels.get("backend_port", ""))
    return rows[_route_key(sample.labels, target)].backends[key]
