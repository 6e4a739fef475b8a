"""The annotations that change a proxy: read from the pod, else from its namespace, into `ProxySettings`.

A value that cannot be used is told to the user (as a warning of the admission) and the default stays, since a typo in
an annotation must not keep a pod from running.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from linkerd.injector.settings import Image, ProxySettings, Resources
from linkerd.kit.durations import parse_duration

INJECT = "linkerd.io/inject"
OPAQUE_PORTS = "config.linkerd.io/opaque-ports"
DISABLE_TAP = "viz.linkerd.io/disable-tap"
TAP_ENABLED = "viz.linkerd.io/tap-enabled"

_CONFIG = "config.linkerd.io/"
_ALPHA = "config.alpha.linkerd.io/"
_BETA = "config.beta.linkerd.io/"
_POLICIES = frozenset(
    ["all-authenticated", "all-unauthenticated", "cluster-authenticated", "cluster-unauthenticated", "deny", "audit"]
)
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(m|k|Ki|Mi?|Gi?|Ti?|Pi?|Ei?|[eE][+-]?\d+)?")
_PROXY_DURATION = re.compile(r"\d+(ms|s|m|h|d)")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

Annotations = Mapping[str, str]
Fields = dict[str, Any]
"""Fields of ProxySettings with their new values."""


def inherited(pod: Annotations, namespace: Annotations) -> dict[str, str]:
    """What the pod gets from its namespace: every configuration that it does not set itself."""
    prefixes = (_CONFIG, _ALPHA, _BETA, "viz.linkerd.io/")
    return {
        key: value
        for key, value in namespace.items()
        if key not in pod and (key == INJECT or key.startswith(prefixes)) and key != TAP_ENABLED
    }


def overridden(base: ProxySettings, annotations: Annotations) -> tuple[ProxySettings, list[str]]:
    """The settings with the annotations applied, and a warning for each annotation that could not be."""
    if not any(key.startswith((_CONFIG, _ALPHA, _BETA)) for key in annotations):
        return base, _resource_warnings(base.resources)
    warnings: list[str] = []
    changes: Fields = {}
    for key, value in annotations.items():
        parse = _PARSERS.get(key)
        if parse is None:
            continue
        try:
            changes |= parse(value)
        except ValueError as error:
            warnings.append(f"annotation {key}={value!r} is ignored: {error}")
    changed = replace(base, **{key: value for key, value in changes.items() if key in _FIELDS})
    changed = replace(
        changed,
        image=_image(base.image, annotations, "proxy-image", "proxy-version", "image-pull-policy"),
        debug_image=_image(
            base.debug_image, annotations, "debug-image", "debug-image-version", "debug-image-pull-policy"
        ),
        resources=replace(base.resources, **{k: v for k, v in changes.items() if k in Resources.__slots__}),
    )
    return changed, warnings + _resource_warnings(changed.resources)


def _image(base: Image, annotations: Annotations, name: str, version: str, policy: str) -> Image:
    def value(key: str, default: str) -> str:
        return annotations.get(_CONFIG + key) or default

    return Image(value(name, base.name), value(version, base.version), value(policy, base.pull_policy))


def _resource_warnings(resources: Resources) -> list[str]:
    pairs = (
        ("cpu", resources.cpu_request, resources.cpu_limit),
        ("memory", resources.memory_request, resources.memory_limit),
    )
    return [
        f"the proxy's {what} limit {limit} is below its request {request}"
        for what, request, limit in pairs
        if request and limit and parse_quantity(limit) < parse_quantity(request)
    ]


# Values


def parse_quantity(text: str) -> Decimal:
    """A Kubernetes quantity (`100m`, `64Mi`, `1.5`) as a number. Raises ValueError."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError("not a Kubernetes quantity")
    suffix = match[2] or ""
    if suffix[:1] in ("e", "E") and len(suffix) > 1 and suffix[1:] != "i":
        return Decimal(match[1] + suffix)
    binary = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
    decimal = {"m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
    factor = Decimal(1024) ** binary[suffix] if suffix in binary else Decimal(10) ** decimal[suffix]
    return Decimal(match[1]) * factor


def parse_ports(text: str) -> list[tuple[int, int]]:
    """`80,8000-8010` as ranges. Raises ValueError with Linkerd's words."""
    return [_range(part.strip()) for part in text.split(",") if part.strip()]


def _range(text: str) -> tuple[int, int]:
    lower, dash, upper = text.partition("-")
    if not dash:
        port = _port_number(text, f'"{text}" is not a valid port nor port-range')
        return port, port
    first = _port_number(lower, f'"{lower}" is not a valid lower-bound')
    last = _port_number(upper, f'"{upper}" is not a valid upper-bound')
    if last < first:
        raise ValueError(f'"{text}": upper-bound must be greater than or equal to lower-bound')
    return first, last


def _port_number(text: str, message: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise ValueError(message)
    return int(text)


def _ports(text: str) -> str:
    parse_ports(text)
    return ",".join(part.strip() for part in text.split(",") if part.strip())


def _ports_or_names(text: str) -> str:
    for part in text.split(","):
        if part.strip() and not _DNS_LABEL.fullmatch(part.strip()):
            _range(part.strip())
    return text


def _port(text: str) -> int:
    port = _port_number(text, f'"{text}" is not a valid port')
    if port == 0:
        raise ValueError("a port from 1 to 65535 is wanted")
    return port


def _natural(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError("a whole number is wanted")
    return int(text)


def _ratio(text: str) -> float:
    ratio = float(text)
    if not 0 < ratio < 1:
        raise ValueError("a number between 0 and 1 is wanted")
    return ratio


def _quantity(text: str) -> str:
    parse_quantity(text)
    return text


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise ValueError("true or false is wanted")


def _enabled(text: str) -> bool:
    if text in ("enabled", "disabled"):
        return text == "enabled"
    return _boolean(text)


def _duration(text: str) -> str:
    if not _PROXY_DURATION.fullmatch(text):
        raise ValueError("a duration like 500ms, 10s or 1m is wanted")
    return text


def _go_duration_seconds(text: str) -> int:
    return math.ceil(parse_duration(text))


def _one_of(*allowed: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(sorted(allowed))} is wanted")
        return text

    return check


def _cores(text: str) -> int:
    """Whole cores for a CPU quantity, rounded up: a proxy limited to 1500m can use two threads."""
    return math.ceil(parse_quantity(text))


def _env_list(text: str) -> tuple[Mapping[str, Any], ...]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(value, list) or not all(isinstance(v, dict) and isinstance(v.get("name"), str) for v in value):
        raise ValueError("a JSON list of Kubernetes environment variables is wanted")
    return tuple(value)


def _text(text: str) -> str:
    return text


def _field(name: str, parse: Callable[[str], Any]) -> Callable[[str], Fields]:
    return lambda text: {name: parse(text)}


def _cpu(name: str, cores: str) -> Callable[[str], Fields]:
    return lambda text: {name: _quantity(text), cores: _cores(text)}


_FIELDS = frozenset(ProxySettings.__slots__)

_CONFIG_PARSERS: dict[str, Callable[[str], Fields]] = {
    "access-log": _field("access_log", _one_of("apache", "json")),
    "admin-port": _field("admin_port", _port),
    "close-wait-timeout": _field("close_wait_timeout_seconds", _go_duration_seconds),
    "control-port": _field("control_port", _port),
    "default-inbound-policy": _field("default_inbound_policy", _one_of(*_POLICIES)),
    "enable-debug-sidecar": _field("debug_sidecar", _boolean),
    "enable-external-profiles": _field("enable_external_profiles", _boolean),
    "enable-gateway": _field("gateway", _boolean),
    "inbound-port": _field("inbound_port", _port),
    "opaque-ports": _field("opaque_ports", _ports_or_names),
    "outbound-port": _field("outbound_port", _port),
    "proxy-additional-env": _field("additional_env", _env_list),
    "proxy-admin-shutdown": _field("admin_shutdown", _enabled),
    "proxy-cpu-limit": _cpu("cpu_limit", "cores_max"),
    "proxy-cpu-ratio-limit": _field("cores_max_ratio", _ratio),
    "proxy-cpu-request": _cpu("cpu_request", "cores_min"),
    "proxy-disable-inbound-protocol-detect-timeout": _field("disable_inbound_detect_timeout", _boolean),
    "proxy-disable-outbound-protocol-detect-timeout": _field("disable_outbound_detect_timeout", _boolean),
    "proxy-enable-native-sidecar": _field("native_sidecar", _boolean),
    "proxy-ephemeral-storage-limit": _field("ephemeral_storage_limit", _quantity),
    "proxy-ephemeral-storage-request": _field("ephemeral_storage_request", _quantity),
    "proxy-gid": _field("gid", _natural),
    "proxy-inbound-connect-timeout": _field("inbound_connect_timeout", _duration),
    "proxy-inbound-discovery-cache-unused-timeout": _field("inbound_discovery_idle_timeout", _duration),
    "proxy-log-format": _field("log_format", _one_of("plain", "json")),
    "proxy-log-http-headers": _field("log_http_headers", _text),
    "proxy-log-level": _field("log_level", _text),
    "proxy-memory-limit": _field("memory_limit", _quantity),
    "proxy-memory-request": _field("memory_request", _quantity),
    "proxy-metrics-hostname-labels": _field("metrics_hostname_labels", _boolean),
    "proxy-outbound-connect-timeout": _field("outbound_connect_timeout", _duration),
    "proxy-outbound-discovery-cache-unused-timeout": _field("outbound_discovery_idle_timeout", _duration),
    "proxy-require-identity-inbound-ports": _field("require_identity_ports", _ports),
    "proxy-uid": _field("uid", _natural),
    "shutdown-grace-period": _field("shutdown_grace_period", _duration),
    "skip-inbound-ports": _field("skip_inbound_ports", _ports),
    "skip-outbound-ports": _field("skip_outbound_ports", _ports),
    "skip-subnets": _field("skip_subnets", _text),
}

_PARSERS: dict[str, Callable[[str], Fields]] = {
    **{_CONFIG + name: parse for name, parse in _CONFIG_PARSERS.items()},
    _ALPHA + "proxy-enable-native-sidecar": _CONFIG_PARSERS["proxy-enable-native-sidecar"],
    _BETA + "proxy-enable-native-sidecar": _CONFIG_PARSERS["proxy-enable-native-sidecar"],
    _ALPHA + "proxy-wait-before-exit-seconds": _field("wait_before_exit_seconds", _natural),
}


# Ports of a pod


def resolved_ports(text: str, containers: Iterable[Mapping[str, Any]]) -> str:
    """A port list whose names of container ports are replaced by their numbers; unknown names are left out."""
    named = {
        port["name"]: str(port["containerPort"])
        for container in containers
        for port in container.get("ports") or []
        if port.get("name")
    }
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return ",".join(part if part[0].isdigit() else named[part] for part in parts if part[0].isdigit() or part in named)


def contained(port: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(first <= port <= last for first, last in ranges)
