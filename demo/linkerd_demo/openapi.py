"""The OpenAPI 3 document of a service, made from its routes."""

from __future__ import annotations

import re
from typing import Any

from linkerd_demo.topology import Route, Service


def openapi_document(service: Service) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for route in service.routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.0.3",
        "info": {"title": service.name, "version": "1.0.0"},
        "paths": paths,
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    return {
        "summary": route.summary or f"{route.method} {route.path}",
        "parameters": parameters,
        "responses": {"200": {"description": "done"}, "500": {"description": "failed"}},
    }
