"""How well we hear the API server, per resource: what tells a stale answer from a quiet cluster."""

from __future__ import annotations

import time

from prometheus_client import Counter, Gauge

UP = Gauge("kubernetes_watch_up", "Whether the last attempt to list or watch succeeded", ["resource"])
SILENCE = Gauge("kubernetes_watch_silence_seconds", "Since the API server last told us something", ["resource"])
FAILURES = Counter("kubernetes_watch_failures", "Lists and watches that failed", ["resource"])
LISTS = Counter("kubernetes_lists", "Times that everything was listed, at the start or again", ["resource"])


class WatchMetrics:
    """Those of one follower."""

    def __init__(self, resource: str) -> None:
        self._up = UP.labels(resource)
        self._failures = FAILURES.labels(resource)
        self._lists = LISTS.labels(resource)
        self._last = time.monotonic()
        SILENCE.labels(resource).set_function(lambda: time.monotonic() - self._last)

    def listed(self) -> None:
        self._lists.inc()
        self.heard()

    def heard(self) -> None:
        self._up.set(1)
        self._last = time.monotonic()

    def failed(self) -> None:
        self._up.set(0)
        self._failures.inc()
