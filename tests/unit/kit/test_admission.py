"""The webhook around a check, asked over HTTP."""

from __future__ import annotations

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from linkerd.kit.admission import admission_app

REVIEW = {"uid": "1", "kind": {"kind": "Thing"}, "operation": "CREATE", "object": {"spec": {}}}


def refuse(obj: dict) -> None:
    raise ValueError("spec.size: `0`: 1 to 9 can be")


def stumble(obj: dict) -> None:
    obj["spec"]["size"].lower()


async def asked(check, request: object) -> tuple[int, dict]:
    async with TestClient(TestServer(admission_app(check))) as client:
        answer = await client.post("/", data=orjson.dumps({"request": request}))
        body = await answer.read()
        return answer.status, orjson.loads(body)["response"] if answer.status == 200 else {}


async def test_what_the_check_says_goes_to_whoever_applies_it():
    status, response = await asked(refuse, REVIEW)
    assert (status, response["uid"], response["allowed"]) == (200, "1", False)
    assert response["status"]["message"] == "spec.size: `0`: 1 to 9 can be"


async def test_an_object_of_another_form_is_refused_rather_than_let_through():
    status, response = await asked(stumble, REVIEW)
    assert (status, response["allowed"]) == (200, False)
    assert "cannot be read: KeyError('size')" in response["status"]["message"]


async def test_what_is_deleted_is_not_judged():
    _, response = await asked(refuse, REVIEW | {"operation": "DELETE"})
    assert response["allowed"]


@pytest.mark.parametrize("request_", [None, {}, 1, "text"])
async def test_what_is_no_review_is_a_bad_request(request_):
    status, _ = await asked(refuse, request_)
    assert status == 400
