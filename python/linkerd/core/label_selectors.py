"""Label selectors as they are written on a command line: `app=web,tier in (a, b),!canary`."""

from __future__ import annotations

import re

from linkerd.core.labels import Requirement, Selector

_KEY = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_VALUE = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_TERM = re.compile(
    rf"\s*(?:!\s*(?P<absent>{_KEY})"
    rf"|(?P<member>{_KEY})\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\)"
    rf"|(?P<equal>{_KEY})\s*(?P<operator>==|=|!=)\s*(?P<value>{_VALUE})?"
    rf"|(?P<present>{_KEY}))\s*(?:,|$)"
)


def parse_label_selector(text: str) -> Selector:
    """Everything for an empty text. Raises ValueError naming the part that cannot be read."""
    requirements = []
    position = 0
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None:
            raise ValueError(f"`{text}` is not a label selector: cannot read `{text[position:].strip()}`")
        requirements.append(_requirement(term))
        position = term.end()
    return Selector(tuple(requirements))


def _requirement(term: re.Match[str]) -> Requirement:
    if term["absent"]:
        return Requirement(term["absent"], "DoesNotExist")
    if term["present"]:
        return Requirement(term["present"], "Exists")
    if term["member"]:
        values = frozenset(value.strip() for value in term["values"].split(","))
        return Requirement(term["member"], "In" if term["set"] == "in" else "NotIn", values)
    operator = "NotIn" if term["operator"] == "!=" else "In"
    return Requirement(term["equal"], operator, frozenset([term["value"] or ""]))
