"""What destination counts: its streams, what they share, and how far behind they are."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

STREAMS = Gauge("destination_streams", "Subscriptions that are open", ["kind"])
TOPICS = Gauge("destination_topics", "Different things that are subscribed to", ["kind"])
MESSAGES = Counter("destination_messages", "Messages sent", ["kind"])
REFUSED = Counter("destination_refused", "Subscriptions refused", ["kind", "code"])
STALLED = Counter("destination_stalled", "Subscriptions ended because their reader read nothing", ["kind"])
FAILURES = Counter("destination_translation_failures", "Answers that could not be computed and kept their old value")
EVENTS = Counter("destination_events", "Changes of the cluster", ["resource"])
LAG = Histogram(
    "destination_update_lag_seconds",
    "From a change of the cluster to the message being written",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
)
