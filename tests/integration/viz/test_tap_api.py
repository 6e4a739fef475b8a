"""The aggregated tap API over TLS, as the Kubernetes API server calls it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from ssl import SSLContext, create_default_context

import aiohttp
import pytest
from linkerd.core.identities import TrustDomain
from linkerd.k8s.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES
from linkerd.kit.admin import serve_http
from linkerd.kit.x509 import Authority, certificate_pem, key_pem, new_key, new_leaf, new_root, new_server_certificate
from linkerd.proto import viz_pb2
from linkerd.proto import viz_tap_pb2 as tap
from linkerd.viz.index import PodIndex, pod_from_object
from linkerd.viz.tap.access import FrontProxy
from linkerd.viz.tap.front_proxy import FrontProxyWatch
from linkerd.viz.tap.service import TapApi, server_context
from linkerd.viz.tap.session import Dialer, Session
from support.tapping import Request, TappedProxy, serving_proxy

ROOT = "/apis/tap.linkerd.io/v1alpha1"
DAY = timedelta(days=1)


@dataclass
class Rig:
    url: str
    proxy: TappedProxy
    api: TapApi
    front: Authority
    directory: Path
    watch: FrontProxyWatch

    def session(
        self, name: str | None = "front-proxy-client", authority: Authority | None = None
    ) -> aiohttp.ClientSession:
        """With a certificate of that name from the front proxy's authority, or with none."""
        context = create_default_context(cafile=self.directory / "server-ca.crt")
        if name is not None:
            self._load_client(context, name, authority or self.front)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))

    def _load_client(self, context: SSLContext, name: str, authority: Authority) -> None:
        key, now = new_key(), datetime.now(UTC)
        leaf = new_leaf(authority, [name], key.public_key(), not_before=now - DAY, not_after=now + DAY)
        path = self.directory / f"{name}.pem"
        path.write_text(certificate_pem(leaf) + key_pem(key))
        context.load_cert_chain(path)


@pytest.fixture
async def rig(client, tmp_path: Path) -> AsyncIterator[Rig]:
    leaf, key, authority = new_server_certificate("localhost", DAY)
    (tmp_path / "tls.crt").write_text(certificate_pem(leaf))
    (tmp_path / "tls.key").write_text(key_pem(key))
    (tmp_path / "server-ca.crt").write_text(certificate_pem(authority.certificate))
    front, proxy, index = new_root("front-proxy-ca", DAY), TappedProxy(), PodIndex()
    metadata = {
        "name": "web-1",
        "namespace": "shop",
        "labels": {"linkerd.io/control-plane-ns": "linkerd"},
        "annotations": {"viz.linkerd.io/tap-enabled": "true"},
    }
    index.apply(pod_from_object({"metadata": metadata, "status": {"phase": "Running", "podIP": "127.0.0.2"}}))
    new_context = partial(server_context, tmp_path / "tls.crt", tmp_path / "tls.key")
    context = new_context()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving_proxy(proxy, "127.0.0.2"))
        new_session = partial(Session, index=index, observe=Dialer(port, TrustDomain()), control_plane="linkerd")
        api = TapApi(client, FrontProxy(), new_session)
        watch = FrontProxyWatch(client, api, context, new_context)
        watch.take(_config_map(front))
        own_port = await stack.enter_async_context(serve_http(api.app(), "127.0.0.1:0", context, grace=0.1))
        yield Rig(f"https://localhost:{own_port}", proxy, api, front, tmp_path, watch)


def _config_map(*front: Authority) -> dict:
    return {
        "data": {
            "requestheader-client-ca-file": certificate_pem(*(authority.certificate for authority in front)),
            "requestheader-allowed-names": '["front-proxy-client"]',
            "requestheader-username-headers": '["X-Remote-User"]',
            "requestheader-group-headers": '["X-Remote-Group"]',
            "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        }
    }


def body(name: str = "web-1") -> bytes:
    message = tap.TapByResourceRequest()
    resource = message.target.resource
    resource.namespace, resource.type, resource.name = "shop", "pod", name
    return message.SerializeToString()


ADMIN = {"X-Remote-User": "ada", "X-Remote-Group": "system:masters"}
PATH = f"{ROOT}/watch/namespaces/shop/pods/web-1/tap"


async def read_event(content: aiohttp.StreamReader) -> tap.TapEvent:
    size = struct.unpack("<I", await content.readexactly(4))[0]
    return tap.TapEvent.FromString(await content.readexactly(size))


async def test_streams_events_one_by_one(rig):
    async with rig.session() as session, session.post(rig.url + PATH, data=body(), headers=ADMIN) as response:
        assert response.headers["Content-Type"] == "application/octet-stream"
        rig.proxy.see(Request(path="/now"))
        async with asyncio.timeout(5):
            event = await read_event(response.content)
    assert event.http.request_init.path == "/now"


async def test_ends_with_its_reader(rig):
    async with rig.session() as session, session.post(rig.url + PATH, data=body(), headers=ADMIN):
        assert len(rig.api.sessions) == 1
    async with asyncio.timeout(5):
        while rig.api.sessions:  # noqa: ASYNC110 - noticed by the server when it looks
            await asyncio.sleep(0.05)


async def test_only_those_with_the_right_may_tap(rig, client):
    async with rig.session() as session:
        headers = {"X-Remote-User": "eve"}
        async with session.post(rig.url + PATH, data=body(), headers=headers) as response:
            assert response.status == 403
            refusal = (await response.json())["error"]
        assert refusal.startswith("tap authorization failed (not authorized to access pods.tap.linkerd.io")
        await _grant(client, "eve")
        async with asyncio.timeout(10):
            while True:
                async with session.post(rig.url + PATH, data=body(), headers=headers) as response:
                    if response.status == 200:
                        return
                await asyncio.sleep(0.05)


async def _grant(client, user: str) -> None:
    rules = [{"apiGroups": ["tap.linkerd.io"], "resources": ["*"], "verbs": ["watch"]}]
    await client.create(CLUSTER_ROLES, {"metadata": {"name": "tapper"}, "rules": rules})
    binding = {
        "metadata": {"name": "tapper"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tapper"},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
    }
    await client.create(CLUSTER_ROLE_BINDINGS, binding)


@pytest.mark.parametrize("name", [None, "somebody-else"])
async def test_nobody_but_the_front_proxy_names_a_user(rig, name):
    async with rig.session(name) as session, session.post(rig.url + PATH, data=body(), headers=ADMIN) as response:
        assert response.status == 400
        assert "certificate" in await response.text() or name is not None


async def test_a_certificate_of_another_authority_gets_no_connection(rig):
    rig.front = new_root("front-proxy-ca", DAY)
    async with rig.session() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post(rig.url + PATH, data=body(), headers=ADMIN)


@pytest.mark.parametrize(
    ("path", "data", "status", "message"),
    [
        (PATH, body("other"), "Bad Request", "tap request body did not match APIServer URL"),
        (PATH.replace("web-1", "gone"), body("gone"), "Not Found", 'no pods to tap for type="pod" name="gone"'),
        (PATH, b"\xff\xff", "Bad Request", "Error parsing message"),
    ],
)
async def test_a_tap_that_cannot_start_is_an_error_frame(rig, path, data, status, message):
    async with rig.session() as session, session.post(rig.url + path, data=data, headers=ADMIN) as response:
        assert (response.status, response.headers["linkerd-error"]) == (200, status)
        frame = await response.read()
    assert message in viz_pb2.ApiError.FromString(frame[4:]).error


async def test_tells_what_it_has(rig):
    async with rig.session(None) as session:
        async with session.get(rig.url + ROOT) as response:
            resources = {resource["name"] for resource in (await response.json())["resources"]}
        async with session.get(rig.url + "/nowhere") as response:
            assert response.status == 404
    assert {"deployments", "deployments/tap", "namespaces/tap"} <= resources


async def tapped(rig: Rig, session: aiohttp.ClientSession) -> int:
    """The status of a tap that nobody may do: 403 says that the front proxy was believed."""
    async with session.post(rig.url + PATH, data=body(), headers={"X-Remote-User": "mallory"}) as response:
        await response.read()
        return response.status


async def test_an_authority_that_is_replaced_is_not_believed_any_more(rig: Rig):
    new = new_root("front-proxy-ca", DAY)
    async with rig.session() as before, rig.session(authority=new) as later:
        assert await tapped(rig, before) == 403
        rig.watch.take(_config_map(new))
        assert await tapped(rig, before) == 400, "nor on a connection that was there before"
        async with rig.session() as again:
            with pytest.raises(aiohttp.ClientConnectionError):
                await tapped(rig, again)
        assert await tapped(rig, later) == 403


async def test_a_second_authority_disturbs_no_connection_of_the_first(rig: Rig):
    async with rig.session() as session:
        assert await tapped(rig, session) == 403
        rig.watch.take(_config_map(rig.front, new_root("next", DAY)))
        assert await tapped(rig, session) == 403


async def test_the_certificate_that_is_served_is_replaced(rig: Rig):
    leaf, key, authority = new_server_certificate("localhost", DAY)
    for name, text in (("tls.crt", certificate_pem(leaf)), ("tls.key", key_pem(key))):
        (rig.directory / name).write_text(text)
    (rig.directory / "server-ca.crt").write_text(certificate_pem(authority.certificate))
    rig.watch.renew()
    async with rig.session() as session:
        assert await tapped(rig, session) == 403
