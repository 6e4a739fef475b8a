"""The tables of `stat`: rows in, text or JSON out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from linkerd.cli.output import numbers
from linkerd.cli.output.table import Column, right_aligned
from linkerd.core import kinds
from linkerd.core.kinds import Kind

ORDER = (
    kinds.AUTHORIZATION_POLICY,
    kinds.CRON_JOB,
    kinds.DAEMON_SET,
    kinds.DEPLOYMENT,
    kinds.HTTP_ROUTE,
    kinds.JOB,
    kinds.NAMESPACE,
    kinds.POD,
    kinds.REPLICA_SET,
    kinds.REPLICATION_CONTROLLER,
    kinds.SERVER,
    kinds.SERVER_AUTHORIZATION,
    kinds.SERVICE,
    kinds.SERVICE_PROFILE,
    kinds.STATEFUL_SET,
    kinds.TRAFFIC_SPLIT,
)
"""In which the tables of several kinds follow each other."""

_WITHOUT_TCP = (kinds.SERVER_AUTHORIZATION, kinds.AUTHORIZATION_POLICY, kinds.HTTP_ROUTE, kinds.TRAFFIC_SPLIT)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one window: counts, and milliseconds."""

    success: float
    failure: float
    p50: float
    p95: float
    p99: float

    @property
    def total(self) -> float:
        return self.success + self.failure

    @property
    def success_rate(self) -> float:
        return self.success / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Tcp:
    connections: int
    read_bytes: int
    write_bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    kind: Kind
    namespace: str
    name: str
    meshed: int = 0
    running: int = 0
    status: str = ""
    traffic: Traffic | None = None
    tcp: Tcp | None = None
    server: str = ""
    denied: int | None = None
    apex: str = ""
    leaf: str = ""
    weight: str = ""
    note: str = field(default="", compare=False)

    @property
    def order(self) -> tuple[str, str, str, str]:
        return self.namespace, self.name, self.apex, self.leaf


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns depend on. `seconds` is the window's length."""

    seconds: float
    namespaces: bool = False
    wide: bool = False


def tables(rows: Sequence[Row], layout: Layout) -> str:
    """One table for each kind, an empty line between. The width of the names is shared."""
    by_kind = [(kind, [row for row in rows if row.kind is kind]) for kind in ORDER]
    present = [(kind, of_kind) for kind, of_kind in by_kind if of_kind]
    prefixed = len(present) > 1
    width = max(len(_name(row, prefixed)) for row in rows)
    return "\n".join(_table(kind, of_kind, layout, prefixed, width) for kind, of_kind in present)


def _table(kind: Kind, rows: Iterable[Row], layout: Layout, prefixed: bool, width: int) -> str:
    """The guide's columns come first and in its order; Linkerd's others follow."""
    columns = _identifying(kind, layout, width)
    split = kind is kinds.TRAFFIC_SPLIT
    columns += [Column("SUCCESS"), Column("RPS")]
    columns += [Column(f"LATENCY_{p}") for p in ("P50", "P95", "P99")]
    if kind is kinds.POD:
        columns.append(Column("STATUS"))
    if kind in (kinds.SERVER, kinds.HTTP_ROUTE):
        columns.append(Column("UNAUTHORIZED"))
    if kind not in _WITHOUT_TCP:
        columns.append(Column("TCP_CONN"))
        columns += [Column("READ_BYTES/SEC"), Column("WRITE_BYTES/SEC")] if layout.wide else []
    cells = [_cells(row, layout, prefixed, split) for row in sorted(rows, key=lambda row: row.order)]
    return right_aligned(columns, [[cell[c.heading] for c in columns] for cell in cells])


def _identifying(kind: Kind, layout: Layout, width: int) -> list[Column]:
    columns = [Column("NAMESPACE", left=True)] if layout.namespaces else []
    columns.append(Column("NAME", left=True, width=width))
    if kind is kinds.TRAFFIC_SPLIT:
        return [*columns, Column("APEX", left=True), Column("LEAF", left=True), Column("WEIGHT")]
    if kind is kinds.HTTP_ROUTE:
        return [*columns, Column("SERVER")]
    return columns if kind in kinds.POLICY_KINDS else [*columns, Column("MESHED")]


def _cells(row: Row, layout: Layout, prefixed: bool, split: bool) -> dict[str, str]:
    cells = {
        "NAMESPACE": row.namespace,
        "NAME": _name(row, prefixed),
        "APEX": row.apex,
        "LEAF": row.leaf,
        "WEIGHT": row.weight,
        "SERVER": row.server,
        "STATUS": row.status,
        "MESHED": f"{row.meshed}/{row.running}" if row.kind.pods else numbers.NONE,
        "UNAUTHORIZED": numbers.NONE if row.denied is None else numbers.per_second(row.denied, layout.seconds),
    }
    return cells | _traffic_cells(row.traffic, layout.seconds) | _tcp_cells(row, layout.seconds)


def _traffic_cells(traffic: Traffic | None, seconds: float) -> dict[str, str]:
    if traffic is None or not traffic.total:
        return dict.fromkeys(("SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99"), numbers.NONE)
    return {
        "SUCCESS": numbers.percent(traffic.success_rate),
        "RPS": numbers.per_second(traffic.total, seconds),
        "LATENCY_P50": numbers.milliseconds(traffic.p50),
        "LATENCY_P95": numbers.milliseconds(traffic.p95),
        "LATENCY_P99": numbers.milliseconds(traffic.p99),
    }


def _tcp_cells(row: Row, seconds: float) -> dict[str, str]:
    tcp = row.tcp
    idle = tcp is None or not (tcp.connections or tcp.read_bytes or tcp.write_bytes)
    if tcp is None or (idle and row.traffic is None):
        return dict.fromkeys(("TCP_CONN", "READ_BYTES/SEC", "WRITE_BYTES/SEC"), numbers.NONE)
    return {
        "TCP_CONN": str(tcp.connections),
        "READ_BYTES/SEC": numbers.bytes_per_second(tcp.read_bytes, seconds),
        "WRITE_BYTES/SEC": numbers.bytes_per_second(tcp.write_bytes, seconds),
    }


def _name(row: Row, prefixed: bool) -> str:
    if not prefixed:
        return row.name
    prefix = "" if row.kind in kinds.POLICY_KINDS else row.kind.short
    return f"{prefix}/{row.name}"


def json_rows(rows: Iterable[Row], seconds: float) -> list[dict[str, Any]]:
    ordered = sorted(rows, key=lambda row: (ORDER.index(row.kind), row.order))
    return [_json_row(row, seconds) for row in ordered]


def _json_row(row: Row, seconds: float) -> dict[str, Any]:
    traffic = row.traffic if row.traffic is not None and row.traffic.total else None
    value: dict[str, Any] = {"namespace": row.namespace, "kind": row.kind.name, "name": row.name}
    if row.kind.pods:
        value["meshed"] = f"{row.meshed}/{row.running}"
    value |= {
        "success": traffic.success_rate if traffic else None,
        "rps": traffic.total / seconds if traffic else None,
        "latency_ms_p50": round(traffic.p50) if traffic else None,
        "latency_ms_p95": round(traffic.p95) if traffic else None,
        "latency_ms_p99": round(traffic.p99) if traffic else None,
    }
    if row.tcp is not None and row.kind not in _WITHOUT_TCP:
        value["tcp_open_connections"] = row.tcp.connections
        value["tcp_read_bytes_rate"] = row.tcp.read_bytes / seconds
        value["tcp_write_bytes_rate"] = row.tcp.write_bytes / seconds
    if row.apex:
        value |= {"apex": row.apex, "leaf": row.leaf, "weight": row.weight}
    if row.denied is not None:
        value["unauthorized"] = row.denied / seconds
    if row.kind is kinds.POD and row.status:
        value["status"] = row.status
    return value
