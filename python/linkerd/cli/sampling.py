"""Golden metrics without Prometheus: the proxies' own counters, read twice. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from linkerd.cli.output.stat import Tcp, Traffic
from linkerd.core.histograms import quantile

_FAMILIES = ("response_total{", "response_latency_ms_bucket{", "tcp_open_connections{", "tcp_read_bytes_total{",
             "tcp_write_bytes_total{")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reading:
    """What one proxy had counted at a moment (of a monotonic clock): inbound traffic of its pod."""

    at: float
    responses: Mapping[str, float] = field(default_factory=dict)
    """By classification."""
    buckets: Mapping[float, float] = field(default_factory=dict)
    """Latency in milliseconds, cumulative."""
    connections: float = 0
    read_bytes: float = 0
    write_bytes: float = 0


def parse_reading(text: str, at: float) -> Reading:
    """Of the text of a proxy's `/metrics`. Raises ValueError for what is no such text."""
    from prometheus_client.parser import text_string_to_metric_families

    # A proxy has thousands of lines; the parser is slow and these few are all that is wanted.
    lines = [line for line in text.splitlines() if line.startswith(_FAMILIES) and _is_traffic(line)]
    responses: dict[str, float] = defaultdict(float)
    buckets: dict[float, float] = defaultdict(float)
    tcp: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name == "response_total":
                responses[sample.labels.get("classification", "")] += sample.value
            elif sample.name == "response_latency_ms_bucket":
                buckets[float(sample.labels["le"])] += sample.value
            elif sample.labels.get("peer") == "src":
                tcp[sample.name] += sample.value
    return Reading(
        at,
        dict(responses),
        dict(buckets),
        tcp["tcp_open_connections"],
        tcp["tcp_read_bytes_total"],
        tcp["tcp_write_bytes_total"],
    )


def _is_traffic(line: str) -> bool:
    """Inbound, and no probe of the node: as `viz stat` counts."""
    return 'direction="inbound"' in line and not ('route_kind="default"' in line and 'route_name="probe"' in line)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Two readings of one proxy."""

    before: Reading
    after: Reading

    @property
    def seconds(self) -> float:
        return self.after.at - self.before.at


def _gain(before: float, after: float) -> float:
    """A counter that fell was reset in between: what it has now is what we know of."""
    return after - before if after >= before else after


def traffic(pairs: Iterable[Sampled], interval: float) -> tuple[Traffic | None, Tcp]:
    """Of all proxies of a workload together, scaled to the interval: no two are read at the same instant."""
    counts: dict[str, float] = defaultdict(float)
    buckets: dict[float, float] = defaultdict(float)
    connections = read = write = 0.0
    for pair in pairs:
        scale = interval / pair.seconds if pair.seconds > 0 else 1.0
        for name, value in pair.after.responses.items():
            counts[name] += _gain(pair.before.responses.get(name, 0.0), value) * scale
        for bound, value in pair.after.buckets.items():
            buckets[bound] += _gain(pair.before.buckets.get(bound, 0.0), value)
        connections += pair.after.connections
        read += _gain(pair.before.read_bytes, pair.after.read_bytes) * scale
        write += _gain(pair.before.write_bytes, pair.after.write_bytes) * scale
    tcp = Tcp(round(connections), round(read), round(write))
    if not sum(counts.values()):
        return None, tcp
    p50, p95, p99 = (quantile(q, buckets) for q in (0.5, 0.95, 0.99))
    return Traffic(counts["success"], sum(counts.values()) - counts["success"], p50, p95, p99), tcp
