"""Bound service account tokens by TokenRequest, renewed well before they end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from linkerd.k8s import resources
from linkerd.k8s.client import Client

Object = dict[str, Any]

_RENEW_AT = 0.8  # of the life
_RENEW_LATEST = 24 * 3600.0  # seconds


@dataclass
class _Token:
    text: bytes
    renew_at: float


@dataclass
class Tokens:
    """The tokens of one pod. Times are of the monotonic clock."""

    client: Client
    pod: Object
    clock: Callable[[], float] = time.monotonic
    _held: dict[tuple[str, int], _Token] = field(default_factory=dict)

    async def get(self, audience: str, lifetime: int) -> bytes:
        """A token for that audience (empty: the API server's) with enough life left. Raises ApiError."""
        held = self._held.get((audience, lifetime))
        if held is None or self.clock() >= held.renew_at:
            held = await self._request(audience, lifetime)
            self._held[audience, lifetime] = held
        return held.text

    def renew_at(self) -> float | None:
        """When the first of them wants to be asked for again."""
        return min((token.renew_at for token in self._held.values()), default=None)

    async def _request(self, audience: str, lifetime: int) -> _Token:
        metadata = self.pod["metadata"]
        spec: Object = {
            "expirationSeconds": lifetime,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        }
        if audience:
            spec["audiences"] = [audience]
        answer = await self.client.create(
            resources.SERVICE_ACCOUNTS,
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
            metadata["namespace"],
            name=self.pod["spec"].get("serviceAccountName") or "default",
            subresource="token",
        )
        return _Token(answer["status"]["token"].encode(), self.clock() + renewal_delay(lifetime))


def renewal_delay(lifetime: float) -> float:
    """Seconds until a fresh token should be renewed, spread a little so that a node's tokens do not come together."""
    return min(lifetime * _RENEW_AT, _RENEW_LATEST) * random.uniform(0.95, 1.0)
