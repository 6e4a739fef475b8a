"""Who may ask the node what, as kubelet decides it (pkg/kubelet/server/auth.go).

A client certificate of the cluster's CA names its user itself; a bearer token is reviewed by the API server. Then the
API server is asked whether that user may use the subresource of this node that the path stands for, unless the user is
one whom it would allow anything anyway.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from linkerd.k8s.client import Client
from linkerd.k8s.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS

API_SERVER = "kube-apiserver-kubelet-client"  # the common name of the API server's certificate towards nodes
_MASTERS = "system:masters"

# Seconds that an answer is kept, and how many answers: kubelet's defaults for webhook authentication and authorization.
_TOKEN_SECONDS = 120.0
_ALLOWED_SECONDS = 300.0
_DENIED_SECONDS = 30.0
_MAX_KEPT = 1024

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class User:
    """Who asks, in the API's terms."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = field(default=(), repr=False)

    @property
    def trusted(self) -> bool:
        """Allowed everything without asking: the API server itself asks for others, having checked them."""
        return self.name == API_SERVER or _MASTERS in self.groups


@dataclass(frozen=True, slots=True)
class Attributes:
    """The verb and those subresources of the node of which one must be allowed."""

    verb: str
    subresources: tuple[str, ...]


def attributes_of(method: str, path: str) -> Attributes:
    """What a request needs: a specific subresource where kubelet has one, `proxy` for everything else."""
    first = path.strip("/").split("/", 1)[0]
    specific = {"stats": "stats", "metrics": "metrics", "logs": "log"}.get(first)
    finer = {"pods": "pods", "runningpods": "pods", "healthz": "healthz"}.get(first)
    names = (specific,) if specific else (finer, "proxy") if finer else ("proxy",)
    return Attributes(_VERBS.get(method, ""), tuple(name for name in names if name))


def user_from_certificate(certificate: Mapping[str, Any] | None) -> User | None:
    """The subject's common name and organisations, from what `ssl.SSLObject.getpeercert` says."""
    subject = [pair for part in (certificate or {}).get("subject", ()) for pair in part]
    names = [value for key, value in subject if key == "commonName"]
    if not names:
        return None
    return User(names[0], groups=tuple(value for key, value in subject if key == "organizationName"))


def user_from_review(status: Mapping[str, Any]) -> User | None:
    """The user of a TokenReview's status; None for a token that is not valid."""
    if not status.get("authenticated"):
        return None
    user = status.get("user") or {}
    extra = tuple((key, tuple(values)) for key, values in sorted((user.get("extra") or {}).items()))
    return User(user.get("username") or "", user.get("uid") or "", tuple(user.get("groups") or ()), extra)


_T = TypeVar("_T")


class _Kept(Generic[_T]):
    """Answers with an age limit each."""

    def __init__(self) -> None:
        self._answers: dict[Any, tuple[float, _T]] = {}

    def get(self, key: Any, now: float) -> _T | None:
        until, answer = self._answers.get(key, (0.0, None))
        return answer if now < until else None

    def put(self, key: Any, answer: _T, until: float) -> None:
        self._answers.pop(key, None)
        while len(self._answers) >= _MAX_KEPT:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = (until, answer)


class Gatekeeper:
    """Asks the API server and remembers its answers. Its errors (ApiError, aiohttp's, TimeoutError) pass."""

    def __init__(self, client: Client, node_name: str) -> None:
        self._client = client
        self._node_name = node_name
        self._users: _Kept[User] = _Kept()
        self._decisions: _Kept[bool] = _Kept()

    async def authenticate(self, certificate: Mapping[str, Any] | None, authorization: str) -> User | None:
        """The user of the certificate, or else of the bearer token; None for neither."""
        user = user_from_certificate(certificate)
        if user is not None:
            return user
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        return await self._review_token(token.strip())

    async def allows(self, user: User, attributes: Attributes) -> bool:
        if user.trusted:
            return True
        for subresource in attributes.subresources:
            if await self._review_access(user, attributes.verb, subresource):
                return True
        return False

    async def _review_token(self, token: str) -> User | None:
        key = hashlib.sha256(token.encode()).digest()
        if (known := self._users.get(key, _now())) is not None:
            return known
        review = await self._client.create(TOKEN_REVIEWS, {"spec": {"token": token}})
        user = user_from_review(review.get("status") or {})
        if user is not None:
            self._users.put(key, user, _now() + _TOKEN_SECONDS)
        return user

    async def _review_access(self, user: User, verb: str, subresource: str) -> bool:
        key = (user, verb, subresource)
        if (known := self._decisions.get(key, _now())) is not None:
            return known
        review = await self._client.create(SUBJECT_ACCESS_REVIEWS, self._access_review(user, verb, subresource))
        allowed = bool((review.get("status") or {}).get("allowed"))
        self._decisions.put(key, allowed, _now() + (_ALLOWED_SECONDS if allowed else _DENIED_SECONDS))
        return allowed

    def _access_review(self, user: User, verb: str, subresource: str) -> dict[str, Any]:
        resource = {
            "verb": verb,
            "version": "v1",
            "resource": "nodes",
            "subresource": subresource,
            "name": self._node_name,
        }
        spec: dict[str, Any] = {"resourceAttributes": resource, "user": user.name, "groups": list(user.groups)}
        spec |= {"uid": user.uid, "extra": {key: list(values) for key, values in user.extra}}
        return {"spec": spec}


def forbidden_message(user: User, attributes: Attributes) -> str:
    """Kubelet's words for a denial."""
    names: Sequence[str] = attributes.subresources
    return f"Forbidden (user={user.name}, verb={attributes.verb}, resource=nodes, subresource(s)=[{' '.join(names)}])"


def _now() -> float:
    return asyncio.get_running_loop().time()
