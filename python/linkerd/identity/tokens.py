"""Whose token it is: TokenReview, as the API server sees it.

What a token says of itself is looked at first: one that has expired, or is somebody else's by its own word, is refused
without asking. So is one that was refused a moment ago. The rest are asked about so many at a time, and those for an
identity that keeps failing in a lane of their own, where they hold up nobody else.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import orjson

from linkerd.core.identities import TrustDomain
from linkerd.identity import metrics
from linkerd.k8s.client import Client, Object
from linkerd.k8s.errors import ApiError
from linkerd.k8s.resources import TOKEN_REVIEWS

AUDIENCE = "identity.l5d.io"

_AT_ONCE, _SUSPECT_AT_ONCE = 64, 4
_LONGEST_WAIT = 10.0
"""Seconds that a token may wait for its turn."""

_REFUSED_SECONDS = 10.0
"""How long a refusal holds: the API server may learn of a new service account later than we do."""

_SUSPECT_AFTER = 5
_REMEMBERED = 10_000
"""Refusals that are remembered, the oldest go."""


class NotAuthenticated(Exception):
    """The API server does not know the token, or it belongs to no service account."""


class ReviewFailed(Exception):
    """The API server could not be asked. Worth trying again."""


class TooManyTokens(Exception):
    """More tokens wait to be reviewed than can be. Worth trying again."""


class TokenReviewer:
    def __init__(
        self, client: Client, trust_domain: TrustDomain, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._trust_domain = trust_domain
        self._monotonic = monotonic
        self._refusals = _Refusals(monotonic)
        self._failures = _Refusals(monotonic)
        self._lane, self._suspects = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(_SUSPECT_AT_ONCE)

    async def identity(self, token: str) -> str:
        """The identity that the token proves. Raises NotAuthenticated, ReviewFailed or TooManyTokens."""
        claims = parse_claims(token)
        self._check_claims(claims)
        known = self._refusals.get(_digest(token))
        if known is not None:
            raise NotAuthenticated(known)
        subject = str(claims.get("sub") or "")
        suspect = self._failures.count(subject) >= _SUSPECT_AFTER
        status = await self._in_turn(token, claims, self._suspects if suspect else self._lane)
        if not status.get("authenticated"):
            reason = status.get("error") or "the token is not authenticated"
            self._refusals.add(_digest(token), reason)
            self._failures.add(subject, reason)
            raise NotAuthenticated(reason)
        return self._identity((status.get("user") or {}).get("username") or "")

    def claimed(self, token: str) -> str:
        """The identity that the token says it is for. Raises NotAuthenticated."""
        return self._identity(str(parse_claims(token).get("sub") or ""))

    def _identity(self, username: str) -> str:
        try:
            return self._trust_domain.identity_from_user(username)
        except ValueError as error:
            raise NotAuthenticated(str(error)) from error

    def _check_claims(self, claims: Object) -> None:
        ends = claims.get("exp")
        if isinstance(ends, int | float) and ends < time.time():
            raise NotAuthenticated("the token has expired")

    async def _in_turn(self, token: str, claims: Object, lane: asyncio.Semaphore) -> Object:
        try:
            async with asyncio.timeout(_LONGEST_WAIT):
                await lane.acquire()
        except TimeoutError:
            raise TooManyTokens("too many tokens are being reviewed") from None
        try:
            # A pod may have the default token of its service account, which names the API server as audience.
            return await self._review(token, [AUDIENCE] if _is_for_us(claims) else [])
        finally:
            lane.release()

    async def _review(self, token: str, audiences: list[str]) -> Object:
        spec: Object = {"token": token}
        if audiences:
            spec["audiences"] = audiences
        began = self._monotonic()
        try:
            review = await self._client.create(TOKEN_REVIEWS, {"spec": spec})
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ReviewFailed(str(error) or type(error).__name__) from error
        finally:
            metrics.REVIEW_SECONDS.observe(self._monotonic() - began)
        return review.get("status") or {}


class _Refusals:
    """What was refused lately, and why; bounded in time and number."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, int, str]] = {}

    def get(self, key: str) -> str | None:
        found = self._current(key)
        return found[2] if found else None

    def count(self, key: str) -> int:
        found = self._current(key)
        return found[1] if found else 0

    def add(self, key: str, reason: str) -> None:
        count = self.count(key) + 1
        self._known.pop(key, None)
        self._known[key] = self._monotonic() + _REFUSED_SECONDS, count, reason
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]

    def _current(self, key: str) -> tuple[float, int, str] | None:
        found = self._known.get(key)
        if found is not None and found[0] < self._monotonic():
            del self._known[key]
            return None
        return found


def parse_claims(token: str) -> dict[str, Any]:
    """What a JSON Web Token says of itself; nobody has vouched for it. Raises NotAuthenticated."""
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        raise NotAuthenticated("the token is no JSON Web Token")
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError as error:
        raise NotAuthenticated("the token is no JSON Web Token") from error
    if not isinstance(claims, dict):
        raise NotAuthenticated("the token is no JSON Web Token")
    return claims


def _is_for_us(claims: Object) -> bool:
    audiences = claims.get("aud")
    return AUDIENCE in (audiences if isinstance(audiences, list) else [audiences])


def _digest(token: str) -> str:
    """Tokens are secrets: not even the memory of refused ones keeps them."""
    return hashlib.sha256(token.encode()).hexdigest()
