"""Routes, and the ServiceProfile that they make."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$]")
_PARAMETER = re.compile(r"\{[^}/]*\}")


class ProfileError(ValueError):
    """The description cannot be read; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Statuses:
    """A class of responses of a route."""

    low: int
    high: int

    @property
    def is_failure(self) -> bool:
        return self.low >= 500


@dataclass(frozen=True, slots=True)
class Route:
    name: str
    method: str
    path_regex: str
    responses: tuple[Statuses, ...] = ()
    is_retryable: bool = False
    timeout: str = ""


def literal(path: str) -> str:
    """A regular expression that matches just this text."""
    return _SPECIAL.sub(lambda match: "\\" + match[0], path)


def template_regex(path: str) -> str:
    """Of a path with parameters: `/users/{id}` matches one segment there."""
    parts = _PARAMETER.split(path)
    return "[^/]*".join(literal(part) for part in parts)


def service_profile(service: str, namespace: str, domain: str, routes: Iterable[Route]) -> Object:
    """Keys in the order in which Linkerd's types have them."""
    return {
        "apiVersion": "linkerd.io/v1alpha2",
        "kind": "ServiceProfile",
        "metadata": {"name": f"{service}.{namespace}.svc.{domain}", "namespace": namespace},
        "spec": {"routes": [_route(route) for route in routes]},
    }


def _route(route: Route) -> Object:
    value: Object = {
        "name": route.name,
        "condition": {"pathRegex": route.path_regex, "method": route.method},
    }
    if route.responses:
        value["responseClasses"] = [_response_class(statuses) for statuses in route.responses]
    if route.is_retryable:
        value["isRetryable"] = True
    if route.timeout:
        value["timeout"] = route.timeout
    return value


def _response_class(statuses: Statuses) -> Object:
    value: Object = {"condition": {"status": {"min": statuses.low, "max": statuses.high}}}
    return value | {"isFailure": True} if statuses.is_failure else value
