"""The ConfigMaps, Secrets and Services that pods refer to, kept by watches.

One watch per kind for the whole cluster: the node is the only one, and an idle watch costs nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from linkerd.k8s import resources
from linkerd.k8s.client import Client
from linkerd.k8s.watching import Change, Reflector

Object = dict[str, Any]


class ClusterReferences:
    """Implements `environment.References`. `on_change(kind, namespace, name)` hears of changes, once all is synced."""

    def __init__(self, client: Client, on_change: Callable[[str, str, str], None]) -> None:
        self._on_change = on_change
        self._config_maps = Reflector(client, resources.CONFIG_MAPS, on_change=self._tell, strip=_stripped)
        self._secrets = Reflector(client, resources.SECRETS, on_change=self._tell, strip=_stripped)
        self._services = Reflector(client, resources.SERVICES, strip=_stripped)

    def reflectors(self) -> tuple[Reflector, ...]:
        """To be run by the agent."""
        return (self._config_maps, self._secrets, self._services)

    async def wait_synced(self) -> None:
        """Until all that exists is known."""
        for reflector in self.reflectors():
            await reflector.synced.wait()

    def config_map(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Text and binary data together; None when there is no such object."""
        found = self._config_maps.objects.get((namespace, name))
        if found is None:
            return None
        text = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        return text | _decoded(found.get("binaryData"))

    def secret(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        """Decoded data; None when there is no such object."""
        found = self._secrets.objects.get((namespace, name))
        return None if found is None else _decoded(found.get("data"))

    def services(self) -> Iterable[Object]:
        """All services of the cluster."""
        return self._services.objects.values()

    def _tell(self, change: Change) -> None:
        if change.type != "synced":
            metadata = change.object["metadata"]
            self._on_change(change.object["kind"], metadata["namespace"], metadata["name"])


def _stripped(obj: Object) -> Object:
    """What is used of such an object; its managed fields alone are often larger."""
    metadata = {key: obj["metadata"][key] for key in ("namespace", "name")}
    return {"metadata": metadata, **{key: obj[key] for key in ("kind", "data", "binaryData", "spec") if key in obj}}


def _decoded(data: Mapping[str, str] | None) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (data or {}).items()}
