"""What is wrong with a ServiceProfile, said so that it can be mended: field, value, what can be.

Stricter than the schema: a regular expression that does not compile, or a name that no Service can have, would
otherwise be found out by nothing happening.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from linkerd.core.authorities import split_host_port
from linkerd.core.patterns import check_pattern
from linkerd.destination.profiles import parse_thousandths
from linkerd.kit.durations import parse_duration

Object = Mapping[str, Any]

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "HEAD", "TRACE")

_SPEC = {"routes", "retryBudget", "dstOverrides", "opaquePorts"}
_ROUTE = {"name", "condition", "responseClasses", "isRetryable", "timeout"}
_REQUEST = {"pathRegex", "method", "all", "any", "not"}
_CLASS = {"condition", "isFailure"}
_RESPONSE = {"status", "all", "any", "not"}
_BUDGET = {"retryRatio", "minRetriesPerSecond", "ttl"}
_OVERRIDE = {"authority", "weight"}
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LONGEST_TTL = 60.0  # seconds; a proxy has no retries at all with a budget outside of 1 s to 60 s


def check_service_profile(obj: Object) -> None:
    """Raises ValueError, for the first thing that is wrong."""
    check_name(obj["metadata"].get("name") or "")
    spec = obj.get("spec") or {}
    _known("spec", spec, _SPEC)
    names: set[str] = set()
    for position, route in enumerate(spec.get("routes") or []):
        _check_route(f"spec.routes[{position}]", route)
        if route["name"] in names:
            raise ValueError(f"spec.routes[{position}].name: `{route['name']}` is the name of an earlier route already")
        names.add(route["name"])
    if spec.get("retryBudget") is not None:
        _check_budget("spec.retryBudget", spec["retryBudget"])
    _check_overrides(spec.get("dstOverrides") or [])


def check_name(name: str) -> None:
    """The full name of a Service, or of a host outside. Raises ValueError."""
    labels = name.rstrip(".").split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"metadata.name: `{name}` is not a DNS name")
    if len(labels) < 2:
        hint = "the full name of a Service is wanted, as in `web.default.svc.cluster.local`"
        raise ValueError(f"metadata.name: `{name}`: {hint}")


def _check_route(field: str, route: Object) -> None:
    _known(field, route, _ROUTE)
    if not route.get("name"):
        raise ValueError(f"{field}.name must be given")
    if not route.get("condition"):
        raise ValueError(f"{field}.condition must be given")
    _check_request(f"{field}.condition", route["condition"])
    for position, response in enumerate(route.get("responseClasses") or []):
        inner = f"{field}.responseClasses[{position}]"
        _known(inner, response, _CLASS)
        if not response.get("condition"):
            raise ValueError(f"{inner}.condition must be given")
        _check_response(f"{inner}.condition", response["condition"])
    if route.get("timeout"):
        _duration(f"{field}.timeout", route["timeout"])


def _check_request(field: str, condition: Object) -> None:
    _known(field, condition, _REQUEST)
    if not any(condition.get(name) for name in _REQUEST):
        raise ValueError(f"{field}: one of {', '.join(sorted(_REQUEST))} must be given")
    if condition.get("pathRegex"):
        check_pattern(f"{field}.pathRegex", condition["pathRegex"])
    method = condition.get("method")
    if method and str(method).upper() not in METHODS:
        raise ValueError(f"{field}.method: `{method}`: one of {', '.join(METHODS)} can be")
    for name in ("all", "any", "not"):
        for inner, part in _parts(f"{field}.{name}", condition.get(name)):
            _check_request(inner, part)


def _check_response(field: str, condition: Object) -> None:
    _known(field, condition, _RESPONSE)
    if not any(condition.get(name) for name in _RESPONSE):
        raise ValueError(f"{field}: one of {', '.join(sorted(_RESPONSE))} must be given")
    if condition.get("status"):
        _check_status(f"{field}.status", condition["status"])
    for name in ("all", "any", "not"):
        for inner, part in _parts(f"{field}.{name}", condition.get(name)):
            _check_response(inner, part)


def _check_status(field: str, status: Object) -> None:
    low, high = status.get("min"), status.get("max")
    if low is None and high is None:
        raise ValueError(f"{field}: one of min and max must be given")
    for name, value in (("min", low), ("max", high)):
        if value is not None and not (isinstance(value, int) and 100 <= value <= 599):
            raise ValueError(f"{field}.{name}: `{value}`: 100 to 599 can be")
    if low is not None and high is not None and low > high:
        raise ValueError(f"{field}: min `{low}` is larger than max `{high}`")


def _check_budget(field: str, budget: Object) -> None:
    _known(field, budget, _BUDGET)
    for name in sorted(_BUDGET):
        if budget.get(name) is None:
            raise ValueError(f"{field}.{name} must be given")
    ratio, per_second = budget["retryRatio"], budget["minRetriesPerSecond"]
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1000:
        raise ValueError(f"{field}.retryRatio: `{ratio}`: 0 to 1000 can be")
    if isinstance(per_second, bool) or not isinstance(per_second, int) or not 0 <= per_second < 2**32:
        raise ValueError(f"{field}.minRetriesPerSecond: `{per_second}`: a whole number of 0 and above can be")
    ttl = _duration(f"{field}.ttl", budget["ttl"])
    if not 1 <= ttl <= _LONGEST_TTL:
        raise ValueError(f"{field}.ttl: `{budget['ttl']}`: 1s to 60s can be")


def _check_overrides(overrides: list[Object]) -> None:
    for position, override in enumerate(overrides):
        field = f"spec.dstOverrides[{position}]"
        _known(field, override, _OVERRIDE)
        for name in ("authority", "weight"):
            if override.get(name) in (None, ""):
                raise ValueError(f"{field}.{name} must be given")
        _check_authority(f"{field}.authority", override["authority"])
        try:
            parse_thousandths(override["weight"])
        except ValueError as error:
            raise ValueError(f"{field}.weight: {error}") from None
    if overrides and not any(parse_thousandths(override["weight"]) for override in overrides):
        raise ValueError("spec.dstOverrides: at least one weight must be larger than 0")


def _check_authority(field: str, authority: str) -> None:
    try:
        host, _ = split_host_port(authority)
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None
    if not all(_LABEL.fullmatch(label) for label in host.lower().rstrip(".").split(".")):
        raise ValueError(f"{field}: `{authority}`: a DNS name can be, with `:` and a port or without")


def _duration(field: str, value: Any) -> float:
    try:
        seconds = parse_duration(str(value))
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None
    if seconds < 0:
        raise ValueError(f"{field}: `{value}` is negative")
    return seconds


def _known(field: str, value: Any, names: set[str]) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(f"{field}: a mapping is wanted")
    for name in value:
        if name not in names:
            raise ValueError(f"{field}.{name} is unknown; {', '.join(sorted(names))} can be")


def _parts(field: str, value: Any) -> list[tuple[str, Any]]:
    """The schema of `not` says list where its meaning is one condition; both are met in the wild."""
    if not value:
        return []
    if isinstance(value, list):
        return [(f"{field}[{position}]", part) for position, part in enumerate(value)]
    return [(field, value)]
