"""Regular expressions in resources: whether the proxy will be able to use them."""

from __future__ import annotations

import re

_UNSUPPORTED = re.compile(r"\(\?(=|!|<=|<!|P=)|(?<!\\)(\\\\)*\\[1-9]")


def check_pattern(field: str, pattern: str) -> None:
    """That it compiles. Python's syntax contains that of the proxy, but for look-around and back-references.

    Raises ValueError.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{field}: `{pattern}` is not a regular expression: {error}") from None
    found = _UNSUPPORTED.search(pattern)
    if found:
        raise ValueError(f"{field}: `{pattern}`: look-around and back-references (`{found[0]}`) are not supported")
