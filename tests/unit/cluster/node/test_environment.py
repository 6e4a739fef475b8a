from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.cluster.node.environment import (
    ConfigError,
    PodFacts,
    build_argv,
    build_environment,
    expand,
    field_value,
    format_map,
    resource_value,
    service_variables,
)

FACTS = PodFacts(("10.244.0.7",), "192.168.127.1", Fraction(2), Fraction(4 * 2**30))


class Objects:
    """ConfigMaps and Secrets of one namespace."""

    def __init__(self, **objects: Mapping[str, bytes]) -> None:
        self._objects = objects

    def config_map(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        return self._objects.get(name)

    secret = config_map


def pod(**spec: Any) -> dict[str, Any]:
    metadata = {
        "name": "web-1",
        "namespace": "shop",
        "uid": "u1",
        "labels": {"app": "web"},
        "annotations": {"a/b": "c"},
    }
    return {"metadata": metadata, "spec": {"nodeName": "node-1", "containers": [], "enableServiceLinks": False, **spec}}


def environment(container: dict[str, Any], objects: Objects | None = None) -> dict[str, str]:
    return build_environment(pod(), container, [], objects or Objects(), FACTS)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$(C)", "$(C)"),
        ("$(A", "$(A"),
        ("$A", "$A"),
        ("$$$(A)", "$1"),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


@given(st.text())
def test_text_without_a_dollar_stays(text: str) -> None:
    plain = text.replace("$", "")
    assert expand(plain, {"A": "1"}) == plain


def test_a_variable_sees_those_before_it() -> None:
    items = [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}, {"name": "C", "value": "$(D)"}]
    assert environment({"env": items}) == {"A": "1", "B": "12", "C": "$(D)"}


def test_env_goes_over_env_from() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "conf"}, "prefix": "P_"}],
        "env": [{"name": "P_a", "value": "mine"}],
    }
    assert environment(container, Objects(conf={"a": b"1", "b": b"2"})) == {"P_a": "mine", "P_b": "2"}


def test_what_is_missing_is_named_unless_it_is_optional() -> None:
    ref = {"name": "conf", "key": "k"}
    container = {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": ref}}]}
    with pytest.raises(ConfigError, match='configmap "conf" not found'):
        environment(container)
    with pytest.raises(ConfigError, match="couldn't find key k in ConfigMap shop/conf"):
        environment(container, Objects(conf={}))
    ref["optional"] = True  # type: ignore[assignment]
    assert environment(container) == {}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web-1"),
        ("metadata.namespace", "shop"),
        ("metadata.labels['app']", "web"),
        ("metadata.annotations['a/b']", "c"),
        ("metadata.annotations['none']", ""),
        ("metadata.labels", 'app="web"'),
        ("status.podIP", "10.244.0.7"),
        ("status.hostIP", "192.168.127.1"),
        ("spec.nodeName", "node-1"),
    ],
)
def test_fields_of_the_downward_api(path: str, value: str) -> None:
    assert field_value(pod(), path, FACTS) == value


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"unsupported fieldPath: spec\.containers"):
        field_value(pod(), "spec.containers", FACTS)


def test_maps_are_quoted_and_sorted() -> None:
    assert format_map({"b": 'say "x"\n', "a": "1"}) == 'a="1"\nb="say \\"x\\"\\n"'


@pytest.mark.parametrize(
    ("resource", "divisor", "value"),
    [
        ("limits.memory", "1Mi", "64"),
        ("limits.cpu", "1", "1"),
        ("limits.cpu", "1m", "100"),
        ("requests.cpu", "1m", "0"),
        ("limits.ephemeral-storage", "1", "0"),
    ],
)
def test_resources_are_rounded_up_to_the_divisor(resource: str, divisor: str, value: str) -> None:
    container = {"name": "c", "resources": {"limits": {"memory": "64Mi", "cpu": "100m"}}}
    ref = {"resource": resource, "divisor": divisor}
    assert resource_value(pod(containers=[container]), ref, container, FACTS) == value


def test_a_missing_limit_is_what_the_node_has() -> None:
    container = {"name": "c"}
    assert resource_value(pod(containers=[container]), {"resource": "limits.cpu"}, container, FACTS) == "2"


def test_services_of_the_namespace_become_variables() -> None:
    ports = [{"name": "http", "port": 80}, {"port": 53, "protocol": "UDP"}]
    service = {"metadata": {"name": "my-db", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.9", "ports": ports}}
    headless = {"metadata": {"name": "h", "namespace": "shop"}, "spec": {"clusterIP": "None", "ports": ports}}
    variables = service_variables([service, headless], "shop", enabled=True)
    assert variables["MY_DB_SERVICE_HOST"] == "10.96.0.9"
    assert variables["MY_DB_SERVICE_PORT_HTTP"] == "80"
    assert variables["MY_DB_PORT_53_UDP"] == "udp://10.96.0.9:53"
    assert not any(name.startswith("H_") for name in variables)


def test_only_kubernetes_is_told_when_links_are_off() -> None:
    port = [{"name": "https", "port": 443}]
    api = {
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "ports": port},
    }
    other = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.2", "ports": port}}
    variables = service_variables([api, other], "shop", enabled=False)
    assert {name.split("_")[0] for name in variables} == {"KUBERNETES"}


@pytest.mark.parametrize(
    ("container", "argv"),
    [
        ({}, ("/entry", "cmd")),
        ({"args": ["a"]}, ("/entry", "a")),
        ({"command": ["c"]}, ("c",)),
        ({"command": ["c"], "args": ["$(A)"]}, ("c", "1")),
    ],
)
def test_command_and_args_over_the_images_own(container: dict[str, Any], argv: tuple[str, ...]) -> None:
    assert build_argv(container, {"A": "1"}, ["/entry"], ["cmd"]) == argv


def test_a_container_without_any_command_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no command specified"):
        build_argv({}, {}, [], [])
