"""Routes from requests that were seen: one for each method and path, until there are enough."""

from __future__ import annotations

from dataclasses import dataclass, field

from linkerd.profile.routes import Route, literal


@dataclass(slots=True)
class SeenRoutes:
    """`limit`: how many routes there may be; more would be paths with identifiers in them."""

    limit: int
    _routes: dict[str, Route] = field(default_factory=dict)

    def add(self, method: str, path: str) -> None:
        """The query is no part of a route, and `/` alone would say nothing."""
        path = path.partition("?")[0]
        name = f"{method} {path}"
        if path in ("", "/") or self.full or name in self._routes:
            return
        self._routes[name] = Route(name, method, literal(path))

    @property
    def full(self) -> bool:
        return len(self._routes) >= self.limit

    def routes(self) -> list[Route]:
        return [self._routes[name] for name in sorted(self._routes)]
