"""What the proxies say of their connections: their own metrics, read through the API server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from typing import Any

import aiohttp

from linkerd.checks.cluster import CONTROL_PLANE_LABEL, name_of, proxy_of
from linkerd.checks.data_plane import Connections, PlainPair
from linkerd.k8s.client import Client
from linkerd.k8s.errors import ApiError
from linkerd.k8s.resources import PODS

Object = dict[str, Any]

_AT_ONCE = 16
_ADMIN_PORT = 4191
_SERIES = re.compile(r"tcp_open_connections\{(.*)\} (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


async def connections_of(client: Client, pods: list[Object]) -> Connections:
    """The open connections of these pods' proxies to other meshed pods."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def metrics(pod: Object) -> str | None:
        async with gate:
            try:
                return await _metrics(client, pod)
            except (ApiError, aiohttp.ClientError, TimeoutError):
                return None

    texts = await asyncio.gather(*(metrics(pod) for pod in pods))
    secured, plain, unasked = 0, set(), []
    for pod, text in zip(pods, texts, strict=True):
        if text is None:
            unasked.append(name_of(pod))
            continue
        for labels, count in meshed_connections(text):
            if labels.get("tls") == "true":
                secured += count
            else:
                plain.add(PlainPair(name_of(pod), _server(labels), labels.get("no_tls_reason") or "no TLS"))
    return Connections(secured, tuple(sorted(plain)), tuple(unasked))


async def _metrics(client: Client, pod: Object) -> str:
    metadata = pod["metadata"]
    target = f"{metadata['name']}:{admin_port(pod)}"
    return str(await client.request("GET", PODS.path(metadata["namespace"], target, "proxy/metrics")))


def admin_port(pod: Object) -> int:
    for port in (proxy_of(pod) or {}).get("ports") or []:
        if port.get("name") == "linkerd-admin":
            return int(port["containerPort"])
    return _ADMIN_PORT


def meshed_connections(text: str) -> Iterator[tuple[dict[str, str], int]]:
    """The outbound series of open connections whose other end is a meshed pod, with their labels and values."""
    for line in _lines(text):
        match = _SERIES.fullmatch(line)
        if match is None:
            continue
        labels = dict(_LABEL.findall(match[1]))
        count = int(float(match[2]))
        if count and labels.get("direction") == "outbound" and labels.get("peer") == "dst" and _is_meshed(labels):
            yield labels, count


def _lines(text: str) -> Iterable[str]:
    return (line for line in text.splitlines() if line.startswith("tcp_open_connections{"))


def _is_meshed(labels: dict[str, str]) -> bool:
    return bool(labels.get(f"dst_{CONTROL_PLANE_LABEL.partition('/')[2].replace('-', '_')}"))


def _server(labels: dict[str, str]) -> str:
    if labels.get("dst_pod"):
        return f"{labels.get('dst_namespace', '')}/{labels['dst_pod']}"
    return labels.get("target_addr", "unknown")
