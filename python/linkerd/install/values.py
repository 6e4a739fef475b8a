"""Values: the defaults, changed by files (`-f`) and by `--set`, as Helm reads them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from itertools import pairwise
from typing import Any

import yaml

Values = dict[str, Any]


class ValuesError(ValueError):
    """A value that cannot be used; the message names it."""


def default_values(name: str = "values.yaml") -> Values:
    """`values.yaml` for the control plane, `viz_values.yaml` for viz."""
    return yaml.safe_load((files("linkerd.install") / name).read_text())


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Values:
    """Mappings are merged, everything else is replaced; null removes a value, as with Helm."""
    result = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if value is None and key in result:
            del result[key]
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def without_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> Values:
    """What differs from the defaults: enough to make the same values with a later version's defaults."""
    result: Values = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping):
            if inner := without_defaults(value, defaults[key]):
                result[key] = inner
        elif key not in defaults or value != defaults[key]:
            result[key] = value
    return result


def parse_values(text: str, source: str) -> Values:
    """A values file. Raises ValuesError."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValuesError(f"{source}: not YAML: {error}") from error
    if values is not None and not isinstance(values, dict):
        raise ValuesError(f"{source}: a mapping of values was expected")
    return values or {}


# --set a.b=1,c[0]=x,d={y,z}

_NUMBER = re.compile(r"-?(0|[1-9]\d*)")


def with_settings(values: Mapping[str, Any], settings: Iterable[str], *, as_strings: bool = False) -> Values:
    """The values with each `a.b=value[,c=value]` applied. Raises ValuesError."""
    result = copy.deepcopy(dict(values))
    for setting in settings:
        for assignment in _split(setting, ","):
            key, equals, text = assignment.partition("=")
            if not equals or not key:
                raise ValuesError(f"--set `{assignment}`: key=value is wanted")
            _assign(result, _path(key), _parsed(text, as_strings), assignment)
    return result


def _split(text: str, separator: str) -> list[str]:
    """Splits outside of braces; a backslash takes the next character as it is (and stays, for later splits)."""
    parts, current, depth, escaped = [], "", 0, False
    for character in text:
        if escaped or character == "\\":
            current += character
            escaped = not escaped
            continue
        depth += (character == "{") - (character == "}")
        if character == separator and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _path(key: str) -> list[str | int]:
    path: list[str | int] = []
    for part in _split(key, "."):
        name, *indexes = part.split("[")
        path.append(_plain(name))
        for index in indexes:
            if not index.endswith("]") or not index[:-1].isdigit():
                raise ValuesError(f"--set `{key}`: `[{index}` is no index of a list")
            path.append(int(index[:-1]))
    return path


def _parsed(text: str, as_string: bool) -> Any:
    if text.startswith("{") and text.endswith("}"):
        return [_parsed(item, as_string) for item in _split(text[1:-1], ",")] if text != "{}" else []
    plain = _plain(text)
    if as_string:
        return plain
    if plain in ("true", "false"):
        return plain == "true"
    if plain == "null":
        return None
    return int(plain) if _NUMBER.fullmatch(plain) else plain


def _assign(values: Values, path: list[str | int], value: Any, assignment: str) -> None:
    node: Any = values
    for key, following in pairwise(path):
        node = _entered(node, key, following, assignment)
    last = path[-1]
    if isinstance(last, int):
        _entered(node, last, "", assignment)
        node[last] = value
    elif value is None:
        node.pop(last, None)
    else:
        node[last] = value


def _entered(node: Any, key: str | int, following: str | int, assignment: str) -> Any:
    """The mapping or list at `key`, made when there is none of the kind that `following` needs."""
    wanted = list if isinstance(following, int) else dict
    if isinstance(key, int):
        if key > 1000:
            raise ValuesError(f"--set `{assignment}`: a list of more than 1000 items")
        node += [None] * (key + 1 - len(node))
    elif key not in node:
        node[key] = None
    if not isinstance(node[key], wanted):
        node[key] = wanted()
    return node[key]


# Checks

_LOG_LEVELS = ("panic", "fatal", "error", "warn", "info", "debug", "trace")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")
_INBOUND_POLICIES = (
    "all-authenticated",
    "all-unauthenticated",
    "cluster-authenticated",
    "cluster-unauthenticated",
    "deny",
    "audit",
)


def check_values(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Names that no manifest reads, which are most likely misspelt. Raises ValuesError for values that cannot be."""
    _one_of(values, "controllerLogLevel", _LOG_LEVELS)
    _one_of(values, "imagePullPolicy", _PULL_POLICIES)
    _one_of(values, "webhookFailurePolicy", ("Ignore", "Fail"))
    _one_of(values.get("proxy") or {}, "defaultInboundPolicy", _INBOUND_POLICIES)
    replicas = values.get("controllerReplicas", 1)
    if not isinstance(replicas, int) or replicas < 1:
        raise ValuesError(f"controllerReplicas `{replicas}`: a whole number of at least 1 is wanted")
    return sorted(_unknown(values, defaults))


def _one_of(values: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> None:
    if name in values and values[name] not in allowed:
        raise ValuesError(f"{name} `{values[name]}`: one of {', '.join(allowed)} is wanted")


_FREE = ("nodeSelector",)
"""Mappings whose keys are the user's."""


def _unknown(values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in values.items():
        if key not in defaults:
            yield prefix + key
        elif isinstance(value, Mapping) and isinstance(defaults[key], Mapping) and defaults[key] and key not in _FREE:
            yield from _unknown(value, defaults[key], f"{prefix}{key}.")
