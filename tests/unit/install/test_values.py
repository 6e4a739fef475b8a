"""Values as Helm reads them."""

from __future__ import annotations

import pytest
from linkerd.install.values import (
    ValuesError,
    check_values,
    default_values,
    merged,
    parse_values,
    with_settings,
    without_defaults,
)


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("a=1", {"a": 1}),
        ("a.b=x,a.c=true", {"a": {"b": "x", "c": True}}),
        ("a[1].b=x", {"a": [None, {"b": "x"}]}),
        ("a={x,2}", {"a": ["x", 2]}),
        ("a={}", {"a": []}),
        (r"a\.b=x\,y", {"a.b": "x,y"}),
        ("a=", {"a": ""}),
        ("a=5s", {"a": "5s"}),
        ("a=b=c", {"a": "b=c"}),
    ],
)
def test_set(setting, values):
    assert with_settings({}, [setting]) == values


def test_set_string_leaves_numbers_as_text():
    assert with_settings({}, ["a=1"], as_strings=True) == {"a": "1"}


def test_null_removes_a_value():
    assert with_settings({"a": 1, "b": 2}, ["a=null"]) == {"b": 2}
    assert merged({"a": 1, "b": 2}, {"a": None}) == {"b": 2}


@pytest.mark.parametrize("setting", ["a", "=1", "a[x]=1", "a[99999]=1"])
def test_a_wrong_setting_is_refused(setting):
    with pytest.raises(ValuesError):
        with_settings({}, [setting])


def test_lists_are_replaced_and_mappings_merged():
    assert merged({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}}) == {"a": {"b": 1, "c": [2]}}


def test_what_differs_from_the_defaults_makes_the_same_values():
    defaults = default_values()
    values = merged(defaults, {"proxy": {"logLevel": "debug"}, "nodeSelector": {"x": "y"}})
    assert merged(defaults, without_defaults(values, defaults)) == values


def test_a_file_that_is_no_mapping_is_refused():
    with pytest.raises(ValuesError, match=r"f\.yaml"):
        parse_values("- 1", "f.yaml")


def test_misspelt_names_are_found():
    defaults = default_values()
    values = merged(defaults, {"proxy": {"loglevel": "x"}, "typo": 1, "nodeSelector": {"anything": "goes"}})
    assert check_values(values, defaults) == ["proxy.loglevel", "typo"]


@pytest.mark.parametrize(
    "change", [{"controllerLogLevel": "loud"}, {"controllerReplicas": 0}, {"proxy": {"defaultInboundPolicy": "x"}}]
)
def test_a_value_that_cannot_be_is_refused(change):
    defaults = default_values()
    with pytest.raises(ValuesError):
        check_values(merged(defaults, change), defaults)
