"""Whose token it is: TokenReview, as the API server sees it."""

from __future__ import annotations

import aiohttp

from linkerd.core.identities import TrustDomain
from linkerd.k8s.client import Client, Object
from linkerd.k8s.errors import ApiError
from linkerd.k8s.resources import TOKEN_REVIEWS

AUDIENCE = "identity.l5d.io"


class NotAuthenticated(Exception):
    """The API server does not know the token, or it belongs to no service account."""


class ReviewFailed(Exception):
    """The API server could not be asked. Worth trying again."""


class TokenReviewer:
    def __init__(self, client: Client, trust_domain: TrustDomain) -> None:
        self._client = client
        self._trust_domain = trust_domain

    async def identity(self, token: str) -> str:
        """The identity that the token proves. Raises NotAuthenticated or ReviewFailed."""
        status = await self._review(token, [AUDIENCE])
        if not status.get("authenticated") and "audience" in (status.get("error") or ""):
            # The pod has the default token of its service account, which names the API server as audience.
            status = await self._review(token, [])
        if not status.get("authenticated"):
            raise NotAuthenticated(status.get("error") or "the token is not authenticated")
        try:
            return self._trust_domain.identity_from_user((status.get("user") or {}).get("username") or "")
        except ValueError as error:
            raise NotAuthenticated(str(error)) from error

    async def _review(self, token: str, audiences: list[str]) -> Object:
        spec: Object = {"token": token}
        if audiences:
            spec["audiences"] = audiences
        try:
            review = await self._client.create(TOKEN_REVIEWS, {"spec": spec})
        except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ReviewFailed(str(error) or type(error).__name__) from error
        return review.get("status") or {}
