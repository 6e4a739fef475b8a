"""The tap process: live requests of meshed pods, served as a part of the Kubernetes API."""

from __future__ import annotations

import argparse
import logging
import ssl
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from linkerd.core.identities import TrustDomain
from linkerd.k8s.client import Client
from linkerd.kit import tasks
from linkerd.kit.admin import Readiness, serve_admin, serve_http
from linkerd.kit.files import changes
from linkerd.runtime import flags
from linkerd.viz.tap.access import FrontProxy
from linkerd.viz.tap.front_proxy import FrontProxyWatch
from linkerd.viz.tap.service import TapApi, server_context
from linkerd.viz.tap.session import Dialer, Session
from linkerd.viz.watching import PodWatch

log = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    values = flags.parse(_parser(), flags.dashed(argv))
    certificate, key = values.tls_dir / "tls.crt", values.tls_dir / "tls.key"
    try:
        context = server_context(certificate, key)
    except (OSError, ssl.SSLError) as error:
        return tasks.fail(f"cannot serve with {certificate} and {key}: {error}")
    return tasks.run(_serve(values, context, certificate, key))


def _parser() -> argparse.ArgumentParser:
    parser = flags.parser("tap", admin_addr=":9998")
    parser.add_argument("--apiserver-addr", default=":8089", help="address of the aggregated API")
    parser.add_argument("--metrics-addr", dest="admin_addr", help="the same as --admin-addr")
    parser.add_argument("--api-namespace", default="linkerd", help="namespace of the control plane")
    parser.add_argument("--tap-port", type=int, default=4190, help="port at which proxies are tapped")
    parser.add_argument("--identity-trust-domain", default="cluster.local", help="trust domain of the identities")
    parser.add_argument("--disable-common-names", nargs="?", const=True, default=False, type=flags.boolean,
                        help="let any certificate of the front proxy's CA pass")  # fmt: skip
    parser.add_argument("--ignore-headers", default="", help="header names that are never shown, comma-separated")
    parser.add_argument("--tls-dir", type=Path, default=Path("/var/run/linkerd/tls"), help="has tls.crt and tls.key")
    return parser


async def _serve(values: argparse.Namespace, context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    async with Client.load(values.kubeconfig, user_agent="linkerd-tap") as client:
        dialer = Dialer(values.tap_port, TrustDomain(values.api_namespace, values.identity_trust_domain))
        watch = PodWatch(client, on_pod=lambda _: api.pods_changed())
        new_session = partial(
            Session,
            index=watch.index,
            observe=dialer,
            control_plane=values.api_namespace,
            ignored_headers=frozenset(name.lower() for name in values.ignore_headers.split(",") if name),
        )
        api = TapApi(client, FrontProxy(), new_session)
        new_context = partial(server_context, certificate, key)
        front = FrontProxyWatch(client, api, context, new_context, any_name=values.disable_common_names)
        readiness = Readiness(pods=watch.synced, front_proxy=lambda: front.known)
        async with (
            serve_admin(values.admin_addr, readiness),
            serve_http(api.app(), values.apiserver_addr, context, grace=1.0),
        ):
            await tasks.run_until_terminated(watch.run(), front.follow(), _renew(front, certificate, key))


async def _renew(front: FrontProxyWatch, certificate: Path, key: Path) -> None:
    """For ever: new connections get the certificate that is in the Secret now."""
    async for changed in changes([certificate, key]):
        if not changed:
            continue
        try:
            front.renew()
            log.info("the serving certificate was replaced")
        except (OSError, ssl.SSLError) as error:
            log.error("the new serving certificate cannot be used, the old one stays: %s", error)
