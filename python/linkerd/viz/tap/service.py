"""The aggregated API `tap.linkerd.io`: an HTTPS server behind the Kubernetes API server.

POST …/tap answers with a stream of frames, each a length (4 bytes, little-endian) and a TapEvent. A failure before the
first event is, as Linkerd's clients expect it, an answer of status 200 with the header `linkerd-error` and one frame
that holds an ApiError.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import struct
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web
from google.protobuf.message import DecodeError, Message

from linkerd.core import kinds
from linkerd.core.kinds import Target, UnknownKind, parse_kind, target_of
from linkerd.k8s.client import Client
from linkerd.k8s.errors import ApiError
from linkerd.proto import viz_pb2
from linkerd.proto import viz_tap_pb2 as tap
from linkerd.viz.tap import access, paths
from linkerd.viz.tap.session import NothingToTap, Session
from linkerd.viz.tap.translate import InvalidTap, selection_from

log = logging.getLogger(__name__)

ERROR_HEADER = "linkerd-error"
_LARGEST_REQUEST = 100 * 1024 * 1024
_LOOK_FOR_READER_SECONDS = 1.0

NewSession = Callable[[tap.TapByResourceRequest], Session]
"""Raises InvalidTap, NothingToTap."""


class TapApi:
    """`front_proxy` and the TLS `context` that knows its authorities may be replaced at any time; `sessions` are those
    that run now."""

    def __init__(self, client: Client, front_proxy: access.FrontProxy, new_session: NewSession) -> None:
        self.front_proxy = front_proxy
        self.context: ssl.SSLContext | None = None
        self.sessions: set[Session] = set()
        self._client = client
        self._new_session = new_session

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_LARGEST_REQUEST)
        documents = {
            "/": lambda: {"paths": paths.paths()},
            "/apis": paths.api_group_list,
            f"/apis/{paths.GROUP}": paths.api_group,
            paths.ROOT: paths.api_resource_list,
            "/openapi/v2": lambda: {},
            "/version": lambda: {},
        }
        for path, document in documents.items():
            app.router.add_get(path, _document(document))
        for path in ("/healthz", "/healthz/log", "/healthz/ping"):
            app.router.add_get(path, _ok)
        of_namespace = f"{paths.ROOT}/watch/namespaces/{{namespace}}"
        of_kind = f"{of_namespace}/{{plural}}/{{name:[^/]*}}"
        for path in (of_namespace, of_kind):
            app.router.add_get(path, _document(documents["/"]))
            app.router.add_post(f"{path}/tap", self._tap)
        app.router.add_route("*", "/{rest:.*}", _unknown)
        return app

    def pods_changed(self) -> None:
        for session in self.sessions:
            session.changed()

    async def _tap(self, request: web.Request) -> web.StreamResponse:
        try:
            user = self._authenticate(request)
        except access.NotTheFrontProxy as error:
            return _refusal(HTTPStatus.BAD_REQUEST, error)
        try:
            target = _target_of_path(request)
            await access.authorize(self._client, user, target)
        except access.Denied as error:
            return _refusal(HTTPStatus.FORBIDDEN, error)
        except UnknownKind as error:
            return _refusal(HTTPStatus.NOT_FOUND, error)
        except ApiError as error:
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, error)
        try:
            session = self._session(await request.read(), target)
        except (InvalidTap, DecodeError) as error:
            return _error_frame(HTTPStatus.BAD_REQUEST, error)
        except NothingToTap as error:
            return _error_frame(HTTPStatus.NOT_FOUND, error)
        log.info("%s taps %s in %s", user.name, target, target.namespace or "the cluster")
        return await self._stream(request, session)

    def _authenticate(self, request: web.Request) -> access.User:
        connection = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
        if connection is not None and connection.context is not self.context:
            # It is older than the authorities that are trusted now.
            self.front_proxy.check_signature(connection.getpeercert(binary_form=True))
        certificate = connection.getpeercert() if connection is not None else None
        self.front_proxy.check_certificate(access.certificate_names(certificate))
        return self.front_proxy.user(request.headers)

    def _session(self, body: bytes, authorized: Target) -> Session:
        message = tap.TapByResourceRequest.FromString(body)
        target, _ = selection_from(message.target)
        if target != authorized:
            raise InvalidTap(
                "tap request body did not match APIServer URL: "
                f'"{paths.tap_path(target)}" != "{paths.tap_path(authorized)}"'
            )
        session = self._new_session(message)
        session.check()
        return session

    async def _stream(self, request: web.Request, session: Session) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await response.prepare(request)
        self.sessions.add(session)
        try:
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(session.run())
                await _write_events(request, response, session)
                listening.cancel()
        except* ConnectionResetError:
            pass  # the person has seen enough
        finally:
            self.sessions.discard(session)
        return response


async def _write_events(request: web.Request, response: web.StreamResponse, session: Session) -> None:
    """Until the reader goes away (a write fails, or in a quiet moment the connection is gone) or the proxies refuse."""
    while request.transport is not None and not request.transport.is_closing():
        events = await session.next_events(_LOOK_FOR_READER_SECONDS)
        if events:
            await response.write(b"".join(frame(event) for event in events))
            continue
        if session.refused:
            return
        dropped = session.take_dropped()
        if dropped:
            await response.write(frame(tap.TapEvent(dropped=dropped)))


def frame(message: Message) -> bytes:
    body = message.SerializeToString()
    return struct.pack("<I", len(body)) + body


def _target_of_path(request: web.Request) -> Target:
    """Raises UnknownKind."""
    namespace = request.match_info["namespace"]
    plural = request.match_info.get("plural")
    if plural is None:
        return Target(kinds.NAMESPACE, namespace)
    kind = next((kind for kind in paths.KINDS if kind.plural == plural), None)
    if kind is None or kind is kinds.NAMESPACE:
        raise UnknownKind(plural)
    return target_of(parse_kind(kind.name), request.match_info["name"], namespace)


def _refusal(status: HTTPStatus, error: Exception) -> web.Response:
    log.warning("tap refused: %s", error)
    return web.Response(
        status=status, body=orjson.dumps({"error": str(error)}), headers={"Content-Type": "application/json"}
    )


def _error_frame(status: HTTPStatus, error: Exception) -> web.Response:
    log.info("tap not started: %s", error)
    return web.Response(
        body=frame(viz_pb2.ApiError(error=str(error))),
        headers={"Content-Type": "application/octet-stream", ERROR_HEADER: status.phrase},
    )


def _document(make: Callable[[], Any]) -> Callable[[web.Request], Any]:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(make()), headers={"Content-Type": "application/json"})

    return handle


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _unknown(_: web.Request) -> web.Response:
    body = orjson.dumps({"paths": paths.paths()})
    return web.Response(status=404, body=body, headers={"Content-Type": "application/json"})


def server_context(certificate: Any, key: Any) -> ssl.SSLContext:
    """TLS 1.3. A client certificate is optional in the handshake, because discovery and probes come without; taps check
    for one. Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_cert_chain(certificate, key)
    return context
