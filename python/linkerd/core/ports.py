"""Sets of ports as annotations and flags write them: `25,587,3306,4000-4010`, and names of container ports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LARGEST = 65535


@dataclass(frozen=True, slots=True)
class PortSet:
    """Inclusive ranges, sorted."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and any(low <= port <= high for low, high in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __str__(self) -> str:
        return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in self.ranges)


def parse_port_set(text: str, names: Mapping[str, int] | None = None) -> PortSet:
    """Comma-separated numbers, ranges `low-high`, and the given names. Raises ValueError, naming the bad part."""
    ranges = [_parse_range(part.strip(), names or {}) for part in text.split(",") if part.strip()]
    return PortSet(tuple(sorted(set(ranges))))


def parse_port_set_leniently(text: str, names: Mapping[str, int] | None = None) -> tuple[PortSet, list[str]]:
    """As above, but the bad parts are left out and given back, for text that admission let through."""
    good: list[tuple[int, int]] = []
    bad: list[str] = []
    for part in (p.strip() for p in text.split(",")):
        try:
            if part:
                good.append(_parse_range(part, names or {}))
        except ValueError:
            bad.append(part)
    return PortSet(tuple(sorted(set(good)))), bad


def port_set(ports: Iterable[int]) -> PortSet:
    return PortSet(tuple((port, port) for port in sorted(set(ports))))


def parse_port(text: str) -> int:
    """1 to 65535. Raises ValueError."""
    if not (text.isascii() and text.isdigit()) or not 0 < int(text) <= LARGEST:
        raise ValueError(f"`{text}` is not a port: 1 to {LARGEST} is")
    return int(text)


def _parse_range(part: str, names: Mapping[str, int]) -> tuple[int, int]:
    if part in names:
        return names[part], names[part]
    low, dash, high = part.partition("-")
    if not dash:
        return parse_port(part), parse_port(part)
    first, last = parse_port(low.strip()), parse_port(high.strip())
    if first > last:
        raise ValueError(f"`{part}` is not a range of ports: the first is larger than the last")
    return first, last
