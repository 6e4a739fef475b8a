"""What identity counts. Names as Linkerd's where it has one."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ISSUER_TTL = Gauge("issuer_cert_ttl_seconds", "Seconds until the issuer's certificate expires")
ISSUER_LOADED = Gauge("issuer_loaded", "Whether an issuer is loaded that leads to a trust anchor")
ISSUER_RELOADS = Counter("issuer_reloads", "Times that the issuer's files were read again", ["result"])
CERTIFICATIONS = Counter("certify_requests", "Answers to Certify", ["code"])
EVENTS_DROPPED = Counter("identity_events_dropped", "Kubernetes Events not written, to spare the API server")
ANCHOR_TTL = Gauge("anchor_cert_ttl_seconds", "Seconds until the trust anchor expires whose key is held")
ANCHOR_KEY_HELD = Gauge("anchor_key_held", "Whether issuer and anchor can be renewed without anybody's help")
RENEWALS = Counter("authority_renewals", "Steps in renewing issuer and anchor", ["result"])
REVIEW_SECONDS = Histogram(
    "token_review_seconds", "How long the API server takes for a TokenReview", buckets=(0.005, 0.02, 0.1, 0.5, 2, 10)
)
