from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.cluster.node.quantities import in_units_of, parse_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("250m", Fraction(1, 4)),
        ("64Mi", 64 * 2**20),
        ("1.5Gi", 3 * 2**29),
        ("1e3", 1000),
        ("2E", 2 * 10**18),
        ("100k", 100_000),
        (".5", Fraction(1, 2)),
    ],
)
def test_quantities(text: str, value: Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "x", "1 Mi", "1Kb", "--1"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


@given(st.integers(0, 10**9), st.integers(1, 10**6))
def test_units_are_rounded_up(value: int, divisor: int) -> None:
    units = in_units_of(Fraction(value), Fraction(divisor))
    assert (units - 1) * divisor < value <= units * divisor
