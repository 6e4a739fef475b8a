"""Routes from a Protocol Buffers file: one for each rpc of each service.

Only what a route needs is understood: the package, services, rpcs and their option `idempotency_level`. Everything else
is skipped by its braces, so that any version of the language will do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from linkerd.profile.routes import ProfileError, Route, literal

_TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|\s+"""  # what stands between tokens
    r"""|(?P<token>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[A-Za-z_.][\w.]*|\d[\w.+-]*|[^\s\w])""",
    re.DOTALL,
)
_RETRYABLE = ("IDEMPOTENT", "NO_SIDE_EFFECTS")


def routes_from_proto(text: str) -> list[Route]:
    """In the order of the file. Raises ProfileError."""
    routes = list(_Parser(text).routes())
    if not routes:
        raise ProfileError("no service with an rpc is defined here, so there are no routes")
    return routes


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._package = ""

    def routes(self) -> Iterator[Route]:
        while self._at < len(self._tokens):
            word = self._next()
            if word == "package":
                self._package = self._next()
            elif word == "service":
                yield from self._service()
            elif word == "{":
                self._skip_block()

    def _next(self) -> str:
        if self._at >= len(self._tokens):
            raise ProfileError("the file ends in the middle of a definition")
        self._at += 1
        return self._tokens[self._at - 1]

    def _skip_block(self) -> None:
        """To the brace that closes the one just read."""
        depth = 1
        while depth:
            depth += {"{": 1, "}": -1}.get(self._next(), 0)

    def _expect(self, wanted: str) -> None:
        found = self._next()
        if found != wanted:
            raise ProfileError(f"`{wanted}` expected, `{found}` found")

    def _service(self) -> Iterator[Route]:
        name = self._next()
        self._expect("{")
        while (word := self._next()) != "}":
            if word == "rpc":
                yield self._rpc(f"{self._package}.{name}" if self._package else name)
            elif word == "{":
                self._skip_block()

    def _rpc(self, service: str) -> Route:
        name = self._next()
        while (word := self._next()) not in (";", "{"):
            pass  # (stream Request) returns (stream Response)
        level = self._idempotency_level() if word == "{" else ""
        return Route(name, "POST", literal(f"/{service}/{name}"), is_retryable=level in _RETRYABLE)

    def _idempotency_level(self) -> str:
        level, depth = "", 1
        while depth:
            word = self._next()
            depth += {"{": 1, "}": -1}.get(word, 0)
            if word == "idempotency_level" and depth == 1:
                self._expect("=")
                level = self._next()
        return level


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        if match["token"] is not None:
            yield match["token"]
