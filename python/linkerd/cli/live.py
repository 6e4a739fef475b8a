"""What one proxy believes: its `/discovery.json`, and how that differs from what the control plane tells it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Address = tuple[str, int]


class NotKnown(Exception):
    """The proxy has nothing about an authority; the text says what that means."""


@dataclass(frozen=True, slots=True)
class LiveEndpoint:
    """`details` are the proxy's own words: weight, protocol_hint, identity, and its state, load and age if it tells."""

    address: Address
    labels: Mapping[str, str]
    details: Mapping[str, Any]


def live_endpoints(document: str, authority: str) -> list[LiveEndpoint]:
    """Raises NotKnown, and ValueError for what is no such document."""
    found = json.loads(document)["outbound"]["endpoints"]
    known = {entry["authority"]: entry for entry in found}
    entry = known.get(authority)
    if entry is None:
        others = f"; it knows {', '.join(sorted(known))}" if known else ""
        raise NotKnown(f"the proxy has not asked for {authority}, since nothing was sent there of late{others}")
    if not entry["known"]:
        raise NotKnown(f"the proxy has asked for {authority} and waits for an answer")
    return [_endpoint(one) for one in entry["endpoints"] or []]


def _endpoint(value: Mapping[str, Any]) -> LiveEndpoint:
    host, _, port = value["address"].rpartition(":")
    details = {key: item for key, item in value.items() if key not in ("address", "labels")}
    return LiveEndpoint((host.strip("[]"), int(port)), value.get("labels") or {}, details)


def state_text(endpoint: LiveEndpoint | None) -> str:
    """One cell of a table."""
    if endpoint is None:
        return "-"
    state = str(endpoint.details.get("state") or "yes")
    told = [f"{name} {endpoint.details[name]}" for name in ("load", "age") if endpoint.details.get(name) is not None]
    return f"{state} ({', '.join(told)})" if told else state


def difference(control_plane: Iterable[Address], proxy: Iterable[Address]) -> list[str]:
    """Sentences for people; none when the two agree."""
    told, believed = set(control_plane), set(proxy)
    sentences = (
        ("only the control plane has", told - believed),
        ("only the proxy has", believed - told),
    )
    return [f"{text} {', '.join(map(_text, sorted(found)))}" for text, found in sentences if found]


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
