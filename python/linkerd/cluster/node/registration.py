"""The Node object: registration, heartbeat, conditions."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path

import aiohttp

from linkerd import VERSION
from linkerd.cluster.node.context import Capacity
from linkerd.cluster.node.settings import Settings
from linkerd.cluster.node.statuses import Object, format_time
from linkerd.k8s import resources
from linkerd.k8s.client import STRATEGIC_MERGE_PATCH, Client
from linkerd.k8s.errors import AlreadyExists, ApiError, BadRequest, Conflict, Invalid, NotFound

log = logging.getLogger(__name__)

_LEASE_NAMESPACE = "kube-node-lease"
_LEASE_SECONDS = 40
_RENEW_EVERY = 10.0
_STATUS_EVERY = 300.0
_MAX_PODS = 110
_RETRY = 1.0
_FEATURES = ["ExtendWebSocketsToKubelet"]
"""What the API server may rely on: exec and port-forward as WebSockets up to the node."""


@dataclass
class Registration:
    """Keeps this node's object alive. `ready()` says whether pods can be run."""

    settings: Settings
    client: Client
    capacity: Capacity
    kubernetes_version: str
    ready: Callable[[], bool]

    async def register(self) -> IPv4Network:
        """Create or take over the Node; returns its pod network, which the controller manager assigns."""
        node = await self._create()
        await self.write_status()
        while not (node.get("spec") or {}).get("podCIDR"):
            await asyncio.sleep(0.1)
            node = await self.client.get(resources.NODES, self.settings.node_name)
        return IPv4Network(node["spec"]["podCIDR"])

    async def run(self) -> None:
        """The heartbeats: the lease often, as it is small; the status rarely."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._renew_lease, _RENEW_EVERY))
            group.create_task(self._repeat(self.write_status, _STATUS_EVERY))

    async def _repeat(self, action: Callable[[], object], period: float) -> None:
        while True:
            try:
                await action()  # type: ignore[misc]
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("heartbeat failed, trying again: %s", error or type(error).__name__)
                await asyncio.sleep(_RETRY)
            else:
                await asyncio.sleep(period)

    async def _create(self) -> Object:
        name = self.settings.node_name
        labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _architecture(),
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": _architecture(),
        }
        body = {"metadata": {"name": name, "labels": labels}, "spec": {}}
        while True:
            try:
                return await self.client.create(resources.NODES, body)
            except AlreadyExists:
                return await self.client.patch(resources.NODES, name, {"metadata": {"labels": labels}})
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("the node cannot be registered yet: %s", error or type(error).__name__)
                await asyncio.sleep(0.2)

    async def write_status(self) -> None:
        """The whole status, by a patch that leaves others' conditions alone."""
        name = self.settings.node_name
        present = (await self.client.get(resources.NODES, name)).get("status") or {}
        status = self._status({item["type"]: item for item in present.get("conditions") or ()})
        try:
            await self._patch({**status, "declaredFeatures": _FEATURES})
        except (Invalid, BadRequest) as error:
            log.info("this API server takes no declaredFeatures: %s", error)
            await self._patch(status)

    async def _patch(self, status: Object) -> None:
        await self.client.patch(
            resources.NODES,
            self.settings.node_name,
            {"status": status},
            content_type=STRATEGIC_MERGE_PATCH,
            subresource="status",
        )

    def _status(self, present: dict[str, Object]) -> Object:
        capacity = {
            "cpu": str(self.capacity.cpus),
            "memory": f"{self.capacity.memory_bytes // 1024}Ki",
            "ephemeral-storage": f"{self.capacity.disk_bytes // 1024}Ki",
            "pods": str(_MAX_PODS),
        }
        addresses = [
            {"type": "InternalIP", "address": str(self.settings.node_ip)},
            {"type": "Hostname", "address": self.settings.node_name},
        ]
        return {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": addresses,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": self._info(),
            "conditions": conditions(present, ready=self.ready(), now=time.time()),
        }

    def _info(self) -> Object:
        return {
            "machineID": _first_line("/etc/machine-id"),
            "systemUUID": _first_line("/etc/machine-id"),
            "bootID": _first_line("/proc/sys/kernel/random/boot_id"),
            "kernelVersion": platform.release(),
            "osImage": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
            "containerRuntimeVersion": f"linkerd://{VERSION}",
            "kubeletVersion": self.kubernetes_version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": _architecture(),
        }

    async def _renew_lease(self) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        name = self.settings.node_name
        spec = {"holderIdentity": name, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": now}
        try:
            await self.client.patch(resources.LEASES, name, {"spec": spec}, _LEASE_NAMESPACE)
        except NotFound:
            try:
                await self.client.create(resources.LEASES, {"metadata": {"name": name}, "spec": spec}, _LEASE_NAMESPACE)
            except Conflict:
                return  # made meanwhile; the next renewal finds it


_HEALTHY = (
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


def conditions(present: dict[str, Object], *, ready: bool, now: float) -> list[Object]:
    """The node's conditions; the time of transition moves only when a status does."""
    wanted = [(kind, "False", reason, message) for kind, reason, message in _HEALTHY]
    if ready:
        wanted.append(("Ready", "True", "KubeletReady", "kubelet is posting ready status"))
    else:
        wanted.append(("Ready", "False", "KubeletNotReady", "the node agent is starting"))
    result = []
    for kind, status, reason, message in wanted:
        old = present.get(kind) or {}
        kept = old.get("lastTransitionTime") if old.get("status") == status else None
        result.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": format_time(now),
                "lastTransitionTime": kept or format_time(now),
            }
        )
    return result


def _architecture() -> str:
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _first_line(path: str) -> str:
    file = Path(path)
    return file.read_text().strip() if file.is_file() else ""
