"""What the installation says about proxies: the values of ConfigMap `linkerd-config` and the trust anchors.

The names of the values are those of Linkerd's chart; a value that is missing gets the default written here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linkerd import VERSION

Values = Mapping[str, Any]

OPAQUE_PORTS = "25,587,3306,4444,5432,6379,9300,11211"
"""Of protocols in which the server speaks first, or which are better not looked into."""


@dataclass(frozen=True, slots=True)
class Image:
    """Where an image comes from. `pull_policy` is Always, IfNotPresent or Never."""

    name: str
    version: str
    pull_policy: str

    def __str__(self) -> str:
        if "@" in self.name or ":" in self.name.rpartition("/")[2]:
            return self.name
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class Resources:
    """Requests and limits of a container as Kubernetes quantities; empty means none."""

    cpu_request: str = ""
    cpu_limit: str = ""
    memory_request: str = ""
    memory_limit: str = ""
    ephemeral_storage_request: str = ""
    ephemeral_storage_limit: str = ""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Every knob of a proxy, as the installation sets it and as annotations of a pod change it.

    Durations are Linkerd's strings (`10s`): the proxy parses them. Port lists are `80,8000-8010`.
    """

    image: Image
    debug_image: Image
    inbound_port: int = 4143
    outbound_port: int = 4140
    admin_port: int = 4191
    control_port: int = 4190
    skip_inbound_ports: str = ""
    skip_outbound_ports: str = ""
    ignored_inbound_ports: str = "4567,4568"
    ignored_outbound_ports: str = "4567,4568"
    skip_subnets: str = ""
    opaque_ports: str = OPAQUE_PORTS
    uid: int = 2102
    gid: int = -1
    log_level: str = "warn,linkerd=info,hickory=error"
    log_format: str = "plain"
    log_http_headers: str = ""
    access_log: str = ""
    default_inbound_policy: str = "all-unauthenticated"
    require_identity_ports: str = ""
    enable_external_profiles: bool = False
    metrics_hostname_labels: bool = False
    admin_shutdown: bool = False
    inbound_connect_timeout: str = "100ms"
    outbound_connect_timeout: str = "1000ms"
    inbound_discovery_idle_timeout: str = "90s"
    outbound_discovery_idle_timeout: str = "5s"
    disable_inbound_detect_timeout: bool = False
    disable_outbound_detect_timeout: bool = False
    gateway: bool = False
    native_sidecar: bool | None = None
    shutdown_grace_period: str = ""
    wait_before_exit_seconds: int = 0
    close_wait_timeout_seconds: int = 0
    debug_sidecar: bool = False
    cores_min: int = 1
    cores_max: int = 0
    cores_max_ratio: float = 0.0
    resources: Resources = field(default_factory=Resources)
    additional_env: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """The mesh that pods are put into."""

    control_plane_namespace: str
    cluster_domain: str
    trust_domain: str
    trust_anchors: str
    cluster_networks: str
    viz_namespace: str
    proxy: ProxySettings
    version: str = VERSION
    excluded_namespaces: tuple[str, ...] = ()
    """Whose pods the webhook is never asked about."""

    @property
    def trust_anchors_sha256(self) -> str:
        return hashlib.sha256(self.trust_anchors.encode()).hexdigest()

    def identity(self, service_account: str, namespace: str) -> str:
        """The name in the certificate of a service account's proxy."""
        base = f"serviceaccount.identity.{self.control_plane_namespace}.{self.trust_domain}"
        return f"{service_account}.{namespace}.{base}"

    def service(self, name: str) -> str:
        """The absolute DNS name of a service of the control plane."""
        return f"{name}.{self.control_plane_namespace}.svc.{self.cluster_domain}."


def settings_from_values(values: Values, control_plane_namespace: str, trust_anchors: str) -> Settings:
    """Raises ValueError when a value has the wrong type."""
    cluster_domain = values.get("clusterDomain") or "cluster.local"
    return Settings(
        control_plane_namespace=control_plane_namespace,
        cluster_domain=cluster_domain,
        trust_domain=values.get("identityTrustDomain") or cluster_domain,
        trust_anchors=trust_anchors,
        cluster_networks=values.get("clusterNetworks")
        or "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8",
        viz_namespace=values.get("vizNamespace") or "linkerd-viz",
        proxy=_proxy_from_values(values),
        version=values.get("linkerdVersion") or VERSION,
        excluded_namespaces=tuple((values.get("proxyInjector") or {}).get("excludedNamespaces") or ()),
    )


def _proxy_from_values(values: Values) -> ProxySettings:
    version = values.get("linkerdVersion") or VERSION
    proxy, init, debug = (values.get(key) or {} for key in ("proxy", "proxyInit", "debugContainer"))
    ports, workers, capacity = (proxy.get(key) or {} for key in ("ports", "runtime", "resources"))
    workers = workers.get("workers") or {}
    pull_policy = values.get("imagePullPolicy") or "IfNotPresent"
    return ProxySettings(
        image=_image(proxy.get("image"), "cr.l5d.io/linkerd/proxy", version, pull_policy),
        debug_image=_image(debug.get("image"), "cr.l5d.io/linkerd/debug", version, pull_policy),
        inbound_port=int(ports.get("inbound", 4143)),
        outbound_port=int(ports.get("outbound", 4140)),
        admin_port=int(ports.get("admin", 4191)),
        control_port=int(ports.get("control", 4190)),
        ignored_inbound_ports=str(init.get("ignoreInboundPorts", "4567,4568")),
        ignored_outbound_ports=str(init.get("ignoreOutboundPorts", "4567,4568")),
        skip_subnets=str(init.get("skipSubnets") or ""),
        opaque_ports=str(proxy.get("opaquePorts", OPAQUE_PORTS)),
        uid=int(proxy.get("uid", 2102)),
        gid=int(proxy.get("gid", -1)),
        log_level=proxy.get("logLevel") or "warn,linkerd=info,hickory=error",
        log_format=proxy.get("logFormat") or "plain",
        log_http_headers=str(proxy.get("logHTTPHeaders") or ""),
        access_log=proxy.get("accessLog") or "",
        default_inbound_policy=proxy.get("defaultInboundPolicy") or "all-unauthenticated",
        enable_external_profiles=bool(proxy.get("enableExternalProfiles", False)),
        metrics_hostname_labels=bool((proxy.get("metrics") or {}).get("hostnameLabels", False)),
        admin_shutdown=bool(proxy.get("enableShutdownEndpoint", False)),
        inbound_connect_timeout=str(proxy.get("inboundConnectTimeout", "100ms")),
        outbound_connect_timeout=str(proxy.get("outboundConnectTimeout", "1000ms")),
        inbound_discovery_idle_timeout=str(proxy.get("inboundDiscoveryCacheUnusedTimeout", "90s")),
        outbound_discovery_idle_timeout=str(proxy.get("outboundDiscoveryCacheUnusedTimeout", "5s")),
        disable_inbound_detect_timeout=bool(proxy.get("disableInboundProtocolDetectTimeout", False)),
        disable_outbound_detect_timeout=bool(proxy.get("disableOutboundProtocolDetectTimeout", False)),
        native_sidecar=True if proxy.get("nativeSidecar") else None,
        shutdown_grace_period=str(proxy.get("shutdownGracePeriod") or ""),
        wait_before_exit_seconds=int(proxy.get("waitBeforeExitSeconds", 0)),
        close_wait_timeout_seconds=int(init.get("closeWaitTimeoutSecs", 0)),
        cores_min=int(workers.get("minimum") or 1),
        cores_max_ratio=float(workers.get("maximumCPURatio") or 0),
        resources=_resources(capacity),
        additional_env=tuple(proxy.get("additionalEnv") or ()),
    )


def _image(value: Values | None, default: str, version: str, pull_policy: str) -> Image:
    image = value or {}
    return Image(image.get("name") or default, image.get("version") or version, image.get("pullPolicy") or pull_policy)


def _resources(value: Values) -> Resources:
    cpu, memory, storage = (value.get(key) or {} for key in ("cpu", "memory", "ephemeral-storage"))
    return Resources(
        cpu_request=str(cpu.get("request") or ""),
        cpu_limit=str(cpu.get("limit") or ""),
        memory_request=str(memory.get("request") or ""),
        memory_limit=str(memory.get("limit") or ""),
        ephemeral_storage_request=str(storage.get("request") or ""),
        ephemeral_storage_limit=str(storage.get("limit") or ""),
    )
