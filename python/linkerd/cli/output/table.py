"""The table layouts of Linkerd's CLI, which scripts and eyes are used to.

- `right_aligned`: stat, routes, edges (Go's tabwriter with padding 3, right-aligned, its first 3 characters cut off).
- `padded`: authz and kin (each cell padded and followed by two spaces, the last one too).
- `left_aligned`: diagnostics endpoints (Go's tabwriter with padding 3; nothing after the last cell).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_PADDING = 3
_GAP = "  "
_FILL = "─"


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and how its cells lie. `width` is the least number of characters (so that several tables of one
    run can share a column's width)."""

    heading: str
    left: bool = False
    width: int = 0


Rows = Sequence[Sequence[str]]


def right_aligned(columns: Sequence[Column], rows: Rows) -> str:
    """Columns at least 3 spaces apart; `left` columns are padded on the right to their longest value."""
    widths = _widths(columns, rows)
    lines = [[c.heading for c in columns], *rows]
    gap = " " * _PADDING
    return "".join(
        gap.join(_pad(cell, width, column.left) for cell, width, column in zip(line, widths, columns, strict=True))
        + "\n"
        for line in lines
    )


def padded(columns: Sequence[Column], rows: Rows) -> str:
    """Each cell padded to its column and followed by two spaces. A cell that begins or ends with `─` is a branch of a
    tree and is filled with that."""
    widths = _widths(columns, rows)
    lines = [[c.heading for c in columns], *rows]
    return "".join(
        "".join(_filled(cell, width, column.left) for cell, width, column in zip(line, widths, columns, strict=True))
        + "\n"
        for line in lines
    )


def left_aligned(headings: Sequence[str], rows: Rows) -> str:
    """Every column but the last is as wide as its longest cell and 3 more."""
    widths = _widths([Column(heading) for heading in headings], rows)
    return "".join(
        "".join(cell.ljust(width + _PADDING) for cell, width in zip(line[:-1], widths, strict=False)) + line[-1] + "\n"
        for line in [list(headings), *rows]
    )


def _widths(columns: Sequence[Column], rows: Rows) -> list[int]:
    return [
        max(column.width, len(column.heading), *(len(row[i]) for row in rows))
        if rows
        else max(column.width, len(column.heading))
        for i, column in enumerate(columns)
    ]


def _pad(cell: str, width: int, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def _filled(cell: str, width: int, left: bool) -> str:
    fill = _FILL if cell.startswith(_FILL) or cell.endswith(_FILL) else " "
    return (cell.ljust(width, fill) if left else cell.rjust(width, fill)) + _GAP
