"""Retries, timeouts and circuit breaking, as annotations of Services and routes ask for them.

On a Service, one that cannot be read switches its feature off and is logged; on a route, admission refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from linkerd.kit.durations import parse_simple_duration

Annotations = Mapping[str, str]

RETRY_HTTP = "retry.linkerd.io/http"
RETRY_GRPC = "retry.linkerd.io/grpc"
RETRY_LIMIT = "retry.linkerd.io/limit"
RETRY_TIMEOUT = "retry.linkerd.io/timeout"
TIMEOUTS = tuple(f"timeout.linkerd.io/{name}" for name in ("request", "response", "idle"))
ACCRUAL = "balancer.linkerd.io/failure-accrual"
_CONSECUTIVE = f"{ACCRUAL}-consecutive"
_UNIFIED = "balancer.alpha.linkerd.io/failure-accrual"
PENALIZE = "balancer.alpha.linkerd.io/penalize-failures"
_BIASER = "balancer.alpha.linkerd.io/load-biaser"

GRPC_CONDITIONS = ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")


@dataclass(frozen=True, slots=True)
class HttpRetry:
    limit: int
    statuses: tuple[tuple[int, int], ...]
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class GrpcRetry:
    limit: int
    conditions: tuple[str, ...]
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Timeouts:
    request: float | None = None
    response: float | None = None
    idle: float | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in (self.request, self.response, self.idle))


@dataclass(frozen=True, slots=True)
class Backoff:
    low: float = 1.0
    high: float = 60.0
    jitter: float = 0.5


@dataclass(frozen=True, slots=True)
class Consecutive:
    """So many failures in a row take an endpoint out."""

    failures: int
    backoff: Backoff


@dataclass(frozen=True, slots=True)
class Unified:
    """So many in a row, or too low a share of successes in a window."""

    failures: int
    backoff: Backoff
    success_rate: float
    window: float
    requests: int
    honor_retry_after: bool


Accrual = Consecutive | Unified


@dataclass(frozen=True, slots=True)
class Penalty:
    """Failures make an endpoint look slow."""

    penalty: float = 5.0
    max_retry_after: float = 300.0


def parse_http_retry(annotations: Annotations) -> HttpRetry | None:
    """Raises ValueError, naming the annotation."""
    text = annotations.get(RETRY_HTTP)
    if text is None:
        return None
    statuses = tuple(_statuses(part.strip()) for part in text.split(",") if part.strip())
    return HttpRetry(_limit(annotations), statuses, _duration(annotations, RETRY_TIMEOUT))


def parse_grpc_retry(annotations: Annotations) -> GrpcRetry | None:
    text = annotations.get(RETRY_GRPC)
    if text is None:
        return None
    conditions = tuple(part.strip() for part in text.split(",") if part.strip())
    for condition in conditions:
        if condition not in GRPC_CONDITIONS:
            raise ValueError(f"{RETRY_GRPC}: `{condition}`: one of {', '.join(GRPC_CONDITIONS)} can be")
    return GrpcRetry(_limit(annotations), conditions, _duration(annotations, RETRY_TIMEOUT))


def parse_timeouts(annotations: Annotations) -> Timeouts:
    """A timeout of 0 is none."""
    return Timeouts(*(_duration(annotations, name) or None for name in TIMEOUTS))


def parse_accrual(annotations: Annotations) -> Accrual | None:
    mode = annotations.get(ACCRUAL)
    if mode is None:
        return None
    failures = _integer(annotations, f"{_CONSECUTIVE}-max-failures", 7)
    backoff = _backoff(annotations)
    if mode == "consecutive":
        return Consecutive(failures, backoff)
    if mode != "unified":
        raise ValueError(f"{ACCRUAL}: `{mode}`: consecutive or unified can be")
    rate = _number(annotations, f"{_UNIFIED}-success-rate-threshold", 0.8)
    window = _duration(annotations, f"{_UNIFIED}-window", 10.0) or 0.0
    requests = _integer(annotations, f"{_UNIFIED}-min-requests", 5)
    if not 0 <= rate <= 1:
        raise ValueError(f"{_UNIFIED}-success-rate-threshold: `{rate}`: 0 to 1 can be")
    if window < 0.01:
        raise ValueError(f"{_UNIFIED}-window: at least 10ms can be")
    if requests > 10**6:
        raise ValueError(f"{_UNIFIED}-min-requests: `{requests}`: at most 1000000 can be")
    honor = annotations.get(f"{_UNIFIED}-honor-retry-after") == "true"
    return Unified(failures, backoff, rate, window, requests, honor)


def parse_penalty(annotations: Annotations) -> Penalty | None:
    if annotations.get(PENALIZE) != "true":
        return None
    penalty = _duration(annotations, f"{_BIASER}-penalty", 5.0)
    longest = _duration(annotations, f"{_BIASER}-max-retry-after", 300.0)
    return Penalty(penalty or 0.0, longest or 0.0)


def check_route_annotations(annotations: Annotations) -> None:
    """Raises ValueError for the first one that cannot be read."""
    parse_http_retry(annotations)
    parse_grpc_retry(annotations)
    parse_timeouts(annotations)


def _statuses(text: str) -> tuple[int, int]:
    if text == "5xx":
        return 500, 599
    if text == "gateway-error":
        return 502, 504
    low, dash, high = text.partition("-")
    try:
        first, last = int(low), int(high) if dash else int(low)
    except ValueError:
        raise ValueError(f"{RETRY_HTTP}: `{text}`: 5xx, gateway-error, a status or a range A-B can be") from None
    if not 100 <= first <= last < 600:
        raise ValueError(f"{RETRY_HTTP}: `{text}`: statuses are 100 to 599, the lower one first")
    return first, last


def _limit(annotations: Annotations) -> int:
    """Zero counts as not set."""
    return _integer(annotations, RETRY_LIMIT, 1) or 1


def _backoff(annotations: Annotations) -> Backoff:
    low = _duration(annotations, f"{_CONSECUTIVE}-min-penalty", 1.0) or 0.0
    high = _duration(annotations, f"{_CONSECUTIVE}-max-penalty", 60.0) or 0.0
    jitter = _number(annotations, f"{_CONSECUTIVE}-jitter-ratio", 0.5)
    if low > high or high <= 0:
        raise ValueError(f"{_CONSECUTIVE}-min-penalty must not be larger than -max-penalty, which must not be 0")
    if not 0 <= jitter <= 100:
        raise ValueError(f"{_CONSECUTIVE}-jitter-ratio: `{jitter}`: 0 to 100 can be")
    return Backoff(low, high, jitter)


def _duration(annotations: Annotations, name: str, default: float | None = None) -> float | None:
    text = annotations.get(name)
    if text is None:
        return default
    try:
        return parse_simple_duration(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _integer(annotations: Annotations, name: str, default: int) -> int:
    text = annotations.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**32:
        raise ValueError(f"{name}: `{text}` is not a whole number of 0 and above")
    return int(text)


def _number(annotations: Annotations, name: str, default: float) -> float:
    text = annotations.get(name)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name}: `{text}` is not a number") from None
