"""The metrics-api process: the tables behind `linkerd viz stat`, from Prometheus and Kubernetes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from prometheus_client import REGISTRY

from linkerd.k8s.client import Client
from linkerd.kit import tasks
from linkerd.kit.admin import Readiness, serve_admin
from linkerd.runtime import flags
from linkerd.viz.metrics.objects import Objects
from linkerd.viz.metrics.own import PodGauge
from linkerd.viz.metrics.prometheus import Prometheus, credentials
from linkerd.viz.metrics.service import MetricsApi, serving
from linkerd.viz.metrics.tables import Tables
from linkerd.viz.watching import PodWatch


def main(argv: Sequence[str]) -> int:
    values = flags.parse(_parser(), flags.dashed(argv))
    try:
        user, password = credentials(values.prometheus_user_file, values.prometheus_password_file)
    except (OSError, ValueError) as error:
        return tasks.fail(str(error))
    return tasks.run(_serve(values, user, password))


def _parser() -> argparse.ArgumentParser:
    parser = flags.parser("metrics-api", admin_addr=":9995")
    parser.add_argument("--addr", default=":8085", help="address of the gRPC API")
    parser.add_argument("--metrics-addr", dest="admin_addr", help="the same as --admin-addr")
    parser.add_argument("--prometheus-url", required=True, help="Prometheus that scrapes the proxies")
    parser.add_argument("--prometheus-user-file", default="", help="file that holds the user for Prometheus")
    parser.add_argument("--prometheus-password-file", default="", help="file that holds the password for Prometheus")
    parser.add_argument("--controller-namespace", default="linkerd", help="namespace of the control plane")
    parser.add_argument("--ignore-namespaces", default="kube-system", help="namespaces that tables leave out")
    parser.add_argument("--cluster-domain", default="cluster.local", help="DNS domain of the cluster's services")
    return parser


async def _serve(values: argparse.Namespace, user: str, password: str) -> None:
    async with (
        Client.load(values.kubeconfig, user_agent="linkerd-metrics-api") as client,
        Prometheus(values.prometheus_url, user=user, password=password) as prometheus,
    ):
        watch = PodWatch(client)
        objects = Objects(client, watch.index, values.cluster_domain)
        ignored = frozenset(name for name in values.ignore_namespaces.split(",") if name)
        tables = Tables(
            prometheus,
            objects,
            watch.index,
            control_plane=values.controller_namespace,
            cluster_domain=values.cluster_domain,
            ignored_namespaces=ignored,
        )
        REGISTRY.register(PodGauge(watch.index, values.controller_namespace, ignored))
        api = MetricsApi(client, prometheus, watch.index, objects, tables, values.controller_namespace)
        host = values.addr if not values.addr.startswith(":") else f"[::]{values.addr}"
        readiness = Readiness(pods=watch.synced)
        async with serve_admin(values.admin_addr, readiness), serving(api, host):
            await tasks.run_until_terminated(watch.run())
