"""The control plane: there, configured, running, and all of one version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from linkerd.checks.cluster import CONTROL_PLANE_LABEL, Cluster, listed, name_of, not_ready, proxy_ready, proxy_version
from linkerd.checks.model import Category, Check, CheckFailure, Severity, Skipped
from linkerd.k8s.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEPLOYMENTS,
    MUTATING_WEBHOOKS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    VALIDATING_WEBHOOKS,
    Resource,
)

Object = dict[str, Any]
Network = IPv4Network | IPv6Network

COMPONENTS = ("destination", "identity", "proxy-injector")

_INSTALL = "run `linkerd install --crds | kubectl apply -f -`, then `linkerd install | kubectl apply -f -`"
_UPGRADE = "run `linkerd upgrade | kubectl apply -f -`"


def definitions(cluster: Cluster, wanted: Mapping[str, str], *, retry: bool) -> Check:
    """`wanted`: the version of each CustomResourceDefinition that the control plane reads."""

    async def run() -> None:
        found = {item["metadata"]["name"]: item for item in await cluster.list(CUSTOM_RESOURCE_DEFINITIONS)}
        problems = [
            f"missing {name}" if name not in found else f"CRD {name} is missing version {version}"
            for name, version in wanted.items()
            if name not in found or version not in _served(found[name])
        ]
        if problems:
            raise CheckFailure(", ".join(problems))

    hint = "run `linkerd install --crds | kubectl apply -f -`"
    return Check("control plane CustomResourceDefinitions exist", "l5d-existence-crd", run, hint, retry=retry)


def _served(definition: Object) -> set[str]:
    return {version["name"] for version in definition["spec"]["versions"] if version.get("served")}


def existence(cluster: Cluster) -> Category:
    async def config() -> None:
        await cluster.values()

    async def replica_sets() -> None:
        failed = [
            f"{name_of(item)}: {condition.get('message', '')}"
            for item in await cluster.list(REPLICA_SETS, cluster.namespace)
            for condition in (item.get("status") or {}).get("conditions") or []
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True"
        ]
        if failed:
            raise CheckFailure(listed("these ReplicaSets cannot make their pods:", failed))

    async def unschedulable() -> None:
        pods = [
            f"{name_of(pod)}: {condition.get('message', '')}"
            for pod in await cluster.list(PODS, cluster.namespace)
            for condition in pod["status"].get("conditions") or []
            if condition.get("reason") == "Unschedulable"
        ]
        if pods:
            raise CheckFailure(listed("no node takes these pods:", pods))

    async def ready() -> None:
        check_components(await cluster.control_plane_pods(), COMPONENTS)

    return Category(
        "linkerd-existence",
        [
            Check("'linkerd-config' config map exists", "l5d-existence-linkerd-config", config, _INSTALL),
            Check(
                "control plane replica sets are ready",
                "l5d-existence-replicasets",
                replica_sets,
                f"see `kubectl describe rs -n {cluster.namespace}`",
                retry=True,
            ),
            Check(
                "no unschedulable pods",
                "l5d-existence-unschedulable-pods",
                unschedulable,
                f"see `kubectl describe pod -n {cluster.namespace}`",
                Severity.WARNING,
                retry=True,
                surface=True,
            ),
            Check(
                "control plane pods are ready",
                "l5d-api-control-ready",
                ready,
                f"see `kubectl get pods -n {cluster.namespace}` and the logs of the container named",
                retry=True,
                surface=True,
            ),
            *_network_checks(cluster),
        ],
    )


def check_components(pods: Iterable[Object], components: Iterable[str], prefix: str = "linkerd-") -> None:
    """That each component has a pod all of whose containers are ready. Raises CheckFailure."""
    label = "linkerd.io/control-plane-component" if prefix else "component"
    by_component: dict[str, list[Object]] = {}
    for pod in pods:
        if not pod["metadata"].get("deletionTimestamp"):
            by_component.setdefault((pod["metadata"].get("labels") or {}).get(label, ""), []).append(pod)
    for component in components:
        problems = [not_ready(pod) for pod in by_component.get(component, [])]
        if not problems:
            raise CheckFailure(f'No running pods for "{prefix}{component}"')
        if all(problems):
            raise CheckFailure(problems[0])


def _network_checks(cluster: Cluster) -> list[Check]:
    async def networks() -> list[Network]:
        text = (await cluster.values()).get("clusterNetworks") or ""
        return [ip_network(part.strip()) for part in text.split(",") if part.strip()]

    async def nodes() -> None:
        ranges = [
            cidr
            for node in await cluster.list(NODES)
            for cidr in node["spec"].get("podCIDRs") or [node["spec"].get("podCIDR")]
            if cidr
        ]
        if not ranges:
            raise Skipped
        known = await networks()
        outside = [cidr for cidr in ranges if not any(_within(ip_network(cidr), network) for network in known)]
        if outside:
            raise CheckFailure(listed("node has podCIDR(s) outside of the cluster networks:", outside))

    async def pods() -> None:
        found = [pod for pod in await cluster.list(PODS) if not pod["spec"].get("hostNetwork")]
        await outside_of_networks([(name_of(pod), pod["status"].get("podIP")) for pod in found], "pods")

    async def services() -> None:
        found = [(name_of(service), service["spec"].get("clusterIP")) for service in await cluster.list(SERVICES)]
        await outside_of_networks([(name, ip) for name, ip in found if ip != "None"], "services")

    async def outside_of_networks(addresses: list[tuple[str, str | None]], what: str) -> None:
        known = await networks()
        outside = [
            f"{name} ({ip})" for name, ip in addresses if ip and not any(ip_address(ip) in network for network in known)
        ]
        if outside:
            raise CheckFailure(listed(f"these {what} have addresses outside of the cluster networks:", outside))

    hint = "set clusterNetworks: `linkerd upgrade --set clusterNetworks=… | kubectl apply -f -`"
    return [
        Check("cluster networks contains all node podCIDRs", "l5d-cluster-networks-cidr", nodes, hint, Severity.ERROR),
        Check("cluster networks contains all pods", "l5d-cluster-networks-pods", pods, hint, Severity.ERROR),
        Check("cluster networks contains all services", "l5d-cluster-networks-pods", services, hint, Severity.ERROR),
    ]


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def configuration(cluster: Cluster, wanted_definitions: Mapping[str, str]) -> Category:
    """The objects that an installation consists of."""

    async def namespace() -> None:
        if await cluster.find(NAMESPACES, cluster.namespace) is None:
            raise CheckFailure(f'The "{cluster.namespace}" namespace does not exist')

    def present(kinds: str, anchor: str, resource: Resource, names: list[str], where: str | None = None) -> Check:
        return Check(
            f"control plane {kinds} exist", anchor, lambda: missing(cluster, kinds, resource, names, where), _UPGRADE
        )

    roles = [f"linkerd-{cluster.namespace}-{name}" for name in ("identity", "proxy-injector")]
    accounts = [f"linkerd-{name}" for name in COMPONENTS]
    return Category(
        "linkerd-config",
        [
            Check("control plane Namespace exists", "l5d-existence-ns", namespace, _INSTALL),
            present("ClusterRoles", "l5d-existence-cr", CLUSTER_ROLES, roles),
            present("ClusterRoleBindings", "l5d-existence-crb", CLUSTER_ROLE_BINDINGS, roles),
            present("ServiceAccounts", "l5d-existence-sa", SERVICE_ACCOUNTS, accounts, cluster.namespace),
            definitions(cluster, wanted_definitions, retry=False),
            present(
                "MutatingWebhookConfigurations",
                "l5d-existence-mwc",
                MUTATING_WEBHOOKS,
                ["linkerd-proxy-injector-webhook-config"],
            ),
            present(
                "ValidatingWebhookConfigurations",
                "l5d-existence-vwc",
                VALIDATING_WEBHOOKS,
                ["linkerd-policy-validator-webhook-config", "linkerd-sp-validator-webhook-config"],
            ),
        ],
    )


async def missing(
    cluster: Cluster, kinds: str, resource: Resource, names: Iterable[str], namespace: str | None = None
) -> None:
    found = await cluster.names(resource, namespace)
    absent = [name for name in names if name not in found]
    if absent:
        raise CheckFailure(f"missing {kinds}: {', '.join(absent)}")


# Versions


def versions(cluster: Cluster, cli_version: str) -> Category:
    async def retrieve() -> None:
        await cluster.version()

    async def match() -> None:
        version = await cluster.version()
        if not same_version(version, cli_version):
            raise CheckFailure(f"control plane running {version} but cli running {cli_version}")

    return Category(
        "control-plane-version",
        [
            Check("can retrieve the control plane version", "l5d-version-control", retrieve, _INSTALL, retry=True),
            Check("control plane and cli versions match", "l5d-version-control", match, _UPGRADE, Severity.WARNING),
        ],
    )


def same_version(one: str, other: str) -> bool:
    """`<channel>-<version>[-<build>]`, the build left out."""
    return one.split("-")[:2] == other.split("-")[:2]


def proxies(cluster: Cluster, cli_version: str) -> Category:
    """Those of the control plane's own pods."""
    subject = "control plane proxies"

    async def pods() -> list[Object]:
        found = await cluster.list(PODS, cluster.namespace, f"{CONTROL_PLANE_LABEL}={cluster.namespace}")
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    async def healthy() -> None:
        check_proxies_ready(await pods(), cluster.namespace)

    async def current() -> None:
        check_proxy_versions(await pods(), await cluster.version())

    async def match() -> None:
        check_cli_version(await pods(), cli_version)

    return Category(
        "linkerd-control-plane-proxy",
        [
            Check(
                f"{subject} are healthy",
                "l5d-cp-proxy-healthy",
                healthy,
                f"see `kubectl logs -n {cluster.namespace} <pod> -c linkerd-proxy`",
                retry=True,
                surface=True,
            ),
            Check(f"{subject} are up-to-date", "l5d-cp-proxy-version", current, _UPGRADE, Severity.WARNING),
            Check(f"{subject} and cli versions match", "l5d-cp-proxy-cli-version", match, _UPGRADE, Severity.WARNING),
        ],
    )


def check_proxies_ready(pods: list[Object], namespace: str | None) -> None:
    """Raises CheckFailure."""
    if not pods:
        where = f' in the "{namespace}" namespace' if namespace else ""
        raise CheckFailure(f'no "linkerd-proxy" containers found{where}')
    problems = []
    for pod in pods:
        phase = pod["status"].get("phase")
        if phase not in ("Running", "Succeeded"):
            problems.append(f'pod "{name_of(pod)}" status is {phase}')
        elif phase == "Running" and not proxy_ready(pod):
            problems.append(f'container "linkerd-proxy" in pod "{name_of(pod)}" is not ready')
    if problems:
        raise CheckFailure(listed("some pods are not ready:", problems) if len(problems) > 1 else problems[0])


def check_proxy_versions(pods: list[Object], version: str) -> None:
    """That all run the control plane's version. Raises CheckFailure."""
    others = [
        f"{name_of(pod)} ({running})"
        for pod in pods
        if (running := proxy_version(pod)) and not same_version(running, version)
    ]
    if others:
        raise CheckFailure(listed(f"some proxies are not running the current version, {version}:", others))


def check_cli_version(pods: list[Object], cli_version: str) -> None:
    for pod in pods:
        running = proxy_version(pod)
        if running and not same_version(running, cli_version):
            raise CheckFailure(f"{name_of(pod)} running {running} but cli running {cli_version}")


def high_availability(cluster: Cluster) -> Category:
    async def replicas() -> None:
        if not (await cluster.values()).get("highAvailability"):
            raise Skipped
        wanted = {f"linkerd-{component}" for component in COMPONENTS}
        few = [
            f"{item['metadata']['name']} ({(item.get('status') or {}).get('availableReplicas', 0)} available)"
            for item in await cluster.list(DEPLOYMENTS, cluster.namespace)
            if item["metadata"]["name"] in wanted and (item.get("status") or {}).get("availableReplicas", 0) < 2
        ]
        if few:
            raise CheckFailure(listed("not enough replicas available for:", few))

    hint = f"see `kubectl get deploy -n {cluster.namespace}`"
    return Category(
        "linkerd-ha-checks",
        [
            Check(
                "multiple replicas of control plane pods",
                "l5d-control-plane-replicas",
                replicas,
                hint,
                Severity.WARNING,
                retry=True,
            )
        ],
    )


def extensions(cluster: Cluster) -> Category:
    async def unique() -> None:
        namespaces: dict[str, list[str]] = {}
        for item in await cluster.list(NAMESPACES, None, "linkerd.io/extension"):
            namespaces.setdefault(item["metadata"]["labels"]["linkerd.io/extension"], []).append(name_of(item))
        double = [f"{name}: {', '.join(found)}" for name, found in namespaces.items() if len(found) > 1]
        if double:
            raise CheckFailure(listed("some extensions are in more than one namespace:", double))

    return Category(
        "linkerd-extension-checks",
        [
            Check(
                "namespace configuration for extensions",
                "l5d-extension-namespaces",
                unique,
                "keep the label `linkerd.io/extension` on one namespace of each extension",
                Severity.WARNING,
            )
        ],
    )
