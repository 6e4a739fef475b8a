"""The process of policy: flags → index, watches, service, webhook → servers."""

from __future__ import annotations

import argparse
import ssl
from pathlib import Path

from linkerd.core.identities import TrustDomain
from linkerd.core.networks import Network, parse_networks
from linkerd.core.ports import parse_port_set
from linkerd.k8s.client import Client
from linkerd.k8s.config import ConfigError
from linkerd.kit.admin import Readiness, serve_admin, serve_http
from linkerd.kit.admission import admission_app
from linkerd.kit.collecting import collect_rarely
from linkerd.kit.rpc import serve_rpc
from linkerd.kit.tasks import fail, run, run_until_terminated
from linkerd.kit.tls import DIRECTORY, keep_current, server_context
from linkerd.policy.admission import Admission
from linkerd.policy.index import Index, Settings, Source
from linkerd.policy.parsing import DEFAULT_POLICIES
from linkerd.policy.reporting import StatusWriter
from linkerd.policy.service import PolicyService
from linkerd.policy.watching import ClusterWatch
from linkerd.runtime import flags


def main(argv: list[str]) -> int:
    values = flags.parse(_parser(), argv)
    try:
        client = Client.load(values.kubeconfig, user_agent="linkerd-policy")
        tls = server_context(values.tls_dir)
    except ConfigError as error:
        return fail(str(error))
    except (OSError, ssl.SSLError) as error:
        return fail(f"the webhook's certificate in {values.tls_dir} cannot be used: {error}")
    return run(_serve(values, client, tls))


def _parser() -> argparse.ArgumentParser:
    parser = flags.parser("policy", admin_addr=":9990")
    parser.add_argument("--grpc-addr", default=":8090")
    parser.add_argument("--server-addr", default=":9443", help="address of the admission webhook")
    parser.add_argument("--tls-dir", type=Path, default=DIRECTORY, help="tls.crt and tls.key of the webhook")
    parser.add_argument("--control-plane-namespace", default="linkerd")
    parser.add_argument("--identity-domain", default="cluster.local")
    parser.add_argument("--cluster-domain", default="cluster.local")
    parser.add_argument("--cluster-networks", type=_networks, default=parse_networks(flags.CLUSTER_NETWORKS))
    parser.add_argument("--probe-networks", type=_networks, default=parse_networks("0.0.0.0/0,::/0"))
    parser.add_argument("--default-policy", choices=DEFAULT_POLICIES, default="all-unauthenticated")
    parser.add_argument("--default-opaque-ports", type=flags.ports, default=parse_port_set(flags.OPAQUE_PORTS))
    parser.add_argument("--global-egress-network-namespace", default="linkerd-egress")
    parser.add_argument("--allow-l5d-request-headers", type=flags.boolean, default=False)
    return parser


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return parse_networks(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _settings(values: argparse.Namespace) -> Settings:
    return Settings(
        cluster_domain=values.cluster_domain,
        trust_domain=TrustDomain(values.control_plane_namespace, values.identity_domain),
        cluster_networks=values.cluster_networks,
        probe_networks=values.probe_networks,
        default_policy=values.default_policy,
        opaque_ports=values.default_opaque_ports,
        egress_namespace=values.global_egress_network_namespace,
        allow_l5d_request_headers=values.allow_l5d_request_headers,
    )


async def _serve(values: argparse.Namespace, client: Client, tls: ssl.SSLContext) -> None:
    index = Index(_settings(values))
    async with client:
        watch = ClusterWatch(client, index)
        service = PolicyService(index, watch.synced)
        statuses = StatusWriter(client, index, watch.synced)

        def touch(sources: set[Source]) -> None:
            service.touch(sources)
            statuses.touch(sources)

        async with (
            serve_admin(values.admin_addr, Readiness(caches=watch.synced.is_set)),
            serve_http(admission_app(Admission(index).check), values.server_addr, tls),
            serve_rpc(values.grpc_addr, service.handlers()),
        ):
            await run_until_terminated(
                *watch.tasks(touch),
                statuses.run(),
                keep_current(tls, values.tls_dir),
                collect_rarely(watch.synced),
            )
