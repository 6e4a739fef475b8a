"""Kubernetes quantities (`250m`, `64Mi`, `1e3`) as exact numbers."""

from __future__ import annotations

import re
from fractions import Fraction

_SUFFIXES: dict[str, Fraction] = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    **{name: Fraction(1000**power) for power, name in enumerate("kMGTPE", start=1)},
    **{name + "i": Fraction(1024**power) for power, name in enumerate("KMGTPE", start=1)},
}
_PATTERN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")


def parse_quantity(text: str) -> Fraction:
    """The number that a quantity stands for. Raises ValueError."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"`{text}` is not a quantity")
    number, exponent, suffix = match.groups()
    if exponent:
        return Fraction(number) * Fraction(10) ** int(exponent[1:])
    return Fraction(number) * _SUFFIXES[suffix or ""]


def in_units_of(value: Fraction, divisor: Fraction) -> int:
    """How many divisors, rounded up, as the downward API does."""
    return -((-value) // divisor)
