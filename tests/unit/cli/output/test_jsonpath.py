"""Paths into values, in Kubernetes' way of writing them."""

from __future__ import annotations

import pytest
from linkerd.cli.output.jsonpath import JsonPathError, parse_jsonpath

EVENT = {"a": {"b": 1, "x.y": 2}, "list": [{"n": "one"}, {"n": "two"}], "none": None}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        *((text, [1]) for text in ("a.b", ".a.b", "{a.b}", "{.a.b}", "{ .a.b }", "{$.a.b}", "{['a']['b']}")),
        ("{.a['x.y']}", [2]),
        ("{.list[0].n}", ["one"]),
        ("{.list[-1].n}", ["two"]),
        ("{.list[*].n}", ["one", "two"]),
        ("{.a.*}", [1, 2]),
        ("{.none}", [None]),
        ("{.}", [EVENT]),
        ("{.missing.b}", []),
        ("{.list[7]}", []),
        ("{.a[0]}", []),
        ("{.a.b.c}", []),
    ],
)
def test_what_a_path_finds(text, found):
    assert parse_jsonpath(text).find(EVENT) == found


@pytest.mark.parametrize("text", ["{.a", "{.a[}", "{.a b}", "a}}"])
def test_what_is_no_path(text):
    with pytest.raises(JsonPathError, match="cannot be read"):
        parse_jsonpath(text)
