"""Reading a proxy's counters in tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Metrics:
    """Samples of one or several proxies."""

    samples: tuple[tuple[str, Mapping[str, str], float], ...]

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of that name whose labels have these values."""
        return sum(
            value
            for sample, found, value in self.samples
            if sample == name and all(found.get(key) == wanted for key, wanted in labels.items())
        )


def parse_metrics(text: str) -> Metrics:
    """The text of `/metrics`, or of several behind one another as `diagnostics proxy-metrics` prints them."""
    lines = [line for line in text.splitlines() if line != "# EOF"]
    families = text_string_to_metric_families("\n".join(_unique_types(lines)) + "\n")
    return Metrics(tuple((s.name, s.labels, s.value) for family in families for s in family.samples))


def _unique_types(lines: list[str]) -> list[str]:
    """Without comments: families may stand several times, once a proxy, which the parser takes amiss."""
    return [line for line in lines if line and not line.startswith("#")]
