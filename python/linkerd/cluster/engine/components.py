"""The programs of the cluster and how each is started (pure: settings in, command lines out).

Choices that differ from a usual cluster have one of two reasons: there is one node and one of each program, and the
whole must be small enough to run beside somebody's work.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from linkerd.cluster.engine import settings as names
from linkerd.cluster.engine.certificates import SERVICE_ACCOUNT_KEY, kubeconfig, read_pem
from linkerd.cluster.engine.settings import Settings

_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Component:
    """A supervised program. `grace`: seconds between SIGTERM and SIGKILL when the cluster ends."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    grace: float = 5.0


def components(settings: Settings) -> tuple[Component, ...]:
    """All of them in the order of their start; they end in the opposite order."""
    return (
        etcd(settings),
        apiserver(settings),
        controller_manager(settings),
        scheduler(settings),
        proxy(settings),
        node_agent(settings),
    )


def _kube(settings: Settings, name: str, *flags: str, memory: int, grace: float = 3.0) -> Component:
    """`memory` in MiB is the garbage collector's soft limit, not a wall: near it, it works harder."""
    env = {"GOMEMLIMIT": f"{memory}MiB", "GOGC": "50"}
    return Component(name, (str(settings.program("linkerd-kube")), name, *flags), env, grace)


def etcd(settings: Settings) -> Component:
    """What is written is synced to disk. The election is with itself, and the start waits for it: so it is short."""
    peer_url = "http://127.0.0.1:2380"
    return _kube(
        settings,
        "etcd",
        f"--name={names.NODE_NAME}",
        f"--data-dir={settings.etcd}",
        f"--listen-client-urls={names.ETCD_URL}",
        f"--advertise-client-urls={names.ETCD_URL}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster={names.NODE_NAME}={peer_url}",
        "--heartbeat-interval=100",
        "--election-timeout=500",
        f"--quota-backend-bytes={2048 * _MEBIBYTE}",
        "--snapshot-count=5000",
        "--log-level=warn",
        memory=64,
        grace=10.0,
    )


def apiserver(settings: Settings) -> Component:
    """Aggregated APIs and webhooks are reached at their pods' addresses, not through the service network."""
    pki = settings.pki
    return _kube(
        settings,
        "kube-apiserver",
        f"--etcd-servers={names.ETCD_URL}",
        f"--secure-port={names.API_PORT}",
        f"--advertise-address={names.NODE_IP}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--service-cluster-ip-range={names.SERVICE_CIDR}",
        f"--service-account-issuer=https://kubernetes.default.svc.{names.CLUSTER_DOMAIN}",
        f"--service-account-key-file={pki}/{SERVICE_ACCOUNT_KEY}.pub",
        f"--service-account-signing-key-file={pki}/{SERVICE_ACCOUNT_KEY}.key",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy-client.crt",
        f"--proxy-client-key-file={pki}/front-proxy-client.key",
        "--enable-aggregator-routing=true",
        # Fair queues between many tenants: here there is one, and the queues' bookkeeping never sleeps.
        "--enable-priority-and-fairness=false",
        "--profiling=false",
        memory=256,
        # It would wait for the connections of pods whose network is gone. What it has acknowledged is in etcd.
        grace=1.0,
    )


def controller_manager(settings: Settings) -> Component:
    """One identity for all controllers instead of a service account and a client for each of them."""
    pki = settings.pki
    unused = (
        "attachdetach",
        "bootstrap-signer-controller",
        "cloud-node-lifecycle-controller",
        "node-route-controller",
        "persistentvolume-attach-detach-controller",
        "persistentvolume-expander-controller",
        "service-lb-controller",
        "storage-version-migrator-controller",
        "token-cleaner-controller",
    )
    return _kube(
        settings,
        "kube-controller-manager",
        f"--kubeconfig={settings.component_kubeconfig('kube-controller-manager')}",
        f"--service-account-private-key-file={pki}/{SERVICE_ACCOUNT_KEY}.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--allocate-node-cidrs=true",
        f"--cluster-cidr={names.POD_CIDR}",
        f"--service-cluster-ip-range={names.SERVICE_CIDR}",
        "--controllers=*," + ",".join(f"-{name}" for name in unused),
        "--kube-api-qps=100",
        "--kube-api-burst=200",
        *_ALONE,
        memory=80,
    )


def scheduler(settings: Settings) -> Component:
    return _kube(
        settings,
        "kube-scheduler",
        f"--kubeconfig={settings.component_kubeconfig('kube-scheduler')}",
        "--kube-api-qps=100",
        "--kube-api-burst=200",
        *_ALONE,
        memory=48,
    )


_ALONE = ("--leader-elect=false", "--profiling=false", "--secure-port=0")
"""Nobody to elect against, and nobody who asks for health or metrics."""


def proxy(settings: Settings) -> Component:
    return _kube(settings, "kube-proxy", f"--config={settings.run}/kube-proxy.yaml", memory=48)


def proxy_configuration(settings: Settings) -> Mapping[str, object]:
    """Zeros leave the conntrack settings alone: they are the host's own."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(settings.component_kubeconfig("kube-proxy"))},
        "hostnameOverride": names.NODE_NAME,
        "clusterCIDR": names.POD_CIDR,
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "5m"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "enableProfiling": False,
    }


def node_agent(settings: Settings) -> Component:
    argv = (sys.executable, "-P", "-m", "linkerd.cluster.node.agent", "--config", str(settings.run / "agent.json"))
    return Component("node-agent", argv, grace=3.0)


def agent_configuration(settings: Settings) -> Mapping[str, object]:
    """`run/agent.json`: the node agent's view of the cluster."""
    return {
        "node_name": names.NODE_NAME,
        "node_ip": names.NODE_IP,
        "pod_cidr": names.POD_CIDR,
        "cluster_dns": names.DNS_SERVICE_IP,
        "cluster_domain": names.CLUSTER_DOMAIN,
        "state_dir": str(settings.state_dir),
        "kubeconfig": str(settings.component_kubeconfig("node-agent")),
        "tls_cert": str(settings.pki / "kubelet.crt"),
        "tls_key": str(settings.pki / "kubelet.key"),
        "client_ca": str(settings.pki / "ca.crt"),
        "bin_dir": str(settings.bin_dir),
        "clone_dir": str(settings.clone_dir),
        "python_prefixes": [str(path) for path in settings.python_prefixes],
    }


IDENTITIES = {
    "kube-controller-manager": "kube-controller-manager",
    "kube-scheduler": "kube-scheduler",
    "kube-proxy": "kube-proxy",
    "node-agent": "node",
}
"""The certificate (in `certificates.LEAVES`) with which each client of the API speaks."""


def configuration_files(settings: Settings) -> dict[str, str]:
    """The files below `run/` that the components read, by name. They hold keys."""
    inside = f"https://{names.NODE_IP}:{names.API_PORT}"
    files = {
        f"{component}.kubeconfig": _kubeconfig_text(settings, inside, identity, component)
        for component, identity in IDENTITIES.items()
    }
    files["kube-proxy.yaml"] = yaml.safe_dump(proxy_configuration(settings))
    files["agent.json"] = json.dumps(agent_configuration(settings), indent=1)
    return files


def admin_kubeconfig(settings: Settings) -> str:
    """For the user: the API as the host reaches it."""
    return _kubeconfig_text(settings, f"https://127.0.0.1:{settings.port}", "admin", "linkerd-cluster")


def _kubeconfig_text(settings: Settings, server: str, identity: str, name: str) -> str:
    certificate, key = read_pem(settings.pki, identity)
    ca = (settings.pki / "ca.crt").read_text()
    document = kubeconfig(server, ca, certificate, key, name=name, user=identity)
    return yaml.safe_dump(document, sort_keys=False)
