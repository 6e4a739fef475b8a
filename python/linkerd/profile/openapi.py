"""Routes from an OpenAPI document: Swagger 2, OpenAPI 3.0 and 3.1.

What counts is which paths and methods there are, and which statuses they may answer with. `x-linkerd-retryable` and
`x-linkerd-timeout` of an operation go into its route. `default` responses say nothing of a status and are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from linkerd.profile.routes import ProfileError, Route, Statuses, template_regex

METHODS = ("delete", "get", "head", "options", "patch", "post", "put", "trace")

_STATUS = re.compile(r"([1-5])(\d\d|XX)", re.IGNORECASE)
_LONGEST_REFERENCE_CHAIN = 16

Node = Mapping[str, Any]


def routes_from_openapi(document: Any) -> list[Route]:
    """Sorted by path, so that `/users/me` comes before `/users/{id}` and wins. Raises ProfileError."""
    if not isinstance(document, dict):
        raise ProfileError("an OpenAPI document is a mapping; this is none")
    paths = _base_paths(document)
    routes: list[Route] = []
    for path in sorted(_mapping(document, "paths", "the document")):
        item = _resolved(document, document["paths"][path], path)
        routes += _routes_of_path(document, path, item, paths)
    if not routes:
        raise ProfileError("the document has no paths with operations, so there are no routes")
    return routes


def _base_paths(document: Node) -> list[str]:
    """What stands before every path. Raises ProfileError for a document of no known version."""
    if str(document.get("swagger", "")).startswith("2."):
        return [_without_slash(document.get("basePath") or "")]
    if str(document.get("openapi", "")).startswith("3."):
        return _server_paths(document.get("servers")) or [""]
    raise ProfileError('this is neither Swagger 2 (`swagger: "2.0"`) nor OpenAPI 3 (`openapi: 3.x`)')


def _server_paths(servers: Any) -> list[str]:
    """The distinct paths of the servers' URLs, their variables at the defaults."""
    found = [_server_path(server) for server in servers or [] if isinstance(server, dict)]
    return list(dict.fromkeys(found))


def _server_path(server: Node) -> str:
    url = str(server.get("url") or "")
    for name, variable in (server.get("variables") or {}).items():
        url = url.replace(f"{{{name}}}", str((variable or {}).get("default", "")))
    return _without_slash(urlsplit(url).path)


def _without_slash(path: str) -> str:
    return "/" + path.strip("/") if path.strip("/") else ""


def _routes_of_path(document: Node, path: str, item: Node, bases: list[str]) -> Iterator[Route]:
    of_path = _server_paths(item.get("servers")) or bases
    for method in METHODS:
        operation = item.get(method)
        if isinstance(operation, dict):
            of_operation = _server_paths(operation.get("servers")) or of_path
            yield from (_route(document, method.upper(), base + path, operation) for base in of_operation)


def _route(document: Node, method: str, path: str, operation: Node) -> Route:
    return Route(
        name=f"{method} {path}",
        method=method,
        path_regex=template_regex(path),
        responses=tuple(_statuses(operation.get("responses") or {})),
        is_retryable=operation.get("x-linkerd-retryable") is True,
        timeout=str(operation.get("x-linkerd-timeout") or ""),
    )


def _statuses(responses: Node) -> Iterable[Statuses]:
    """`404` is one status, `5XX` (OpenAPI 3) a hundred; in ascending order."""
    found = set()
    for key in responses:
        match = _STATUS.fullmatch(str(key))
        if match is None:
            continue
        if match[2].isdigit():
            found.add((int(str(key)), int(str(key))))
        else:
            found.add((int(match[1]) * 100, int(match[1]) * 100 + 99))
    return (Statuses(low, high) for low, high in sorted(found))


def _mapping(node: Node, key: str, where: str) -> Node:
    value = node.get(key) or {}
    if not isinstance(value, dict):
        raise ProfileError(f"`{key}` of {where} is not a mapping")
    return value


def _resolved(document: Node, node: Any, path: str) -> Node:
    """The path item itself, or what its `$ref` within the document points at. Raises ProfileError."""
    for _ in range(_LONGEST_REFERENCE_CHAIN):
        if not isinstance(node, dict):
            raise ProfileError(f"path `{path}` is not a mapping")
        reference = node.get("$ref")
        if reference is None:
            return node
        node = _looked_up(document, str(reference), path)
    raise ProfileError(f"path `{path}`: its references lead in a circle")


def _looked_up(document: Node, reference: str, path: str) -> Any:
    if not reference.startswith("#/"):
        raise ProfileError(f"path `{path}` refers to `{reference}`: bundle the document into one file first")
    found: Any = document
    for word in reference[2:].split("/"):
        key = word.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or key not in found:
            raise ProfileError(f"path `{path}` refers to `{reference}`, which is not there")
        found = found[key]
    return found
