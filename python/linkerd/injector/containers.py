"""The containers and volumes that meshing adds to a pod.

The environment is Linkerd's, so that its proxy would run too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from linkerd.injector.settings import ProxySettings, Resources, Settings

Object = dict[str, Any]

PROXY = "linkerd-proxy"
INIT = "linkerd-init"
DEBUG = "linkerd-debug"

IDENTITY_DIR = "/var/run/linkerd/identity/end-entity"
TOKEN_DIR = "/var/run/secrets/tokens"
TOKEN_FILE = "linkerd-identity-token"
TRUST_ROOTS = "linkerd-identity-trust-roots"

_IDENTITY_VOLUME = "linkerd-identity-end-entity"
_TOKEN_VOLUME = "linkerd-identity-token"

_IDENTITY_PORT, _DESTINATION_PORT, _POLICY_PORT = 8080, 8086, 8090


@dataclass(frozen=True, slots=True)
class Placement:
    """What the proxy must know of the pod that it is in.

    `component` is set in the control plane's own pods, whose proxies reach their own container over loopback and read
    the trust anchors from the ConfigMap. `native` makes it a sidecar of Kubernetes' kind: an init container that keeps
    running and does not keep a Job from ending.
    """

    inbound_ports: str
    opaque_ports: str
    component: str = ""
    ingress: bool = False
    tap: bool = True
    native: bool = False


def proxy_container(settings: Settings, proxy: ProxySettings, placement: Placement) -> Object:
    container: Object = {
        "name": PROXY,
        "image": str(proxy.image),
        "imagePullPolicy": proxy.image.pull_policy,
        "env": _environment(settings, proxy, placement),
        "ports": [
            {"name": "linkerd-proxy", "containerPort": proxy.inbound_port},
            {"name": "linkerd-admin", "containerPort": proxy.admin_port},
        ],
        "livenessProbe": _probe("/live", proxy.admin_port, initialDelaySeconds=10, timeoutSeconds=1),
        "readinessProbe": _probe("/ready", proxy.admin_port, timeoutSeconds=1),
        # Asked each second, the pod is ready as soon as its certificate is there. A regular proxy waits for the
        # identity service as long as it takes (a day), rather than restart; a native one holds up the app's start.
        "startupProbe": _probe(
            "/ready", proxy.admin_port, periodSeconds=1, failureThreshold=120 if placement.native else 86400
        ),
        "securityContext": _proxy_security(proxy, bool(placement.component)),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": _IDENTITY_VOLUME, "mountPath": IDENTITY_DIR},
            {"name": _TOKEN_VOLUME, "mountPath": TOKEN_DIR},
        ],
    }
    if resources := _resources(proxy.resources):
        container["resources"] = resources
    if proxy.wait_before_exit_seconds:
        command = ["/bin/sleep", str(proxy.wait_before_exit_seconds)]
        container["lifecycle"] = {"preStop": {"exec": {"command": command}}}
    if placement.native:
        container["restartPolicy"] = "Always"
    return container


def init_container(proxy: ProxySettings) -> Object:
    """Redirects the pod's TCP to the proxy, then ends."""
    arguments = [
        "init",
        "--ipv6=false",
        "--incoming-proxy-port",
        str(proxy.inbound_port),
        "--outgoing-proxy-port",
        str(proxy.outbound_port),
        "--proxy-uid",
        str(proxy.uid),
        "--inbound-ports-to-ignore",
        _joined(str(proxy.control_port), str(proxy.admin_port), proxy.ignored_inbound_ports, proxy.skip_inbound_ports),
    ]
    if outbound := _joined(proxy.ignored_outbound_ports, proxy.skip_outbound_ports):
        arguments += ["--outbound-ports-to-ignore", outbound]
    if proxy.gid > 0:
        arguments += ["--proxy-gid", str(proxy.gid)]
    if proxy.skip_subnets:
        arguments += ["--subnets-to-ignore", proxy.skip_subnets]
    if proxy.close_wait_timeout_seconds:
        arguments += ["--timeout-close-wait-secs", str(proxy.close_wait_timeout_seconds)]
    privileged = bool(proxy.close_wait_timeout_seconds)  # a sysctl of the network namespace can be set only so
    container: Object = {
        "name": INIT,
        "image": str(proxy.image),
        "imagePullPolicy": proxy.image.pull_policy,
        "args": arguments,
        "securityContext": {
            "allowPrivilegeEscalation": privileged,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "privileged": privileged,
            "readOnlyRootFilesystem": True,
            # Capabilities of a container become effective at exec only for uid 0.
            "runAsNonRoot": False,
            "runAsUser": 0,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if resources := _resources(proxy.resources):
        container["resources"] = resources
    return container


def debug_container(proxy: ProxySettings) -> Object:
    """Tools (tshark and the like) beside the proxy, for `kubectl exec`."""
    return {
        "name": DEBUG,
        "image": str(proxy.debug_image),
        "imagePullPolicy": proxy.debug_image.pull_policy,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def volumes() -> list[Object]:
    """The proxy's key and certificate (in memory only), and the token by which it proves who it is."""
    token = {"path": TOKEN_FILE, "audience": "identity.l5d.io", "expirationSeconds": 86400}
    return [
        {"name": _IDENTITY_VOLUME, "emptyDir": {"medium": "Memory"}},
        {"name": _TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}},
    ]


def _probe(path: str, port: int, **timing: int) -> Object:
    return {"httpGet": {"path": path, "port": port}, **timing}


def _proxy_security(proxy: ProxySettings, control_plane: bool) -> Object:
    security: Object = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": proxy.uid,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if control_plane:
        security["capabilities"] = {"drop": ["ALL"]}
    if proxy.gid > 0:
        security["runAsGroup"] = proxy.gid
    return security


def _resources(resources: Resources) -> Object:
    requests = {
        "cpu": resources.cpu_request,
        "memory": resources.memory_request,
        "ephemeral-storage": resources.ephemeral_storage_request,
    }
    limits = {
        "cpu": resources.cpu_limit,
        "memory": resources.memory_limit,
        "ephemeral-storage": resources.ephemeral_storage_limit,
    }
    chosen = {
        "limits": {key: value for key, value in limits.items() if value},
        "requests": {key: value for key, value in requests.items() if value},
    }
    return {key: value for key, value in chosen.items() if value}


def _joined(*port_lists: str) -> str:
    return ",".join(ports for ports in port_lists if ports)


# Environment


def _environment(settings: Settings, proxy: ProxySettings, placement: Placement) -> list[Object]:
    """Downward API first: Kubernetes expands `$(…)` only from variables above."""
    proxy_variables = {
        **_process_variables(proxy),
        **_discovery_variables(settings, proxy, placement),
        **_listener_variables(proxy, placement),
        **_transport_variables(proxy),
        **_identity_variables(settings, placement),
    }
    if placement.tap:
        proxy_variables["TAP_SVC_NAME"] = settings.identity("tap", settings.viz_namespace)
    variables = [
        *_pod_variables(settings),
        *({"name": f"LINKERD2_PROXY_{name}", **_source(value)} for name, value in proxy_variables.items()),
    ]
    return _merged_env(variables, proxy.additional_env)


def _source(value: str | Object) -> Object:
    return {"valueFrom": value} if isinstance(value, dict) else {"value": value}


def _field(path: str) -> Object:
    return {"fieldRef": {"fieldPath": path}}


def _pod_variables(settings: Settings) -> list[Object]:
    fields = {
        "_pod_name": "metadata.name",
        "_pod_ns": "metadata.namespace",
        "_pod_uid": "metadata.uid",
        "_pod_ip": "status.podIP",
        "_pod_nodeName": "spec.nodeName",
        "_pod_sa": "spec.serviceAccountName",
    }
    literals = {
        "_pod_containerName": PROXY,
        "_l5d_ns": settings.control_plane_namespace,
        "_l5d_trustdomain": settings.trust_domain,
    }
    return [
        *({"name": name, "valueFrom": _field(path)} for name, path in fields.items()),
        *({"name": name, "value": value} for name, value in literals.items()),
    ]


def _process_variables(proxy: ProxySettings) -> Object:
    log_level = proxy.log_level
    if proxy.log_http_headers != "insecure":
        # Headers carry secrets (cookies, tokens): these two targets are off unless somebody insists.
        log_level += ",[{headers}]=off,[{request}]=off"
    variables = {
        "CORES": str(proxy.cores_min),
        "CORES_MIN": str(proxy.cores_min),
        "SHUTDOWN_ENDPOINT_ENABLED": _flag(proxy.admin_shutdown),
        "LOG": log_level,
        "LOG_FORMAT": proxy.log_format,
    }
    optional = {
        "CORES_MAX": str(proxy.cores_max or ""),
        "CORES_MAX_RATIO": str(proxy.cores_max_ratio or ""),
        "ACCESS_LOG": proxy.access_log,
        "SHUTDOWN_GRACE_PERIOD": proxy.shutdown_grace_period,
    }
    return variables | {name: value for name, value in optional.items() if value}


def _discovery_variables(settings: Settings, proxy: ProxySettings, placement: Placement) -> Object:
    local = placement.component == "destination"
    destination = "localhost." if local else settings.service("linkerd-dst-headless")
    policy = "localhost." if local else settings.service("linkerd-policy")
    destination_identity = settings.identity("linkerd-destination", settings.control_plane_namespace)
    suffix = "." if proxy.enable_external_profiles else f"svc.{settings.cluster_domain}."
    variables = {
        "DESTINATION_SVC_ADDR": f"{destination}:{_DESTINATION_PORT}",
        "DESTINATION_SVC_NAME": destination_identity,
        "DESTINATION_CONTEXT": '{"ns":"$(_pod_ns)", "nodeName":"$(_pod_nodeName)", "pod":"$(_pod_name)"}',
        "DESTINATION_PROFILE_NETWORKS": settings.cluster_networks,
        "DESTINATION_PROFILE_SUFFIXES": suffix,
        "POLICY_SVC_ADDR": f"{policy}:{_POLICY_PORT}",
        "POLICY_SVC_NAME": destination_identity,
        "POLICY_WORKLOAD": '{"ns":"$(_pod_ns)", "pod":"$(_pod_name)"}',
        "POLICY_CLUSTER_NETWORKS": settings.cluster_networks,
        "INBOUND_DEFAULT_POLICY": proxy.default_inbound_policy,
        "CONTROL_STREAM_INITIAL_TIMEOUT": "3s",
        "CONTROL_STREAM_IDLE_TIMEOUT": "5m",
        "CONTROL_STREAM_LIFETIME": "1h",
        "OUTBOUND_DISCOVERY_IDLE_TIMEOUT": proxy.outbound_discovery_idle_timeout,
        "INBOUND_DISCOVERY_IDLE_TIMEOUT": proxy.inbound_discovery_idle_timeout,
    }
    if proxy.gateway:
        variables["INBOUND_GATEWAY_SUFFIXES"] = f"svc.{settings.cluster_domain}."
    return variables


def _listener_variables(proxy: ProxySettings, placement: Placement) -> Object:
    variables: Object = {
        "CONTROL_LISTEN_ADDR": f"0.0.0.0:{proxy.control_port}",
        "ADMIN_LISTEN_ADDR": f"0.0.0.0:{proxy.admin_port}",
        "OUTBOUND_LISTEN_ADDR": f"127.0.0.1:{proxy.outbound_port}",
        "OUTBOUND_LISTEN_ADDRS": f"127.0.0.1:{proxy.outbound_port}",
        "INBOUND_LISTEN_ADDR": f"0.0.0.0:{proxy.inbound_port}",
        "INBOUND_IPS": _field("status.podIPs"),
        "INBOUND_PORTS": placement.inbound_ports,
        "INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION": placement.opaque_ports,
    }
    if proxy.require_identity_ports:
        variables["INBOUND_PORTS_REQUIRE_IDENTITY"] = proxy.require_identity_ports
    if placement.ingress:
        variables["INGRESS_MODE"] = "true"
    return variables


def _transport_variables(proxy: ProxySettings) -> Object:
    variables = {
        "INBOUND_CONNECT_TIMEOUT": proxy.inbound_connect_timeout,
        "OUTBOUND_CONNECT_TIMEOUT": proxy.outbound_connect_timeout,
        "INBOUND_ACCEPT_KEEPALIVE": "10000ms",
        "OUTBOUND_CONNECT_KEEPALIVE": "10000ms",
        "INBOUND_ACCEPT_USER_TIMEOUT": "30s",
        "OUTBOUND_CONNECT_USER_TIMEOUT": "30s",
        "INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL": "10s",
        "INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT": "3s",
        "OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL": "10s",
        "OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT": "3s",
        "OUTBOUND_METRICS_HOSTNAME_LABELS": _flag(proxy.metrics_hostname_labels),
    }
    if proxy.disable_inbound_detect_timeout:
        variables["INBOUND_DETECT_TIMEOUT"] = "365d"
    if proxy.disable_outbound_detect_timeout:
        variables["OUTBOUND_DETECT_TIMEOUT"] = "365d"
    return variables


def _identity_variables(settings: Settings, placement: Placement) -> Object:
    server = "localhost." if placement.component == "identity" else settings.service("linkerd-identity-headless")
    from_config_map = {"configMapKeyRef": {"name": TRUST_ROOTS, "key": "ca-bundle.crt"}}
    return {
        "IDENTITY_DIR": IDENTITY_DIR,
        "IDENTITY_TRUST_ANCHORS": from_config_map if placement.component else settings.trust_anchors,
        "IDENTITY_TOKEN_FILE": f"{TOKEN_DIR}/{TOKEN_FILE}",
        "IDENTITY_SVC_ADDR": f"{server}:{_IDENTITY_PORT}",
        "IDENTITY_SVC_NAME": settings.identity("linkerd-identity", settings.control_plane_namespace),
        "IDENTITY_LOCAL_NAME": "$(_pod_sa).$(_pod_ns).serviceaccount.identity.$(_l5d_ns).$(_l5d_trustdomain)",
    }


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _merged_env(variables: list[Object], additional: tuple[Mapping[str, Any], ...]) -> list[Object]:
    """Additional variables replace those of the same name, in place."""
    extra = {variable["name"]: dict(variable) for variable in additional}
    kept = [extra.pop(variable["name"], variable) for variable in variables]
    return kept + list(extra.values())
