"""Annotations change the proxy's settings; those that cannot be used change nothing and are told."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.injector.annotations import inherited, overridden, parse_ports, parse_quantity, resolved_ports
from linkerd.injector.settings import settings_from_values

PROXY = settings_from_values({}, "linkerd", "PEM").proxy


def changed(**annotations):
    return overridden(PROXY, {f"config.linkerd.io/{k.replace('_', '-')}": v for k, v in annotations.items()})


def test_a_cpu_limit_sets_resources_and_threads():
    proxy, warnings = changed(proxy_cpu_limit="1500m")
    assert (proxy.resources.cpu_limit, proxy.cores_max, warnings) == ("1500m", 2, [])


def test_an_image_is_made_of_name_version_and_policy():
    proxy, _ = changed(proxy_image="reg/proxy", proxy_version="v9", image_pull_policy="Always")
    assert (str(proxy.image), proxy.image.pull_policy) == ("reg/proxy:v9", "Always")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("admin_port", "x", "not a valid port"),
        ("admin_port", "0", "1 to 65535"),
        ("skip_inbound_ports", "9-1", "upper-bound must be greater"),
        ("skip_outbound_ports", "80,a-9", "not a valid lower-bound"),
        ("proxy_cpu_request", "much", "quantity"),
        ("default_inbound_policy", "maybe", "one of"),
        ("shutdown_grace_period", "10", "duration"),
        ("proxy_additional_env", "{}", "JSON list"),
        ("proxy_cpu_ratio_limit", "1", "between 0 and 1"),
    ],
)
def test_a_wrong_value_is_told_and_ignored(name, value, why):
    proxy, warnings = changed(**{name: value})
    assert proxy == PROXY
    assert why in warnings[0]


def test_a_limit_below_the_request_is_told():
    _, warnings = changed(proxy_memory_request="64Mi", proxy_memory_limit="32Mi")
    assert "below its request" in warnings[0]


def test_the_older_names_of_native_sidecar_work():
    proxy, _ = overridden(PROXY, {"config.beta.linkerd.io/proxy-enable-native-sidecar": "true"})
    assert proxy.native_sidecar is True


def test_a_namespace_lends_what_the_pod_does_not_set():
    namespace = {"linkerd.io/inject": "enabled", "config.linkerd.io/admin-port": "1", "other/x": "y"}
    assert inherited({"config.linkerd.io/admin-port": "2"}, namespace) == {"linkerd.io/inject": "enabled"}


def test_names_of_container_ports_become_numbers():
    containers = [{"ports": [{"name": "mysql", "containerPort": 3306}]}]
    assert resolved_ports("mysql,80-90,gone", containers) == "3306,80-90"


@pytest.mark.parametrize(
    ("text", "value"), [("100m", "0.1"), ("1.5", "1.5"), ("64Mi", "67108864"), ("1e3", "1000"), ("2k", "2000")]
)
def test_quantities(text, value):
    assert parse_quantity(text) == Decimal(value)


@given(st.text(max_size=12))
def test_ports_parse_or_say_why_not(text):
    try:
        ranges = parse_ports(text)
    except ValueError:
        return  # the one error that callers expect
    assert all(0 <= first <= last <= 65535 for first, last in ranges)
