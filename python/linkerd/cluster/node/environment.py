"""A container's environment, command and downward fields, as kubelet computes them (pure)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

from linkerd.cluster.node.quantities import in_units_of, parse_quantity

Object = dict[str, Any]


class ConfigError(Exception):
    """The container's configuration cannot be resolved (yet): the reason CreateContainerConfigError."""


class References(Protocol):
    """The ConfigMaps and Secrets of a namespace; None when there is no such object. Secrets come decoded."""

    def config_map(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Text and binary data together."""
        ...

    def secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Decoded data."""
        ...


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What fields of a running pod are known only to the node."""

    pod_ips: tuple[str, ...]
    host_ip: str
    node_cpu: Fraction
    node_memory: Fraction


_VARIABLE = re.compile(r"\$(\$|\(([^()]+)\))")
_ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value, `$$` one dollar; a name that is not known stays as it stands."""

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return values.get(match[2], match[0])

    return _VARIABLE.sub(replace, text)


def build_environment(
    pod: Object, container: Object, services: Iterable[Object], references: References, facts: PodFacts
) -> dict[str, str]:
    """Service variables, then envFrom, then env, each over the former. Raises ConfigError."""
    namespace = pod["metadata"]["namespace"]
    result = service_variables(services, namespace, enabled=pod["spec"].get("enableServiceLinks", True))
    for source in container.get("envFrom") or ():
        result.update(_from_source(source, namespace, references))
    for item in container.get("env") or ():
        value = _env_value(item, result, pod, container, references, facts)
        if value is not None:
            result[item["name"]] = value
    return result


def _from_source(source: Object, namespace: str, references: References) -> Iterator[tuple[str, str]]:
    if ref := source.get("configMapRef"):
        data = references.config_map(namespace, ref["name"])
        kind = "configmap"
    else:
        ref = source["secretRef"]
        data = references.secret(namespace, ref["name"])
        kind = "secret"
    if data is None:
        if ref.get("optional"):
            return
        raise ConfigError(f'{kind} "{ref["name"]}" not found')
    for key, value in sorted(data.items()):
        name = source.get("prefix", "") + key
        if _ENV_NAME.fullmatch(name):
            yield name, value.decode(errors="replace")


def _env_value(
    item: Object,
    known: Mapping[str, str],
    pod: Object,
    container: Object,
    references: References,
    facts: PodFacts,
) -> str | None:
    source = item.get("valueFrom")
    if not source:
        return expand(item.get("value", ""), known)
    if ref := source.get("fieldRef"):
        return field_value(pod, ref["fieldPath"], facts)
    if ref := source.get("resourceFieldRef"):
        return resource_value(pod, ref, container, facts)
    return _key_value(source, pod["metadata"]["namespace"], references)


def _key_value(source: Object, namespace: str, references: References) -> str | None:
    if ref := source.get("configMapKeyRef"):
        kind, title, data = "configmap", "ConfigMap", references.config_map(namespace, ref["name"])
    elif ref := source.get("secretKeyRef"):
        kind, title, data = "secret", "Secret", references.secret(namespace, ref["name"])
    else:
        raise ConfigError(f"environment source {sorted(source)} is not supported by this node")
    if data is not None and ref["key"] in data:
        return data[ref["key"]].decode(errors="replace")
    if ref.get("optional"):
        return None
    if data is None:
        raise ConfigError(f'{kind} "{ref["name"]}" not found')
    raise ConfigError(f"couldn't find key {ref['key']} in {title} {namespace}/{ref['name']}")


_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


def field_value(pod: Object, path: str, facts: PodFacts) -> str:
    """One field of the downward API as text. Raises ConfigError for a field that it does not have."""
    metadata, spec = pod["metadata"], pod["spec"]
    if match := _SUBSCRIPT.fullmatch(path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        return format_map(metadata.get(path.removeprefix("metadata.")) or {})
    values = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": facts.pod_ips[0] if facts.pod_ips else "",
        "status.podIPs": ",".join(facts.pod_ips),
        "status.hostIP": facts.host_ip,
        "status.hostIPs": facts.host_ip,
    }
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(values[path])


def format_map(values: Mapping[str, str]) -> str:
    """`key="value"` lines, values quoted as Go's %q does, sorted."""
    return "\n".join(f"{key}={_quote(value)}" for key, value in sorted(values.items()))


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _quote(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(letter, letter) for letter in text) + '"'


def resource_value(pod: Object, ref: Object, container: Object | None, facts: PodFacts) -> str:
    """A request or limit of a container. A missing limit is what the node has, as in Kubernetes."""
    name = ref.get("containerName") or (container or {}).get("name")
    spec = pod["spec"]
    target = container if container is not None and container["name"] == name else None
    for candidate in (*(spec.get("initContainers") or ()), *spec["containers"]):
        if candidate["name"] == name:
            target = candidate
    if target is None:
        raise ConfigError(f"container {name} not found")
    kind, _, resource = ref["resource"].partition(".")
    divisor = parse_quantity(str(ref.get("divisor") or "1")) or Fraction(1)
    text = ((target.get("resources") or {}).get(kind) or {}).get(resource)
    if text is not None:
        return str(in_units_of(parse_quantity(str(text)), divisor))
    if kind == "limits" and resource in ("cpu", "memory"):
        return str(in_units_of(facts.node_cpu if resource == "cpu" else facts.node_memory, divisor))
    return "0"


def service_variables(services: Iterable[Object], namespace: str, *, enabled: bool) -> dict[str, str]:
    """Docker-links variables of the namespace's services; `kubernetes` is always there."""
    chosen: dict[str, Object] = {}
    for service in services:
        metadata = service["metadata"]
        if service["spec"].get("clusterIP") in (None, "", "None"):
            continue
        if metadata["namespace"] == "default" and metadata["name"] == "kubernetes":
            chosen.setdefault("kubernetes", service)
        elif enabled and metadata["namespace"] == namespace:
            chosen[metadata["name"]] = service
    result: dict[str, str] = {}
    for name in sorted(chosen):
        result.update(_one_service(name, chosen[name]))
    return result


def _one_service(name: str, service: Object) -> Iterator[tuple[str, str]]:
    prefix = name.upper().replace("-", "_")
    address = service["spec"]["clusterIP"]
    ports = service["spec"].get("ports") or []
    if not ports:
        return
    yield f"{prefix}_SERVICE_HOST", address
    yield f"{prefix}_SERVICE_PORT", str(ports[0]["port"])
    for port in ports:
        if port.get("name"):
            yield f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}", str(port["port"])
    for number, port in enumerate(ports):
        protocol = port.get("protocol", "TCP")
        url = f"{protocol.lower()}://{address}:{port['port']}"
        if number == 0:
            yield f"{prefix}_PORT", url
        stem = f"{prefix}_PORT_{port['port']}_{protocol}"
        yield stem, url
        yield f"{stem}_PROTO", protocol.lower()
        yield f"{stem}_PORT", str(port["port"])
        yield f"{stem}_ADDR", address


def build_argv(
    container: Object, environment: Mapping[str, str], entrypoint: Sequence[str], cmd: Sequence[str]
) -> tuple[str, ...]:
    """command replaces the image's entrypoint and its cmd, args replaces its cmd. Raises ConfigError when empty."""
    command = [expand(word, environment) for word in container.get("command") or ()]
    args = [expand(word, environment) for word in container.get("args") or ()]
    argv = (*command, *args) if command else (*entrypoint, *(args or cmd))
    if not argv:
        raise ConfigError("no command specified")
    return tuple(argv)
