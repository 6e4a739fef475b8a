"""Quantiles from cumulative histogram buckets, as Prometheus' `histogram_quantile` computes them.

Done here rather than in PromQL so that one pass over the buckets gives all quantiles: the sum over the buckets is the
dear part of such a query.
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def quantile(q: float, buckets: Mapping[float, float]) -> float:
    """The value below which the share `q` of the observations lies; `buckets` maps upper bounds (the last one infinite)
    to cumulative counts. NaN without observations.

    Linear within a bucket, whose lower end is 0 for the first; in the last, infinite one the highest finite bound.
    """
    bounds = sorted(buckets)
    counts = _monotone([buckets[bound] for bound in bounds])
    if not bounds or not math.isinf(bounds[-1]) or counts[-1] <= 0:
        return math.nan
    rank = q * counts[-1]
    index = next(i for i, count in enumerate(counts) if count >= rank)
    if index == len(bounds) - 1:
        return bounds[-2] if len(bounds) > 1 else math.nan
    lower, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    inside = counts[index] - below
    if inside <= 0:
        return bounds[index]
    return lower + (bounds[index] - lower) * (rank - below) / inside


def _monotone(counts: list[float]) -> list[float]:
    """Buckets that were not read at one instant may decrease by a little; that is no negative observation."""
    highest = 0.0
    result = []
    for count in counts:
        highest = max(highest, count)
        result.append(highest)
    return result
