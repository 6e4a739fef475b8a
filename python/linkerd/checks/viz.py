"""The viz extension: installed, running, and seeing the data plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from linkerd.checks.certificates import check_server_certificate, ends_soon, server_chain
from linkerd.checks.cluster import Cluster, listed, name_of, proxy_env, proxy_of
from linkerd.checks.control_plane import (
    check_cli_version,
    check_components,
    check_proxies_ready,
    check_proxy_versions,
    missing,
)
from linkerd.checks.model import Category, Check, CheckFailure, Severity, Skipped
from linkerd.k8s.resources import (
    API_SERVICES,
    AUTHORIZATION_POLICIES,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    NAMESPACES,
    PODS,
)

Object = dict[str, Any]

EXTENSION_LABEL = "linkerd.io/extension"
EXTERNAL_PROMETHEUS = "viz.linkerd.io/external-prometheus"

_INSTALL = "run `linkerd viz install | kubectl apply -f -`"

SelfCheck = Callable[[], Awaitable[list[str]]]
"""Asks metrics-api whether it can do its work: what is wrong, empty for nothing. Raises CheckFailure, OSError."""

ScrapedPods = Callable[[str | None], Awaitable[set[str]]]
"""The pods (`namespace/name`) of a namespace, or of all, whose proxies' metrics Prometheus has."""


def viz(
    cluster: Cluster, namespace: str, cli_version: str, self_check: SelfCheck, scraped_pods: ScrapedPods
) -> Category:
    """`namespace`: where viz is, empty when no namespace is labelled so."""

    async def exists() -> None:
        if not namespace:
            raise CheckFailure('namespace with label "linkerd.io/extension: viz" not found')
        found = await cluster.find(NAMESPACES, namespace)
        if found is None:
            raise CheckFailure(f'The "{namespace}" namespace does not exist')
        if (found["metadata"].get("labels") or {}).get(EXTENSION_LABEL) not in ("viz", "linkerd-viz"):
            raise CheckFailure(f'namespace "{namespace}" lacks the label "linkerd.io/extension: viz"')

    async def roles() -> None:
        names = [f"linkerd-{namespace}-{name}" for name in ("tap", "metrics-api", "tap-admin")]
        await missing(cluster, "ClusterRoles", CLUSTER_ROLES, names)

    async def bindings() -> None:
        names = [f"linkerd-{namespace}-{name}" for name in ("tap", "metrics-api", "tap-auth-delegator")]
        await missing(cluster, "ClusterRoleBindings", CLUSTER_ROLE_BINDINGS, names)

    async def tap_certificate() -> None:
        service = await cluster.find(API_SERVICES, "v1alpha1.tap.linkerd.io")
        if service is None:
            raise CheckFailure('apiservices "v1alpha1.tap.linkerd.io" not found')
        chain = await server_chain(cluster, "tap-k8s-tls", namespace)
        check_server_certificate(chain, service["spec"].get("caBundle") or "", f"tap.{namespace}.svc")

    async def tap_certificate_for_long() -> None:
        if problem := ends_soon((await server_chain(cluster, "tap-k8s-tls", namespace))[0]):
            raise CheckFailure(f"certificate {problem}")

    async def tap_running() -> None:
        service = await cluster.find(API_SERVICES, "v1alpha1.tap.linkerd.io")
        for condition in ((service or {}).get("status") or {}).get("conditions") or []:
            if condition["type"] == "Available":
                if condition["status"] == "True":
                    return
                raise CheckFailure(f"{condition.get('reason', '')}: {condition.get('message', '')}")
        raise CheckFailure("the APIService v1alpha1.tap.linkerd.io has no condition Available yet")

    async def pods() -> list[Object]:
        found = await cluster.list(PODS, namespace, EXTENSION_LABEL)
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    async def injected() -> None:
        bare = [name_of(pod) for pod in await pods() if proxy_of(pod) is None]
        if bare:
            raise CheckFailure(listed("these pods are not meshed:", bare))

    async def running() -> None:
        check_components(await pods(), ("metrics-api", "tap"), prefix="")

    async def healthy() -> None:
        check_proxies_ready(await meshed(), namespace)

    async def meshed() -> list[Object]:
        return [pod for pod in await pods() if proxy_of(pod) is not None]

    async def current() -> None:
        check_proxy_versions(await meshed(), await cluster.version())

    async def match() -> None:
        check_cli_version(await meshed(), cli_version)

    async def prometheus() -> None:
        external = await _external_prometheus(cluster, namespace)
        if external:
            await _check_external(external, await scraped_pods(namespace), [name_of(pod) for pod in await meshed()])
        else:
            await _check_prometheus(cluster, namespace, await pods())

    async def answers() -> None:
        problems = await self_check()
        if problems:
            raise CheckFailure("\n".join(problems))

    fatal, warning = Severity.FATAL, Severity.WARNING
    restart = f"run `kubectl rollout restart deploy -n {namespace or 'linkerd-viz'}`"
    logs = f"see `kubectl get pods -n {namespace or 'linkerd-viz'}` and the logs of the container named"
    return Category(
        "linkerd-viz",
        [
            Check("linkerd-viz Namespace exists", "l5d-viz-ns-exists", exists, _INSTALL),
            Check("linkerd-viz ClusterRoles exist", "l5d-viz-cr-exists", roles, _INSTALL),
            Check("linkerd-viz ClusterRoleBindings exist", "l5d-viz-crb-exists", bindings, _INSTALL),
            Check("tap API server has valid cert", "l5d-tap-cert-valid", tap_certificate, _INSTALL),
            Check(
                "tap API server cert is valid for at least 60 days",
                "l5d-tap-cert-not-expiring-soon",
                tap_certificate_for_long,
                _INSTALL,
                warning,
            ),
            Check("tap API service is running", "l5d-tap-api", tap_running, logs, warning, retry=True),
            Check("linkerd-viz pods are injected", "l5d-viz-pods-injection", injected, restart, warning),
            Check(
                "viz extension pods are running",
                "l5d-viz-pods-running",
                running,
                logs,
                warning,
                retry=True,
                surface=True,
            ),
            Check("viz extension proxies are healthy", "l5d-viz-proxy-healthy", healthy, logs, warning, retry=True),
            Check("viz extension proxies are up-to-date", "l5d-viz-proxy-cp-version", current, restart, warning),
            Check("viz extension proxies and cli versions match", "l5d-viz-proxy-cli-version", match, restart, warning),
            Check(
                "prometheus is installed and configured correctly",
                "l5d-viz-prometheus",
                prometheus,
                f"{_INSTALL}; a Prometheus of yours needs the scrape configuration of docs/reference/viz.md",
                warning,
                retry=True,
            ),
            Check("viz extension self-check", "l5d-viz-metrics-api", answers, logs, fatal, retry=True),
        ],
    )


async def _external_prometheus(cluster: Cluster, namespace: str) -> str:
    """The URL of the user's own, empty when viz has one."""
    found = await cluster.find(NAMESPACES, namespace) or {"metadata": {}}
    return str((found["metadata"].get("annotations") or {}).get(EXTERNAL_PROMETHEUS) or "")


async def _check_external(url: str, scraped: set[str], pods: list[str]) -> None:
    """Viz's own pods are meshed, so a Prometheus that scrapes the mesh has their proxies' metrics."""
    unseen = [name for name in pods if name not in scraped]
    if unseen:
        raise CheckFailure(listed(f"the Prometheus at {url} has no metrics of the proxies of these pods:", unseen))


async def _check_prometheus(cluster: Cluster, namespace: str, pods: list[Object]) -> None:
    role = f"linkerd-{namespace}-prometheus"
    await missing(cluster, "ClusterRoles", CLUSTER_ROLES, [role])
    await missing(cluster, "ClusterRoleBindings", CLUSTER_ROLE_BINDINGS, [role])
    await missing(cluster, "ConfigMaps", CONFIG_MAPS, ["prometheus-config"], namespace)
    check_components(pods, ("prometheus",), prefix="")


def data_plane(cluster: Cluster, namespace: str | None, scraped_pods: ScrapedPods) -> Category:
    """`namespace`: the one that was asked for, or all."""

    async def exists() -> None:
        if not namespace:
            raise Skipped
        if await cluster.find(NAMESPACES, namespace) is None:
            raise CheckFailure(f'The "{namespace}" namespace does not exist')

    async def authorized() -> None:
        denying = [
            name_of(pod)
            for pod in await cluster.data_plane_pods(namespace)
            if (proxy_env(pod, "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY") or {}).get("value") == "deny"
        ]
        allowed = {
            policy["metadata"]["namespace"]
            for policy in await cluster.list(AUTHORIZATION_POLICIES, namespace)
            if policy["metadata"]["name"] == "prometheus-scrape"
        }
        closed = [name for name in denying if name.partition("/")[0] not in allowed]
        if closed:
            raise CheckFailure(listed("prometheus may not be authorized to scrape these pods:", closed))

    async def present() -> None:
        running = [
            name_of(pod)
            for pod in await cluster.meshed_pods(namespace)
            if pod["status"].get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
        ]
        scraped = await scraped_pods(namespace)
        unseen = [name for name in running if name not in scraped]
        if unseen:
            raise CheckFailure(f"Data plane metrics not found for {', '.join(unseen)}.")

    return Category(
        "linkerd-viz-data-plane",
        [
            Check("data plane namespace exists", "l5d-data-plane-exists", exists, "is the name right?"),
            Check(
                "prometheus is authorized to scrape data plane pods",
                "l5d-viz-data-plane-prom-authz",
                authorized,
                "run `linkerd viz allow-scrapes -n <namespace> | kubectl apply -f -`",
                Severity.WARNING,
            ),
            Check(
                "data plane proxy metrics are present in Prometheus",
                "l5d-data-plane-prom",
                present,
                "see the targets page of Prometheus: `kubectl port-forward -n linkerd-viz deploy/prometheus 9090`",
                Severity.WARNING,
                retry=True,
            ),
        ],
    )
