"""ServiceProfiles and TrafficSplits as values, parsed once from the API's objects.

A ValueError says which field cannot be used; such an object counts as absent. Admission refuses it before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from linkerd.core.workloads import Key
from linkerd.kit.durations import parse_duration

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class All:
    matches: tuple[RequestMatch | ResponseMatch, ...]


@dataclass(frozen=True, slots=True)
class Some:
    matches: tuple[RequestMatch | ResponseMatch, ...]


@dataclass(frozen=True, slots=True)
class Not:
    match: RequestMatch | ResponseMatch


@dataclass(frozen=True, slots=True)
class Path:
    regex: str


@dataclass(frozen=True, slots=True)
class Method:
    name: str


@dataclass(frozen=True, slots=True)
class Status:
    low: int
    high: int


RequestMatch = All | Some | Not | Path | Method
ResponseMatch = All | Some | Not | Status


@dataclass(frozen=True, slots=True)
class ResponseClass:
    condition: ResponseMatch
    is_failure: bool


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    condition: RequestMatch
    responses: tuple[ResponseClass, ...] = ()
    is_retryable: bool = False
    timeout: float = 0.0  # seconds; 0 is none


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """Linkerd's default: a fifth more requests, at least ten a second, over ten seconds."""

    ratio: float = 0.2
    per_second: int = 10
    ttl: float = 10.0


@dataclass(frozen=True, slots=True)
class Override:
    """Traffic meant for a Service that goes to `authority` instead, in this share."""

    authority: str
    weight: int  # thousandths


@dataclass(frozen=True, slots=True)
class ServiceProfile:
    namespace: str
    name: str
    routes: tuple[Route, ...] = ()
    budget: RetryBudget = RetryBudget()
    overrides: tuple[Override, ...] = ()

    @property
    def key(self) -> Key:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    namespace: str
    name: str
    created: str
    service: str
    backends: tuple[tuple[str, int], ...]  # Service of the same namespace and its weight in thousandths

    @property
    def key(self) -> Key:
        return self.namespace, self.name


def parse_service_profile(obj: Object) -> ServiceProfile:
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    return ServiceProfile(
        namespace=metadata["namespace"],
        name=metadata["name"].lower(),
        routes=tuple(_route(route) for route in spec.get("routes") or []),
        budget=_budget(spec["retryBudget"]) if spec.get("retryBudget") else RetryBudget(),
        overrides=tuple(
            Override(o["authority"], parse_thousandths(o["weight"])) for o in spec.get("dstOverrides") or []
        ),
    )


def parse_traffic_split(obj: Object) -> TrafficSplit:
    """v1alpha1 writes quantities (`500m`), v1alpha2 integers: only their ratio counts."""
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    domain = spec["service"].split(".")[0]  # a full name is allowed too; it is always one of this namespace
    backends = tuple((b["service"], parse_thousandths(b.get("weight", 0))) for b in spec.get("backends") or [])
    return TrafficSplit(
        metadata["namespace"], metadata["name"], metadata.get("creationTimestamp") or "", domain, backends
    )


_SUFFIXES = {
    "n": "1e-9",
    "u": "1e-6",
    "m": "1e-3",
    "": "1",
    "k": "1e3",
    "M": "1e6",
    "G": "1e9",
    "Ki": "1024",
    "Mi": "1048576",
}


def parse_thousandths(quantity: str | int | float) -> int:
    """A Kubernetes quantity in thousandths: `500m` is 500, `1` is 1000. Raises ValueError."""
    text = str(quantity)
    number = text.rstrip("numkMGKi")
    try:
        value = Decimal(number) * Decimal(_SUFFIXES[text[len(number) :]]) * 1000
        thousandths = int(value.to_integral_value(rounding="ROUND_CEILING"))
    except (InvalidOperation, KeyError, ValueError, OverflowError):
        raise ValueError(f"weight `{quantity}` is not a quantity") from None
    if thousandths < 0:
        raise ValueError(f"weight `{quantity}` is negative")
    return thousandths


def _route(route: Object) -> Route:
    timeout = parse_duration(route["timeout"]) if route.get("timeout") else 0.0
    return Route(
        name=route["name"],
        condition=parse_request_match(route["condition"]),
        responses=tuple(
            ResponseClass(parse_response_match(r["condition"]), bool(r.get("isFailure")))
            for r in route.get("responseClasses") or []
        ),
        is_retryable=bool(route.get("isRetryable")),
        timeout=timeout,
    )


def parse_request_match(condition: Object) -> RequestMatch:
    """Several predicates in one condition must all hold. Raises ValueError when there is none."""
    found: list[RequestMatch] = []
    if condition.get("pathRegex"):
        found.append(Path(condition["pathRegex"]))
    if condition.get("method"):
        found.append(Method(condition["method"].upper()))
    if condition.get("all"):
        found.append(All(tuple(parse_request_match(c) for c in condition["all"])))
    if condition.get("any"):
        found.append(Some(tuple(parse_request_match(c) for c in condition["any"])))
    if condition.get("not"):
        found.append(Not(_joined([parse_request_match(c) for c in _as_list(condition["not"])])))
    return _joined(found)


def parse_response_match(condition: Object) -> ResponseMatch:
    """As for requests; of a status range, an end that is not given is open."""
    found: list[ResponseMatch] = []
    if condition.get("status"):
        low, high = condition["status"].get("min") or 100, condition["status"].get("max") or 599
        found.append(Status(int(low), int(high)))
    if condition.get("all"):
        found.append(All(tuple(parse_response_match(c) for c in condition["all"])))
    if condition.get("any"):
        found.append(Some(tuple(parse_response_match(c) for c in condition["any"])))
    if condition.get("not"):
        found.append(Not(_joined([parse_response_match(c) for c in _as_list(condition["not"])])))
    return _joined(found)


def _joined(found: list[Any]) -> Any:
    if not found:
        raise ValueError("a condition without any predicate")
    return found[0] if len(found) == 1 else All(tuple(found))


def _as_list(value: Any) -> list[Object]:
    """The schema of `not` says list where its meaning is one condition; both are met in the wild."""
    return value if isinstance(value, list) else [value]


def _budget(budget: Object) -> RetryBudget:
    return RetryBudget(
        ratio=float(budget["retryRatio"]),
        per_second=int(budget["minRetriesPerSecond"]),
        ttl=parse_duration(budget["ttl"]),
    )
