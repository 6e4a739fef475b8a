"""Joins what Kubernetes knows (pods, objects) with what Prometheus counted, into rows. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from linkerd.core.histograms import quantile
from linkerd.viz.index import ContainerProblem, Pod
from linkerd.viz.metrics.samples import Sample

Key = tuple[str, str]
"""Namespace and name of a row."""

DEFAULT_ROUTE = "[DEFAULT]"


@dataclass(slots=True)
class Requests:
    """Counts of one window, and latencies in milliseconds (NaN when there were none)."""

    success: int = 0
    failure: int = 0
    p50: float = math.nan
    p95: float = math.nan
    p99: float = math.nan
    actual_success: int = 0
    actual_failure: int = 0

    @property
    def total(self) -> int:
        return self.success + self.failure


@dataclass(slots=True)
class Tcp:
    connections: int = 0
    read_bytes: int = 0
    write_bytes: int = 0


@dataclass(slots=True)
class Authorized:
    allowed: int = 0
    denied: int = 0


@dataclass(frozen=True, slots=True)
class PodCounts:
    meshed: int = 0
    running: int = 0
    failed: int = 0
    status: str = ""
    problems: Mapping[str, tuple[ContainerProblem, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Traffic:
    """What Prometheus said about one key; a part is None when there were no samples for it."""

    requests: Requests | None = None
    tcp: Tcp | None = None
    authorized: Authorized | None = None
    labels: dict[str, str] = field(default_factory=dict)
    """The group's labels, for rows that are named by more than their key."""

    @property
    def busy(self) -> bool:
        """Whether there was anything; the gauges of closed connections stay at zero for a while."""
        tcp = self.tcp
        return self.requests is not None or (
            tcp is not None and any((tcp.connections, tcp.read_bytes, tcp.write_bytes))
        )


def whole(value: float) -> int:
    """A count. Samples of counters are whole but for float noise and extrapolation; NaN is no count."""
    return 0 if math.isnan(value) else round(value)


class TrafficTable:
    """Collects samples per row."""

    def __init__(self, key: Sequence[str]) -> None:
        self._key = key
        self.rows: dict[tuple[str, ...], Traffic] = defaultdict(Traffic)

    def _row(self, sample: Sample) -> Traffic:
        row = self.rows[tuple(sample.labels.get(label, "") for label in self._key)]
        if not row.labels:
            row.labels = {name: value for name, value in sample.labels.items() if name not in ("classification", "le")}
        return row

    def add_requests(self, samples: Iterable[Sample], *, actual: bool = False) -> None:
        for sample in samples:
            count = whole(sample.value)
            if not count:
                continue
            row = self._row(sample)
            row.requests = row.requests or Requests()
            field_name = "success" if sample.labels.get("classification") == "success" else "failure"
            field_name = f"actual_{field_name}" if actual else field_name
            setattr(row.requests, field_name, getattr(row.requests, field_name) + count)

    def add_latency(self, samples: Iterable[Sample]) -> None:
        """Buckets of the latency histogram; only rows that have requests take them."""
        buckets: dict[tuple[str, ...], dict[float, float]] = defaultdict(lambda: defaultdict(float))
        for sample in samples:
            key = tuple(sample.labels.get(label, "") for label in self._key)
            buckets[key][float(sample.labels["le"])] += sample.value
        for key, histogram in buckets.items():
            row = self.rows.get(key)
            if row is not None and row.requests is not None:
                row.requests.p50, row.requests.p95, row.requests.p99 = (
                    quantile(q, histogram) for q in (0.5, 0.95, 0.99)
                )

    def add_tcp(self, field_name: str, samples: Iterable[Sample]) -> None:
        """`field_name` is one of Tcp's."""
        for sample in samples:
            row = self._row(sample)
            row.tcp = row.tcp or Tcp()
            setattr(row.tcp, field_name, getattr(row.tcp, field_name) + whole(sample.value))

    def add_authorized(self, field_name: str, samples: Iterable[Sample]) -> None:
        """`field_name` is one of Authorized's."""
        for sample in samples:
            row = self._row(sample)
            row.authorized = row.authorized or Authorized()
            setattr(row.authorized, field_name, getattr(row.authorized, field_name) + whole(sample.value))


def count_pods(pods: Iterable[Pod], control_plane: str) -> PodCounts:
    """Meshed and running pods of one workload, and what keeps others from running."""
    found = list(pods)
    counted = [pod for pod in found if pod.counts]
    return PodCounts(
        meshed=sum(pod.control_plane == control_plane for pod in counted),
        running=len(counted),
        failed=sum(pod.phase == "Failed" for pod in found),
        status=found[0].status if len(found) == 1 else "",
        problems={pod.name: pod.problems for pod in found if pod.problems},
    )


def row_keys(objects: Iterable[Key], traffic: Mapping[Key, Traffic], *, direct: bool, selected: bool) -> list[Key]:
    """Which rows there are: every object; with to/from only what has traffic, out of the selected objects if the
    question selects any."""
    if direct:
        return sorted(objects)
    known = set(objects)
    return sorted(key for key, one in traffic.items() if one.busy and (key in known or not selected))


# Edges


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    source_namespace: str
    source: str
    target_namespace: str
    target: str
    client_id: str
    server_id: str
    no_tls_reason: str


NO_TLS_REASONS = {
    "disabled": "Disabled",
    "loopback": "Loopback",
    "no_authority_in_http_request": "No Authority In HTTP Request",
    "not_http": "Not HTTP",
    "not_provided_by_remote": "Not Provided By Remote",
    "not_provided_by_service_discovery": "Not Provided By Service Discovery",
    "no_tls_from_remote": "No TLS From Remote",
    "port_skipped": "Port Skipped",
    "ingress_without_override": "Ingress Without Override",
}


def edges(samples: Iterable[Sample], label: str, pods: Mapping[Key, Pod], namespace: str = "") -> list[Edge]:
    """Connections between workloads; those of pods that are gone are history, not edges."""
    found = set()
    for sample in samples:
        labels = sample.labels
        pod = pods.get((labels.get("namespace", ""), labels.get("pod", "")))
        if sample.value == 0 or pod is None or pod.phase != "Running":
            continue
        reason = labels.get("no_tls_reason", "")
        secured = not reason
        edge = Edge(
            source_namespace="" if label == "namespace" else labels.get("namespace", ""),
            source=labels[label],
            target_namespace="" if label == "namespace" else labels.get("dst_namespace", ""),
            target=labels[f"dst_{label}"],
            client_id=pod.proxy_identity if secured else "",
            server_id=labels.get("server_id", ""),
            # A reason that is not listed is shown as it is: an unsecured edge must never look secured.
            no_tls_reason="" if secured else NO_TLS_REASONS.get(reason, reason.replace("_", " ").capitalize()),
        )
        if not namespace or namespace in (labels.get("namespace"), labels.get("dst_namespace")):
            found.add(edge)
    return sorted(found)
