"""The manifests of the viz extension: metrics-api, tap and Prometheus, meshed like any other workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from linkerd.install import monitoring, webhooks
from linkerd.install import objects as k8s
from linkerd.install.certificates import ServerCertificate
from linkerd.install.objects import Controller, Marks, Object
from linkerd.install.values import Values

_READ = "get list watch"
_RULE_FILE = "alerts.yml"
_WORKLOADS = "deployments daemonsets statefulsets replicasets"


@dataclass(frozen=True, slots=True)
class VizInstallation:
    """`values` are complete (defaults merged in); `tap` is the certificate of the aggregated API."""

    namespace: str
    values: Values
    tap: ServerCertificate

    @property
    def version(self) -> str:
        return self.values["linkerdVersion"]

    @property
    def trust_domain(self) -> str:
        return self.values["identityTrustDomain"] or self.values["clusterDomain"]

    @property
    def prometheus_url(self) -> str:
        own = f"http://prometheus.{self.namespace}.svc.{self.values['clusterDomain']}:9090"
        return self.values["prometheusUrl"] or own


def render(installation: VizInstallation) -> list[Object]:
    viz = _Viz(installation)
    parts = [viz.namespace(), *viz.metrics_api(), *viz.tap()]
    if installation.values["prometheus"]["enabled"] and not installation.values["prometheusUrl"]:
        parts += [*viz.prometheus(), *viz.prometheus_policy()]
    if installation.values["grafana"]["url"]:
        parts.append(viz.dashboards())
    return [*parts, *viz.policies()]


class _Viz:
    def __init__(self, installation: VizInstallation) -> None:
        self.i = installation
        self.v = installation.values
        self.ns = installation.namespace

    def metadata(self, name: str, component: str = "", *, namespaced: bool = True, namespace: str = "") -> Object:
        labels = {"linkerd.io/extension": "viz"}
        if component:
            labels["component"] = component
        return Marks(self.ns, labels, self.i.version).metadata(name, namespaced=namespaced, namespace=namespace)

    def namespace(self) -> Object:
        metadata = self.metadata(self.ns, namespaced=False)
        metadata["labels"]["pod-security.kubernetes.io/enforce"] = "privileged"
        metadata["annotations"]["linkerd.io/inject"] = "enabled"
        if self.v["prometheusUrl"]:
            metadata["annotations"]["viz.linkerd.io/external-prometheus"] = self.v["prometheusUrl"]
        if self.v["grafana"]["url"]:
            metadata["annotations"]["viz.linkerd.io/grafana"] = self.v["grafana"]["url"]
        return k8s.namespace(metadata)

    def rights(self, name: str, rules: list[Object]) -> list[Object]:
        """The account `name`, and what it may do in the whole cluster."""
        role = f"linkerd-{self.ns}-{name}"
        return [
            k8s.service_account(self.metadata(name, name)),
            k8s.cluster_role(self.metadata(role, name, namespaced=False), rules),
            k8s.cluster_role_binding(self.metadata(role, name, namespaced=False), role, name, self.ns),
        ]

    def controller(
        self,
        name: str,
        args: list[str],
        ports: dict[str, int],
        resources: Mapping[str, Any],
        mounts: dict[str, str] | None = None,
    ) -> Object:
        return Controller(
            name=name,
            image=f"{self.v['controllerImage']}:{self.i.version}",
            pull_policy=self.v["imagePullPolicy"],
            args=(name, *args, f"--log-level={self.v['logLevel']}"),
            ports=ports,
            uid=int(self.v["controllerUID"]),
            resources=resources,
            mounts=mounts or {},
        ).container()

    def deployment(
        self,
        name: str,
        container: Object,
        volumes: list[Object],
        *,
        annotations: Mapping[str, str] | None = None,
        replicas: int = 1,
        security: Mapping[str, Any] | None = None,
    ) -> Object:
        selector = {"linkerd.io/extension": "viz", "component": name}
        spec: Object = {
            "serviceAccountName": name,
            "nodeSelector": self.v["nodeSelector"],
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, **(security or {})},
            "containers": [container],
            "volumes": volumes,
        }
        for key in ("tolerations", "imagePullSecrets"):
            if self.v[key]:
                spec[key] = self.v[key]
        # The API server is outside of the mesh: its long watches need no proxy in between.
        own = {"linkerd.io/inject": "enabled", "config.linkerd.io/skip-outbound-ports": "443,6443"}
        template = {"metadata": {"labels": selector, "annotations": {**own, **(annotations or {})}}, "spec": spec}
        metadata = self.metadata(name, name)
        metadata["labels"] |= {
            "app.kubernetes.io/name": name,
            "app.kubernetes.io/part-of": "Linkerd",
            "app.kubernetes.io/version": self.i.version,
        }
        return k8s.deployment(metadata, selector, template, replicas)

    def service(self, name: str, port: Object) -> Object:
        selector = {"linkerd.io/extension": "viz", "component": name}
        return k8s.service(self.metadata(name, name), selector, [port])

    # Components

    def metrics_api(self) -> list[Object]:
        container = self.controller(
            "metrics-api",
            [
                f"--controller-namespace={self.v['linkerdNamespace']}",
                f"--prometheus-url={self.i.prometheus_url}",
                f"--cluster-domain={self.v['clusterDomain']}",
            ],
            {"http": 8085, "admin": 9995},
            self.v["metricsAPI"]["resources"],
        )
        return [
            *self.rights("metrics-api", _METRICS_API_RULES),
            self.service("metrics-api", k8s.service_port("http", 8085)),
            self.deployment("metrics-api", container, [], replicas=self.v["metricsAPI"]["replicas"]),
        ]

    def tap(self) -> list[Object]:
        ignored = self.v["tap"]["ignoreHeaders"]
        container = self.controller(
            "tap",
            [
                f"--api-namespace={self.v['linkerdNamespace']}",
                f"--identity-trust-domain={self.i.trust_domain}",
                *([f"--ignore-headers={','.join(ignored)}"] if ignored else []),
            ],
            {"apiserver": 8089, "admin": 9998},
            self.v["tap"]["resources"],
            {"tls": "/var/run/linkerd/tls"},
        )
        return [
            *self.rights("tap", _TAP_RULES),
            *self.tap_rights(),
            webhooks.tls_secret(self.metadata("tap-k8s-tls", "tap"), self.i.tap.certificate, self.i.tap.key),
            self.tap_api(),
            self.service("tap", k8s.service_port("apiserver", 443, "apiserver")),
            self.deployment(
                "tap",
                container,
                [k8s.secret_volume("tls", "tap-k8s-tls")],
                # The API server's own TLS, which the proxy passes on as it is.
                annotations={"config.linkerd.io/opaque-ports": "8089"},
                replicas=self.v["tap"]["replicas"],
            ),
        ]

    def tap_rights(self) -> list[Object]:
        """Those of an aggregated API server, and the role that lets people tap everything."""
        delegator = f"linkerd-{self.ns}-tap-auth-delegator"
        reader = f"linkerd-{self.ns}-tap-auth-reader"
        admin = f"linkerd-{self.ns}-tap-admin"
        return [
            k8s.cluster_role_binding(
                self.metadata(delegator, "tap", namespaced=False), "system:auth-delegator", "tap", self.ns
            ),
            k8s.role_binding(
                self.metadata(reader, "tap", namespace="kube-system"),
                "extension-apiserver-authentication-reader",
                [k8s.account_subject("tap", self.ns)],
            ),
            k8s.cluster_role(
                self.metadata(admin, "tap", namespaced=False),
                [k8s.rule("core", "namespaces", "list"), k8s.rule("tap.linkerd.io", "*", "watch")],
            ),
        ]

    def tap_api(self) -> Object:
        return {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": self.metadata("v1alpha1.tap.linkerd.io", "tap", namespaced=False),
            "spec": {
                "group": "tap.linkerd.io",
                "version": "v1alpha1",
                "groupPriorityMinimum": 1000,
                "versionPriority": 100,
                "service": {"name": "tap", "namespace": self.ns, "port": 443},
                "caBundle": webhooks.ca_bundle(self.i.tap.authority),
            },
        }

    # Prometheus

    def prometheus(self) -> list[Object]:
        config = yaml.safe_dump(prometheus_config(self.v, self.ns), sort_keys=False, width=1000)
        settings = self.v["prometheus"]
        metadata = self.metadata("prometheus-config", "prometheus")
        rules = {_RULE_FILE: monitoring.alert_rules()} if settings["alerts"] else {}
        return [
            *self.rights("prometheus", _PROMETHEUS_RULES),
            k8s.config_map(metadata, {"prometheus.yml": config, **rules}),
            self.service("prometheus", k8s.service_port("admin", 9090)),
            self.deployment(
                "prometheus",
                _prometheus_container(settings),
                [{"name": "data", "emptyDir": {}}, k8s.config_map_volume("prometheus-config", "prometheus-config")],
                security={"fsGroup": 65534},
            ),
        ]

    def dashboards(self) -> Object:
        metadata = self.metadata("linkerd-grafana-dashboards", "grafana")
        metadata["labels"]["grafana_dashboard"] = "1"
        return k8s.config_map(metadata, monitoring.dashboards())

    # Policies: who may talk to what. Port-forwards arrive over loopback and are not asked.

    def policies(self) -> list[Object]:
        return [
            *self.policy("metrics-api", "http", "gRPC", ("prometheus", "web")),
            # The API server is not meshed; tap itself checks its certificate, and who asks through it.
            self.server("tap-api", "tap", "apiserver", "TLS"),
            self.everybody("tap-api"),
            self.kubelet(),
        ]

    def kubelet(self) -> Object:
        """Where probes come from, for policies of others (`viz allow-scrapes`): the node has no identity."""
        return {
            "apiVersion": "policy.linkerd.io/v1alpha1",
            "kind": "NetworkAuthentication",
            "metadata": self.metadata("kubelet"),
            "spec": {"networks": [{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}]},
        }

    def prometheus_policy(self) -> list[Object]:
        """Queries tell everything about the cluster's traffic: only metrics-api may ask."""
        return self.policy("prometheus", "admin", "HTTP/1", ("metrics-api",))

    def policy(self, component: str, port: str, protocol: str, clients: tuple[str, ...]) -> list[Object]:
        """A Server for a component's port, open to these accounts of ours over mTLS."""
        name = f"{component}-clients"
        accounts = [{"kind": "ServiceAccount", "name": client} for client in clients]
        return [
            self.server(component, component, port, protocol),
            {
                "apiVersion": "policy.linkerd.io/v1alpha1",
                "kind": "MeshTLSAuthentication",
                "metadata": self.metadata(name, component),
                "spec": {"identityRefs": accounts},
            },
            self.authorization(component, "MeshTLSAuthentication", name),
        ]

    def server(self, name: str, component: str, port: str, protocol: str) -> Object:
        labels = {"linkerd.io/extension": "viz", "component": component}
        return {
            "apiVersion": "policy.linkerd.io/v1beta3",
            "kind": "Server",
            "metadata": self.metadata(name, component),
            "spec": {"podSelector": {"matchLabels": labels}, "port": port, "proxyProtocol": protocol},
        }

    def authorization(self, server: str, kind: str, name: str) -> Object:
        group = "policy.linkerd.io"
        return {
            "apiVersion": f"{group}/v1alpha1",
            "kind": "AuthorizationPolicy",
            "metadata": self.metadata(server),
            "spec": {
                "targetRef": {"group": group, "kind": "Server", "name": server},
                "requiredAuthenticationRefs": [{"group": group, "kind": kind, "name": name}],
            },
        }

    def everybody(self, server: str) -> Object:
        policy = self.authorization(server, "", "")
        policy["spec"]["requiredAuthenticationRefs"] = []
        return policy


def _prometheus_container(settings: Mapping[str, Any]) -> Object:
    image = settings["image"]
    container: Object = {
        "name": "prometheus",
        "image": f"{image['name']}:{image['tag']}",
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/data",
            f"--storage.tsdb.retention.time={settings['retention']}",
            "--web.listen-address=:9090",
            f"--log.level={settings['logLevel']}",
        ],
        "ports": [{"name": "admin", "containerPort": 9090}],
        "livenessProbe": k8s.http_probe("/-/healthy", 9090, initialDelaySeconds=30, timeoutSeconds=30),
        "readinessProbe": k8s.http_probe("/-/ready", 9090, timeoutSeconds=30),
        "startupProbe": k8s.http_probe("/-/ready", 9090, periodSeconds=1, failureThreshold=300),
        "securityContext": k8s.restricted(65534),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "prometheus-config", "mountPath": "/etc/prometheus", "readOnly": True},
        ],
    }
    if resources := k8s.container_resources(settings["resources"]):
        container["resources"] = resources
    return container


def prometheus_config(values: Mapping[str, Any], namespace: str) -> Object:
    """Series of proxies carry `namespace`, `pod`, the workload (`deployment`, …; `k8s_job`) and the pod's labels."""
    settings = values["prometheus"]
    interval = settings["scrapeInterval"]
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": _timeout(interval), "evaluation_interval": interval},
        **_alerting(settings),
        "scrape_configs": [
            {"job_name": "prometheus", "static_configs": [{"targets": ["localhost:9090"]}]},
            _controller_job(values["linkerdNamespace"], namespace),
            _proxy_job(values["linkerdNamespace"]),
            *settings["scrapeConfigs"],
        ],
    }


def _alerting(settings: Mapping[str, Any]) -> Object:
    found: Object = {}
    if settings["alerts"]:
        found["rule_files"] = [f"/etc/prometheus/{_RULE_FILE}"]
    if settings["alertmanagers"]:
        found["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": list(settings["alertmanagers"])}]}]}
    return found


def _timeout(interval: str) -> str:
    """Not longer than the interval, which Prometheus would refuse."""
    return "10s" if interval in ("10s", "15s", "20s", "30s", "1m", "60s") else interval


def _keep(source: list[str], regex: str) -> Object:
    return {"source_labels": source, "action": "keep", "regex": regex}


def _drop(source: list[str], regex: str) -> Object:
    return {"source_labels": source, "action": "drop", "regex": regex}


def _controller_job(control_plane: str, viz: str) -> Object:
    """The admin ports of the control plane's and viz's own containers."""
    return {
        "job_name": "linkerd-controller",
        "kubernetes_sd_configs": [{"role": "pod", "namespaces": {"names": sorted({control_plane, viz})}}],
        "relabel_configs": [
            _keep(["__meta_kubernetes_pod_container_port_name"], "(.*-)?admin"),
            _drop(["__meta_kubernetes_pod_container_name"], "linkerd-proxy|prometheus"),
            _drop(["__meta_kubernetes_pod_phase"], "Failed|Succeeded"),
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "component"},
        ],
    }


def _proxy_job(control_plane: str) -> Object:
    """The proxies of this control plane. Pod labels `linkerd.io/proxy-<kind>` become `<kind>` (a Job's `k8s_job`, since
    Prometheus has its own `job`), other `linkerd.io/<x>` become `<x>`, and all remaining labels are copied first, so
    that a label of the user's cannot take the place of one of ours."""
    label, ours = "__meta_kubernetes_pod_label_", "__tmp_linkerd_"
    return {
        "job_name": "linkerd-proxy",
        "kubernetes_sd_configs": [{"role": "pod"}],
        "relabel_configs": [
            _keep(
                [
                    "__meta_kubernetes_pod_container_name",
                    "__meta_kubernetes_pod_container_port_name",
                    f"{label}linkerd_io_control_plane_ns",
                ],
                f"linkerd-proxy;linkerd-admin;{control_plane}",
            ),
            _drop(["__meta_kubernetes_pod_phase"], "Failed|Succeeded"),
            {"action": "labelmap", "regex": f"{label}linkerd_io_(.+)", "replacement": f"{ours}$1"},
            {"action": "labeldrop", "regex": f"{label}linkerd_io_.+"},
            {"action": "labelmap", "regex": f"{label}(.+)"},
            {"source_labels": [f"{ours}proxy_job"], "target_label": "k8s_job"},
            {"action": "labeldrop", "regex": f"{ours}proxy_job"},
            {"action": "labelmap", "regex": f"{ours}proxy_(.+)"},
            {"action": "labeldrop", "regex": f"{ours}proxy_.+"},
            {"action": "labelmap", "regex": f"{ours}(.+)"},
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        ],
    }


_METRICS_API_RULES = [
    k8s.rule("core", "pods services namespaces replicationcontrollers", _READ),
    k8s.rule("apps", _WORKLOADS, _READ),
    k8s.rule("batch", "jobs cronjobs", _READ),
    k8s.rule("linkerd.io", "serviceprofiles", _READ),
    k8s.rule("split.smi-spec.io", "trafficsplits", _READ),
    k8s.rule(
        "policy.linkerd.io", "servers serverauthorizations authorizationpolicies httproutes egressnetworks", _READ
    ),
    k8s.rule("gateway.networking.k8s.io", "httproutes grpcroutes", _READ),
]

_TAP_RULES = [
    k8s.rule("core", "pods services namespaces nodes replicationcontrollers", _READ),
    k8s.rule("apps", _WORKLOADS, _READ),
    k8s.rule("batch", "jobs cronjobs", _READ),
]

_PROMETHEUS_RULES = [k8s.rule("core", "pods", _READ)]
