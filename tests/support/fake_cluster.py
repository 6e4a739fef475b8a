"""A cluster of plain objects for the checks: what `checks.cluster.Reader` asks, answered from memory."""

from __future__ import annotations

from typing import Any

from linkerd.k8s.errors import AlreadyExists, ApiError, NotFound
from linkerd.k8s.resources import Resource

Object = dict[str, Any]


class FakeReader:
    """`objects` may be changed between two calls. `refused` holds kinds that may not be created."""

    def __init__(self, objects: list[Object], *, version: str = "v1.36.3") -> None:
        self.objects = objects
        self.version = version
        self.refused: dict[str, ApiError] = {}
        self.allowed = True
        self.denied: set[tuple[str, str]] = set()
        """Verbs and plurals that a review says no to, besides."""

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        for obj in self._of(resource, namespace):
            if obj["metadata"]["name"] == name:
                return obj
        raise NotFound(404, "NotFound", f'{resource.plural} "{name}" not found')

    async def list(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> list[Object]:
        return [obj for obj in self._of(resource, namespace) if _selected(obj, label_selector)]

    async def create(
        self, resource: Resource, body: Object, namespace: str | None = None, *, dry_run: bool = False
    ) -> Object:
        if resource.kind == "SelfSubjectAccessReview":
            asked = body["spec"]["resourceAttributes"]
            return {"status": {"allowed": self.allowed and (asked["verb"], asked["resource"]) not in self.denied}}
        if resource.kind in self.refused:
            raise self.refused[resource.kind]
        if any(obj["metadata"]["name"] == body["metadata"]["name"] for obj in self._of(resource, namespace)):
            raise AlreadyExists(409, "AlreadyExists", "already exists")
        return body

    async def request(self, method: str, path: str) -> Any:
        return {"gitVersion": self.version}

    def _of(self, resource: Resource, namespace: str | None) -> list[Object]:
        return [
            obj
            for obj in self.objects
            if obj["kind"] == resource.kind and (not namespace or obj["metadata"].get("namespace") == namespace)
        ]


def _selected(obj: Object, selector: str) -> bool:
    labels = obj["metadata"].get("labels") or {}
    for part in (part for part in selector.split(",") if part):
        key, equals, value = part.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
