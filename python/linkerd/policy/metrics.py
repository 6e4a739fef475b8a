"""What policy counts: its streams, and what they share."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

STREAMS = Gauge("policy_streams", "Subscriptions that are open", ["direction"])
TOPICS = Gauge("policy_topics", "Different things that are subscribed to", ["direction"])
MESSAGES = Counter("policy_messages", "Policies sent", ["direction"])
REFUSED = Counter("policy_refused", "Subscriptions refused", ["direction", "code"])
STALLED = Counter("policy_stalled", "Subscriptions ended because their reader read nothing", ["direction"])
FAILURES = Counter("policy_translation_failures", "Policies that could not be computed and kept their old value")
EVENTS = Counter("policy_events", "Changes of the cluster", ["resource"])
STATUS_WRITES = Counter("policy_status_writes", "Statuses written to routes and policies", ["result"])
