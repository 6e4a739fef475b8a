import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.core.histograms import quantile

BOUNDS = [1.0, 2.0, 5.0, 10.0, 100.0, math.inf]


def buckets(values: list[float]) -> dict[float, float]:
    return {bound: sum(value <= bound for value in values) for bound in BOUNDS}


@pytest.mark.parametrize(("q", "expected"), [(0.5, 5.0), (0.75, 7.5), (1.0, 10.0)])
def test_lies_linearly_within_its_bucket(q, expected):
    assert quantile(q, buckets([3] * 50 + [7] * 50)) == expected


def test_above_the_last_finite_bound_is_that_bound():
    assert quantile(0.99, buckets([1] * 10 + [5000] * 10)) == 100.0


@pytest.mark.parametrize("histogram", [{}, {1.0: 0.0, math.inf: 0.0}, {1.0: 3.0, 2.0: 4.0}])
def test_nothing_observed_is_no_number(histogram):
    assert math.isnan(quantile(0.5, histogram))


@given(st.lists(st.floats(min_value=0.01, max_value=100), min_size=1), st.floats(min_value=0.01, max_value=1))
def test_falls_into_the_bucket_of_the_true_quantile(values, q):
    true = sorted(values)[math.ceil(q * len(values)) - 1]
    upper = next(bound for bound in BOUNDS if true <= bound)
    lower = max((bound for bound in BOUNDS if bound < upper), default=0.0)
    assert lower <= quantile(q, buckets(values)) <= upper


@given(st.lists(st.floats(min_value=0, max_value=1000), min_size=6, max_size=6))
def test_buckets_that_were_read_apart_do_no_harm(counts):
    found = quantile(0.95, dict(zip(BOUNDS, counts, strict=True)))
    assert math.isnan(found) or 0 <= found <= 100
