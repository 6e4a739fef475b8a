"""What metrics-api itself exposes: how many pods there are with a proxy and without, for the alert on those without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily

from linkerd.viz.index import PodIndex


class PodGauge:
    """A collector of Prometheus' client. The label is not `namespace`, which the scrape sets to metrics-api's own."""

    def __init__(self, pods: PodIndex, control_plane: str, ignored: frozenset[str] = frozenset()) -> None:
        self._pods = pods
        self._control_plane = control_plane
        self._ignored = ignored

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            "viz_pods", "Pods by namespace and by whether they are meshed", labels=["of_namespace", "meshed"]
        )
        for (namespace, meshed), count in sorted(self._counts().items()):
            family.add_metric([namespace, "true" if meshed else "false"], count)
        yield family

    def _counts(self) -> Counter[tuple[str, bool]]:
        """Pods in the host's network cannot be meshed, and those that have ended need not be."""
        return Counter(
            (pod.namespace, pod.control_plane == self._control_plane)
            for pod in self._pods.pods.values()
            if pod.counts and not pod.host_network and pod.namespace not in self._ignored
        )
