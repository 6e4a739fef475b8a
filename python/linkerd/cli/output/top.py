"""The table of `top`: responses of a tap, counted by who called what. Pure but for the terminal's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from linkerd.cli.output import tap as tap_output
from linkerd.cli.output.numbers import percent, rounded_duration
from linkerd.proto import viz_tap_pb2 as tap

_OPEN_LIMIT = 50_000  # requests whose end has not been seen; of more, the oldest are forgotten
_FAILED_GRPC = frozenset({2, 4, 13, 14, 15})  # Unknown, DeadlineExceeded, Internal, Unavailable, DataLoss
_GAP = "  "

Key = tuple[str, ...]


@dataclass(slots=True)
class Line:
    """One row: how often, how fast (nanoseconds), how well."""

    count: int = 0
    best: int = 0
    worst: int = 0
    last: int = 0
    successes: int = 0

    def add(self, latency: int, success: bool) -> None:
        self.best = latency if not self.count else min(self.best, latency)
        self.worst = max(self.worst, latency)
        self.last = latency
        self.count += 1
        self.successes += success


class Top:
    """`add` takes a tap's events; `rows` gives the table."""

    def __init__(self, *, routes: bool = False, hide_sources: bool = False) -> None:
        self._routes = routes
        self._hide_sources = hide_sources
        self._lines: dict[Key, Line] = {}
        self._open: dict[tuple[int, int], tuple[Key, int]] = {}

    @property
    def headings(self) -> list[str]:
        source = [] if self._hide_sources else ["Source"]
        what = ["Route"] if self._routes else ["Method", "Path"]
        return [*source, "Destination", *what, "Count", "Best", "Worst", "Last", "Success Rate"]

    @property
    def right_aligned(self) -> int:
        """How many columns at the end are numbers."""
        return 5

    def add(self, event: tap.TapEvent) -> None:
        part = tap_output.part_of(event)
        if not part:
            return
        stream = tap_output.stream_of(event)
        if part == "request_init":
            self._open[stream] = (self._key(event), 0)
            if len(self._open) > _OPEN_LIMIT:
                del self._open[next(iter(self._open))]
        elif part == "response_init" and stream in self._open:
            self._open[stream] = (self._open[stream][0], event.http.response_init.http_status)
        elif part == "response_end" and stream in self._open:
            key, status = self._open.pop(stream)
            end = event.http.response_end
            latency = tap_output.nanoseconds(end.since_request_init)
            self._lines.setdefault(key, Line()).add(latency, _succeeded(status, end.eos))

    def _key(self, event: tap.TapEvent) -> Key:
        source = [] if self._hide_sources else [_who(event.source, event.source_meta.labels)]
        destination = _who(event.destination, event.destination_meta.labels)
        if self._routes:
            return (*source, destination, event.route_meta.labels.get("route") or "[DEFAULT]")
        request = event.http.request_init
        return (*source, destination, tap_output.method(request.method), request.path)

    def rows(self) -> list[list[str]]:
        """The most frequent first."""
        ordered = sorted(self._lines.items(), key=lambda item: -item[1].count)
        return [[*key, *_numbers(line)] for key, line in ordered]


def _numbers(line: Line) -> list[str]:
    latencies = [rounded_duration(value) for value in (line.best, line.worst, line.last)]
    return [str(line.count), *latencies, percent(line.successes / line.count)]


def _succeeded(status: int, eos: tap_output.viz_pb2.Eos) -> bool:
    kind = eos.WhichOneof("end")
    if kind == "reset_error_code":
        return False
    return 0 < status < 500 and not (kind == "grpc_status_code" and eos.grpc_status_code in _FAILED_GRPC)


def _who(address: tap_output.viz_net_pb2.TcpAddress, labels: dict[str, str]) -> str:
    return labels.get("pod") or tap_output.ip(address.ip)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: int) -> list[str]:
    """Lines, columns two apart, the last `right` ones aligned to the right."""
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    first_right = len(headings) - right
    return [
        _GAP.join(
            cell.rjust(width) if i >= first_right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [headings, *rows]
    ]
