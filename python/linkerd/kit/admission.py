"""A validating webhook around one check: AdmissionReview v1 in and out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import Counter

from linkerd.kit.logging import fields

log = logging.getLogger(__name__)

ADMISSIONS = Counter("admission_reviews", "Objects judged", ["kind", "allowed"])

_LARGEST_REVIEW = 8 * 1024 * 1024
"""Bytes: an object and its old self, each at most 1.5 MiB in etcd, with room."""

Check = Callable[[dict[str, Any]], None]


def admission_app(check: Check) -> web.Application:
    """`check` raises ValueError for an object that is to be refused; its text goes to whoever applies it.

    One whose form is not the schema's is refused as well: an answer of 500 would let it pass under `Ignore`.
    """

    async def review(request: web.Request) -> web.Response:
        try:
            asked = orjson.loads(await request.read())["request"]
            uid, obj = asked["uid"], asked.get("object")
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return web.Response(status=400, text="an AdmissionReview with a request is wanted\n")
        reason = _reason(check, obj) if obj and asked.get("operation") != "DELETE" else ""
        kind = (asked.get("kind") or {}).get("kind") or "?"
        ADMISSIONS.labels(kind, str(not reason).lower()).inc()
        if reason:
            name = f"{asked.get('namespace', '')}/{asked.get('name', '')}"
            log.info("refused", extra=fields(kind=kind, resource=name, error=reason))
        return _response(uid, reason)

    app = web.Application(client_max_size=_LARGEST_REVIEW)
    app.router.add_post("/{path:.*}", review)
    return app


def _reason(check: Check, obj: dict[str, Any]) -> str:
    try:
        check(obj)
    except ValueError as error:
        return str(error)
    except (KeyError, TypeError, AttributeError) as error:
        log.warning("an object of an unexpected form", exc_info=error)
        return f"the object cannot be read: {error!r}"
    return ""


def _response(uid: str, reason: str) -> web.Response:
    answer: dict[str, Any] = {"uid": uid, "allowed": not reason}
    if reason:
        answer["status"] = {"code": 403, "reason": "Forbidden", "message": reason}
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}
    return web.Response(body=orjson.dumps(body), content_type="application/json")
