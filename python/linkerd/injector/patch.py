"""JSON patches (RFC 6902): the difference of two objects, and its application.

The difference is written for admission: items put at the front or at the end of a list become single `add`s, so that
the patch of one webhook reads as what it adds; any other change of a list replaces it.
"""

from __future__ import annotations

import copy
from typing import Any

Operation = dict[str, Any]
Patch = list[Operation]


def difference(old: Any, new: Any, path: str = "") -> Patch:
    """Operations (add, replace, remove) that turn `old` into `new`."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return _difference_of_mappings(old, new, path)
    if isinstance(old, list) and isinstance(new, list) and old:
        return _difference_of_lists(old, new, path)
    return [{"op": "replace", "path": path, "value": new}]


def _difference_of_mappings(old: dict[str, Any], new: dict[str, Any], path: str) -> Patch:
    operations: Patch = [{"op": "remove", "path": f"{path}/{_escape(key)}"} for key in old if key not in new]
    for key, value in new.items():
        at = f"{path}/{_escape(key)}"
        if key in old:
            operations += difference(old[key], value, at)
        else:
            operations.append({"op": "add", "path": at, "value": value})
    return operations


def _difference_of_lists(old: list[Any], new: list[Any], path: str) -> Patch:
    grown = len(new) - len(old)
    if grown > 0 and new[: len(old)] == old:
        return [{"op": "add", "path": f"{path}/-", "value": value} for value in new[len(old) :]]
    if grown > 0 and new[grown:] == old:
        return [{"op": "add", "path": f"{path}/{i}", "value": value} for i, value in enumerate(new[:grown])]
    return [{"op": "replace", "path": path, "value": new}]


def _escape(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def apply(patch: Patch, document: Any) -> Any:
    """The patched copy. Only what `difference` writes; raises KeyError or IndexError for a path that is not there."""
    result = copy.deepcopy(document)
    for operation in patch:
        result = _apply_one(operation, result)
    return result


def _apply_one(operation: Operation, document: Any) -> Any:
    keys = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    if not keys:
        return copy.deepcopy(operation["value"])
    target = document
    for key in keys[:-1]:
        target = target[int(key)] if isinstance(target, list) else target[key]
    last = keys[-1]
    if operation["op"] == "remove":
        del target[int(last) if isinstance(target, list) else last]
    elif isinstance(target, list) and operation["op"] == "add":
        target.insert(len(target) if last == "-" else int(last), copy.deepcopy(operation["value"]))
    else:
        target[int(last) if isinstance(target, list) else last] = copy.deepcopy(operation["value"])
    return document
