"""JSON for people and programs: indented, in the order of the schema."""

from __future__ import annotations

from typing import Any

import orjson


def indented(value: Any) -> str:
    """Two spaces, with a newline at the end."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def line(value: Any) -> str:
    """One line."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE).decode()
