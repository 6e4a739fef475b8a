"""Whose token it is, and how often the API server is asked."""

from __future__ import annotations

import asyncio
import base64
import time

import orjson
import pytest
from linkerd.core.identities import TrustDomain
from linkerd.identity.tokens import NotAuthenticated, TokenReviewer, TooManyTokens

WEB = "web.shop.serviceaccount.identity.linkerd.cluster.local"


def token(name: str = "web", signature: str = "good", **claims) -> str:
    said = {"sub": f"system:serviceaccount:shop:{name}", "aud": ["identity.l5d.io"], "exp": time.time() + 600} | claims
    payload = base64.urlsafe_b64encode(orjson.dumps(said)).rstrip(b"=").decode()
    return f"e30.{payload}.{signature}"


class ApiServer:
    """Knows tokens by their signature; answers only while `open` is set."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.open = asyncio.Event()
        self.open.set()

    async def create(self, resource, body):
        spec = body["spec"]
        self.asked.append(spec)
        await self.open.wait()
        _, payload, signature = spec["token"].split(".")
        if signature != "good":
            return {"status": {"error": "invalid bearer token"}}
        subject = orjson.loads(base64.urlsafe_b64decode(payload + "=="))["sub"]
        return {"status": {"authenticated": True, "user": {"username": subject}}}


def reviewer(server: ApiServer, monotonic=time.monotonic) -> TokenReviewer:
    return TokenReviewer(server, TrustDomain(), monotonic)  # type: ignore[arg-type]


async def test_the_api_server_says_whose_token_it_is():
    server = ApiServer()
    assert await reviewer(server).identity(token()) == WEB
    assert server.asked[0]["audiences"] == ["identity.l5d.io"]


async def test_a_default_token_is_asked_about_without_an_audience():
    server = ApiServer()
    await reviewer(server).identity(token(aud=["https://kubernetes.default.svc"]))
    assert "audiences" not in server.asked[0]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("nonsense", "no JSON Web Token"),
        ("a.b.c", "no JSON Web Token"),
        ("e30.MQ.c", "no JSON Web Token"),
        (token(exp=time.time() - 1), "expired"),
    ],
)
async def test_what_a_token_says_against_itself_is_believed_without_asking(bad, reason):
    server = ApiServer()
    with pytest.raises(NotAuthenticated, match=reason):
        await reviewer(server).identity(bad)
    assert server.asked == []


async def test_a_refused_token_is_asked_about_again_only_after_a_while():
    server, now = ApiServer(), 100.0
    reviewing, forged = reviewer(server, lambda: now), token(signature="forged")
    for later, asked in ((0, 1), (5, 1), (11, 2)):
        now = 100.0 + later
        with pytest.raises(NotAuthenticated, match="invalid bearer token"):
            await reviewing.identity(forged)
        assert len(server.asked) == asked


async def test_forged_tokens_of_one_identity_do_not_hold_up_another():
    server = ApiServer()
    reviewing = reviewer(server)
    for number in range(5):
        with pytest.raises(NotAuthenticated):
            await reviewing.identity(token("evil", f"forged{number}"))
    server.open.clear()
    forged = [asyncio.ensure_future(reviewing.identity(token("evil", f"more{number}"))) for number in range(500)]
    honest = asyncio.ensure_future(reviewing.identity(token()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(server.asked) == 5 + 4 + 1, "four at once of the suspect, and the honest one"
    server.open.set()
    assert await honest == WEB
    assert all(isinstance(found, NotAuthenticated) for found in await asyncio.gather(*forged, return_exceptions=True))


async def test_a_token_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("linkerd.identity.tokens._LONGEST_WAIT", 0.01)
    server = ApiServer()
    server.open.clear()
    reviewing = reviewer(server)
    waiting = [asyncio.ensure_future(reviewing.identity(token(f"web{number}"))) for number in range(64)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyTokens):
        await reviewing.identity(token())
    server.open.set()
    await asyncio.gather(*waiting)


async def test_the_memory_of_refusals_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("linkerd.identity.tokens._REMEMBERED", 10)
    reviewing = reviewer(ApiServer())
    for number in range(50):
        with pytest.raises(NotAuthenticated):
            await reviewing.identity(token(f"evil{number}", "forged"))
    assert len(reviewing._refusals._known) == len(reviewing._failures._known) == 10
