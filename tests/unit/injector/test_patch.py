"""Patches turn the old object into the new one, whatever both are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from linkerd.injector.patch import apply, difference

_scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
_keys = st.text(alphabet="ab/~.", min_size=1, max_size=3)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4), max_leaves=12
)


@given(_values, _values)
def test_applying_the_difference_gives_the_new_object(old, new):
    assert apply(difference(old, new), old) == new


def test_equal_objects_differ_in_nothing():
    assert difference({"a": [1]}, {"a": [1]}) == []


def test_items_at_the_front_are_added_one_by_one():
    assert difference({"l": ["b"]}, {"l": ["a", "b"]}) == [{"op": "add", "path": "/l/0", "value": "a"}]


def test_items_at_the_end_are_appended():
    assert difference({"l": ["a"]}, {"l": ["a", "b"]}) == [{"op": "add", "path": "/l/-", "value": "b"}]


def test_slashes_and_tildes_of_keys_are_escaped():
    assert difference({}, {"linkerd.io/a~b": 1})[0]["path"] == "/linkerd.io~1a~0b"
