"""The process of destination: flags → index, watches, service → servers."""

from __future__ import annotations

import argparse

from linkerd.core.identities import TrustDomain
from linkerd.core.ports import PortSet, parse_port_set
from linkerd.destination.index import Index, Settings
from linkerd.destination.service import DestinationService
from linkerd.destination.watching import ClusterWatch
from linkerd.k8s.client import Client
from linkerd.k8s.config import ConfigError
from linkerd.kit.admin import Readiness, serve_admin
from linkerd.kit.collecting import collect_rarely
from linkerd.kit.rpc import serve_rpc
from linkerd.kit.tasks import fail, run, run_until_terminated
from linkerd.runtime import flags


def main(argv: list[str]) -> int:
    values = flags.parse(_parser(), argv)
    try:
        client = Client.load(values.kubeconfig, user_agent="linkerd-destination")
    except ConfigError as error:
        return fail(str(error))
    return run(_serve(values, client))


def _parser() -> argparse.ArgumentParser:
    parser = flags.parser("destination", admin_addr=":9996")
    parser.add_argument("--addr", default=":8086")
    parser.add_argument("--controller-namespace", default="linkerd")
    parser.add_argument("--cluster-domain", default="cluster.local")
    parser.add_argument("--identity-trust-domain", default="cluster.local")
    parser.add_argument("--default-opaque-ports", type=flags.ports, default=parse_port_set(flags.OPAQUE_PORTS))
    parser.add_argument("--enable-h2-upgrade", type=flags.boolean, default=True)
    parser.add_argument("--enable-ipv6", type=flags.boolean, default=False)
    return parser


def _settings(values: argparse.Namespace) -> Settings:
    ports: PortSet = values.default_opaque_ports
    return Settings(
        cluster_domain=values.cluster_domain,
        trust_domain=TrustDomain(values.controller_namespace, values.identity_trust_domain),
        opaque_ports=ports,
        h2_upgrade=values.enable_h2_upgrade,
        ipv6=values.enable_ipv6,
    )


async def _serve(values: argparse.Namespace, client: Client) -> None:
    index = Index(_settings(values))
    async with client:
        watch = ClusterWatch(client, index)
        service = DestinationService(index, watch.synced, values.cluster_domain)
        async with (
            serve_admin(values.admin_addr, Readiness(caches=watch.synced.is_set)),
            serve_rpc(values.addr, [service.handler()]),
        ):
            await run_until_terminated(*watch.tasks(service.touch), collect_rarely(watch.synced))
