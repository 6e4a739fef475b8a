"""Manifests on stdout: YAML documents that `kubectl apply -f -` takes, or one compact JSON document per line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import yaml

_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):
    """Block style for texts of several lines; no anchors, which people do not read well."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: Any, value: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def yaml_text(document: Any, *, sort_keys: bool = False) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=sort_keys, width=120, allow_unicode=True)


def print_documents(documents: Iterable[Any], form: str = "yaml") -> None:
    """`form` is yaml or json."""
    for document in documents:
        if form == "json":
            sys.stdout.write(json.dumps(document, separators=(",", ":")) + "\n")
        else:
            sys.stdout.write("---\n" + yaml_text(document))
    sys.stdout.flush()
