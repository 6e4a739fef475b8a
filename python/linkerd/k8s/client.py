"""The one client of the Kubernetes API: plain objects (dicts) in and out, errors as types.

It is thin on purpose: the API's own conventions (list, watch, patch types, dry-run, subresources) are its interface.
Watching with resumption is `watching.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

import aiohttp
import orjson
from multidict import CIMultiDict

from linkerd.k8s.config import ClusterConfig, load_config
from linkerd.k8s.errors import ApiError, error_from_status
from linkerd.k8s.resources import Resource

Object = dict[str, Any]
Query = Mapping[str, str] | Sequence[tuple[str, str]]

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

_WATCH_LINE_LIMIT = 16 * 1024 * 1024  # bytes; etcd bounds an object to 1.5 MiB, managed fields and all
_LIST_PAGE = 500
_SILENT_SECONDS = 90.0


class Client:
    """A connection pool to one API server. Use as an async context manager.

    Every method raises `linkerd.k8s.errors.ApiError` (or one of its kinds) for an answer of 400 and above,
    and lets `aiohttp.ClientError` and `TimeoutError` pass.
    """

    def __init__(self, config: ClusterConfig, *, user_agent: str = "linkerd", request_timeout: float = 30.0) -> None:
        self.config = config
        self._user_agent = user_agent
        self._timeout = aiohttp.ClientTimeout(total=request_timeout, sock_connect=10)
        self._session: aiohttp.ClientSession | None = None
        self.ssl_context = config.ssl_context()

    @classmethod
    def load(cls, kubeconfig: str | None = None, context: str | None = None, **options: Any) -> Self:
        """From a kubeconfig or the pod's service account; raises ConfigError."""
        return cls(load_config(kubeconfig, context), **options)

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self.ssl_context or False, limit=0, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(
            connector=connector, json_serialize=lambda value: orjson.dumps(value).decode(), read_bufsize=2**18
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def namespace(self) -> str:
        """The namespace of the kubeconfig's context."""
        return self.config.namespace

    # Objects

    async def get(self, resource: Resource, name: str, namespace: str | None = None, subresource: str = "") -> Object:
        path = resource.path(namespace, name, subresource or None)
        return await self.request("GET", path, accept=resource.accept())

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> list[Object]:
        """All items, page by page; each gets its `apiVersion` and `kind`, which lists leave out."""
        items, _ = await self.list_with_version(
            resource, namespace, label_selector=label_selector, field_selector=field_selector
        )
        return items

    async def list_with_version(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> tuple[list[Object], str]:
        """The items and the resource version from which to watch on."""
        items: list[Object] = []
        version = ""
        async for page, version in self.pages(  # noqa: B007
            resource, namespace, label_selector=label_selector, field_selector=field_selector
        ):
            items += page
        return items, version

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[tuple[list[Object], str]]:
        """The items page by page, each with the list's resource version (the last one is that to watch from)."""
        query = _selectors(label_selector, field_selector) | {"limit": str(_LIST_PAGE)}
        while True:
            page = await self.request("GET", resource.path(namespace), query=query)
            items = page.get("items") or []
            for item in items:
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            metadata = page.get("metadata") or {}
            yield items, metadata.get("resourceVersion") or ""
            if not metadata.get("continue"):
                return
            query = query | {"continue": metadata["continue"]}

    async def create(
        self,
        resource: Resource,
        body: Object,
        namespace: str | None = None,
        *,
        name: str = "",
        subresource: str = "",
        dry_run: bool = False,
    ) -> Object:
        query = {"dryRun": "All"} if dry_run else {}
        path = resource.path(namespace, name or None, subresource or None)
        return await self.request("POST", path, query=query, body=_typed(resource, body, subresource))

    async def replace(
        self, resource: Resource, name: str, body: Object, namespace: str | None = None, *, subresource: str = ""
    ) -> Object:
        path = resource.path(namespace, name, subresource or None)
        return await self.request("PUT", path, body=_typed(resource, body, subresource))

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Any,
        namespace: str | None = None,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str = "",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        path = resource.path(namespace, name, subresource or None)
        return await self.request("PATCH", path, query=query, body=body, content_type=content_type)

    async def apply(
        self,
        resource: Resource,
        name: str,
        body: Object,
        namespace: str | None = None,
        *,
        manager: str = "linkerd",
        subresource: str = "",
        force: bool = True,
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply."""
        query = {"fieldManager": manager, "force": str(force).lower()} | ({"dryRun": "All"} if dry_run else {})
        return await self.patch(
            resource,
            name,
            _typed(resource, body, ""),
            namespace,
            content_type=APPLY_PATCH,
            subresource=subresource,
            query=query,
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        grace_period_seconds: int | None = None,
        uid: str | None = None,
        propagation: str = "Background",
    ) -> Object:
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        if uid:
            options["preconditions"] = {"uid": uid}
        return await self.request("DELETE", resource.path(namespace, name), body=options)

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
    ) -> AsyncIterator[Object]:
        """One watch request: raw events (`type`, `object`) until the server ends it. Raises Gone and kin.

        A server that falls silent raises TimeoutError: it sends a bookmark every minute, whatever happens.
        """
        query = _selectors(label_selector, field_selector) | {
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(timeout_seconds),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_SILENT_SECONDS)
        accept = {"Accept": resource.accept()}
        async with self.stream(
            "GET", resource.path(namespace), query=query, timeout=timeout, headers=accept
        ) as response:
            async for line in _lines(response.content):
                event = orjson.loads(line)
                if event.get("type") == "ERROR":
                    raise error_from_status(int(event["object"].get("code") or 500), event["object"])
                event["object"]["apiVersion"] = resource.api_version
                event["object"]["kind"] = resource.kind
                yield event

    # Requests

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Any:
        """One request, its JSON answer parsed (text if it is none)."""
        headers = {"Accept": accept}
        async with self.stream(
            method, path, query=query, body=body, content_type=content_type, headers=headers
        ) as response:
            raw = await response.read()
            if "json" in response.content_type:
                return orjson.loads(raw)
            return raw.decode(errors="replace")

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> _Streaming:
        """A request whose answer is read by the caller: `async with client.stream(…) as response`.

        `body` is sent as it is when it is bytes, else as JSON.
        """
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        sent = self.auth_headers()
        sent.update({"Accept": "application/json"} | dict(headers or {}))
        if data is not None:
            sent["Content-Type"] = content_type
        options: dict[str, Any] = {"params": query or None, "data": data, "headers": sent}
        if self.config.server_name:
            options["server_hostname"] = self.config.server_name
        return _Streaming(self._open(), method, self.config.server + path, timeout or self._timeout, options)

    @contextlib.asynccontextmanager
    async def websocket(
        self, path: str, *, query: Sequence[tuple[str, str]], protocols: Sequence[str]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket to a subresource (exec, attach, portforward); raises ApiError when it is refused."""
        try:
            async with asyncio.timeout(self._timeout.total):
                socket = await self._open().ws_connect(
                    self.config.server + path,
                    params=query,
                    protocols=protocols,
                    headers=self.auth_headers(),
                    server_hostname=self.config.server_name,
                    max_msg_size=0,
                )
        except aiohttp.WSServerHandshakeError as refusal:
            # The library drops the body with the reason; a plain request is refused for the same one.
            await self.request("GET", path, query=query)
            raise error_from_status(refusal.status, refusal.message) from refusal
        async with socket:
            yield socket

    def auth_headers(self) -> CIMultiDict[str]:
        """What says who we are, beyond the client certificate. Each group is a header of its own."""
        headers = CIMultiDict({"User-Agent": self._user_agent})
        token = self.config.token
        if self.config.token_file is not None:
            token = self.config.token_file.read_text().strip()
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if self.config.impersonate_user:
            headers["Impersonate-User"] = self.config.impersonate_user
            for group in self.config.impersonate_groups:
                headers.add("Impersonate-Group", group)
        return headers

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is used outside of its `async with`")
        return self._session


class _Streaming:
    """The answer to one request as an async context manager, errors already raised."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: str,
        timeout: aiohttp.ClientTimeout,
        options: dict[str, Any],
    ) -> None:
        self._request = session.request(method, url, timeout=timeout, **options)
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        response = await self._request
        self._response = response
        if response.status >= 400:
            raw = await response.read()
            response.release()
            retry_after = response.headers.get("Retry-After", "")
            raise error_from_status(response.status, _parsed(raw, response.content_type), retry_after)
        return response

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._response is None:
            return
        if kind is None:
            self._response.release()
        else:
            self._response.close()


def _parsed(raw: bytes, content_type: str) -> Any:
    if "json" in content_type:
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass  # a proxy in between may label its own page wrongly; the text still says what happened
    return raw.decode(errors="replace")


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    query = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in query.items() if value}


def _typed(resource: Resource, body: Object, subresource: str) -> Object:
    if subresource and "kind" not in body:
        return body
    return {"apiVersion": resource.api_version, "kind": resource.kind} | body


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length up to the limit (the reader's own `readline` gives up at its buffer size)."""
    rest = b""
    async for chunk in content.iter_any():
        parts = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        rest = parts.pop()
        if len(rest) > _WATCH_LINE_LIMIT:
            raise aiohttp.ClientPayloadError(f"a watch event is larger than {_WATCH_LINE_LIMIT} bytes")
        for part in parts:
            if part:
                yield part


async def wait_ready(client: Client, timeout: float) -> None:
    """Until the API server says that it is ready; raises TimeoutError."""
    async with asyncio.timeout(timeout):
        while True:
            try:
                await client.request("GET", "/readyz")
                return
            except (ApiError, aiohttp.ClientError, OSError):
                await asyncio.sleep(0.1)
