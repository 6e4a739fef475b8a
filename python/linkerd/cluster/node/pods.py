"""A pod on this node, from the API object to its processes and back to the object's status."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import aiohttp

from linkerd.cluster.node import naming, statuses, syscalls
from linkerd.cluster.node.containers import Container
from linkerd.cluster.node.context import NodeContext
from linkerd.cluster.node.environment import PodFacts
from linkerd.cluster.node.netns import network
from linkerd.cluster.node.rootfs import Mount
from linkerd.cluster.node.spawning import Child, Sandbox, SpawnError
from linkerd.cluster.node.statuses import Kind, Object, Record, Terminated, Verdict, Waiting
from linkerd.cluster.node.tokens import Tokens
from linkerd.cluster.node.volumes import VolumeError, Volumes
from linkerd.k8s import resources
from linkerd.k8s.client import STRATEGIC_MERGE_PATCH
from linkerd.k8s.errors import ApiError, Conflict, Invalid, NotFound

log = logging.getLogger(__name__)

_STATUS_DELAY = 0.02  # seconds: changes that come together are written together
_RETRY = 1.0  # seconds between tries of an API request that failed
_MOUNT_PATIENCE = 2.0  # seconds before something missing is worth an event: it may be being created just now
_MOUNT_RETRY = 10.0
_DEFAULT_GRACE = 30.0
_OOM_SCORES = {"Guaranteed": -997, "Burstable": 900, "BestEffort": 1000}


class Pod:
    """One incarnation (uid) of a pod. `live()` runs until the object may be, or has been, deleted."""

    def __init__(self, node: NodeContext, obj: Object) -> None:
        self.node = node
        self.object = obj
        self.uid: str = obj["metadata"]["uid"]
        self.directory = node.pods_dir / self.uid
        self.restart_policy: str = obj["spec"].get("restartPolicy", "Always")
        self.hostname = naming.hostname(obj)
        self.address = ""
        self.started = time.time()
        self.sandbox: Sandbox | None = None
        self.verdict: Verdict | None = None
        self.pause: tuple[Child, int] | None = None
        self.tokens = Tokens(node.client, obj)
        self.volumes = Volumes(
            obj, self.directory / "volumes", node.memory_dir / self.uid, node.references, self.tokens, self.facts
        )
        self.containers = self._containers()
        self._restore()
        self._ending = asyncio.Event()
        self._finished = False
        self._gone = asyncio.Event()
        self._dirty = asyncio.Event()
        self._changed = asyncio.Event()
        self._references = asyncio.Event()
        self._volumes_made = asyncio.Event()
        self._volumes_stale = asyncio.Event()
        self._sent: Object | None = None
        if obj["metadata"].get("deletionTimestamp"):
            self._ending.set()

    def _containers(self) -> list[Container]:
        spec = self.object["spec"]
        made = []
        for item in spec.get("initContainers") or ():
            kind = Kind.SIDECAR if item.get("restartPolicy") == "Always" else Kind.INIT
            made.append(Container(self, item, Record(item["name"], item["image"], kind)))
        made += [Container(self, item, Record(item["name"], item["image"], Kind.APP)) for item in spec["containers"]]
        if spec.get("initContainers"):
            for container in made:
                container.record.state = statuses.INITIALIZING
        return made

    def _restore(self) -> None:
        """Go on from what an earlier run of the agent wrote: its containers are gone, their counts are not."""
        status = self.object.get("status") or {}
        if status.get("startTime"):
            self.started = statuses.parse_time(status["startTime"])
        if self._is_over() and status.get("reason"):
            self.verdict = Verdict(status["reason"], status.get("message", ""))
        known = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
        by_name = {item["name"]: item for item in known}
        for container in self.containers:
            if item := by_name.get(container.record.name):
                # Whatever a pod that is over would do otherwise: its containers do not run again.
                policy = "Never" if self._is_over() else container.spec.get("restartPolicy") or self.restart_policy
                restore_record(container.record, item, policy)
        if self.restart_policy == "Never" and any(item.get("containerID") for item in known):
            # A pod that is never restarted and has lost its containers has ended, as after a reboot of a node.
            for container in self.containers:
                lose_record(container.record)
        for container in self.containers:
            container.done = isinstance(container.record.state, Terminated)

    # What others ask of it

    @property
    def title(self) -> str:
        """As kubelet names a pod in its messages."""
        metadata = self.object["metadata"]
        return f"{metadata['name']}_{metadata['namespace']}({self.uid})"

    @property
    def shm(self) -> Path:
        """The tmpfs that the pod's containers share as /dev/shm."""
        return self.directory / "shm"

    @property
    def facts(self) -> PodFacts:
        """What fields of the downward API need."""
        ips = (self.address,) if self.address else ()
        capacity = self.node.capacity
        return PodFacts(ips, str(self.node.settings.node_ip), Fraction(capacity.cpus), Fraction(capacity.memory_bytes))

    @property
    def oom_score(self) -> int:
        """Which pods the kernel ends first when memory runs out."""
        return _OOM_SCORES.get((self.object.get("status") or {}).get("qosClass", ""), 1000)

    def namespaces(self) -> dict[str, int]:
        """Descriptors for the spawner."""
        assert self.sandbox is not None
        shared = {"pid": self.pause[1]} if self.pause else {}
        return {**self.sandbox.fds(), **shared}

    def common_mounts(self) -> list[Mount]:
        """The files that every container of the pod gets."""
        names = ("hosts", "resolv.conf", "hostname")
        return [Mount(str(self.directory / "etc" / name), f"/etc/{name}") for name in names]

    def log_path(self, container: str, restarts: int) -> Path:
        """The log of one run."""
        return self.directory / container / f"{restarts}.log"

    def drop_old_logs(self, container: str, restarts: int) -> None:
        """Keep the present run's and the last one's."""
        for path in (self.directory / container).glob("*.log*"):
            if int(path.name.split(".")[0]) < restarts - 1:
                path.unlink(missing_ok=True)

    def grace_of(self, probe: Object | None) -> float:
        """Seconds that a container gets to end when the node ends it."""
        own = (probe or {}).get("terminationGracePeriodSeconds")
        value = own if own is not None else self.object["spec"].get("terminationGracePeriodSeconds")
        return float(value if value is not None else _DEFAULT_GRACE)

    def event(self, kind: str, reason: str, message: str, path: str = "") -> None:
        """About this pod."""
        self.node.recorder.pod_event(self.object, kind, reason, message, path)

    def container_changed(self) -> None:
        """A record is different: the status must follow, and the pod may be able to go on."""
        self._dirty.set()
        self._changed.set()

    async def references_changed(self) -> None:
        """Until some ConfigMap, Secret or Service of the namespace changes, or the pod ends."""
        self._references.clear()
        if not self._ending.is_set():
            await self._references.wait()

    # What the API says

    def update(self, obj: Object) -> None:
        """The object has changed."""
        old, self.object = self.object, obj
        self.tokens.pod = obj
        if obj["metadata"].get("deletionTimestamp"):
            self._ending.set()
            self._references.set()
        elif any(old["metadata"].get(key) != obj["metadata"].get(key) for key in ("labels", "annotations")):
            self._volumes_stale.set()
        self._dirty.set()

    def reference_changed(self, kind: str, name: str) -> None:
        """A ConfigMap or Secret of the pod's namespace is different."""
        if self.volumes.refers_to(kind, name):
            self._volumes_stale.set()
        if self._is_waiting():
            self._references.set()

    def _is_waiting(self) -> bool:
        return self.sandbox is None or any(isinstance(c.record.state, Waiting) for c in self.containers)

    def forget(self) -> None:
        """The object is gone from the API (deleted by force): end at once."""
        self._gone.set()
        self._ending.set()
        self._references.set()

    # Its life

    async def live(self) -> None:
        """From set-up to the deletion of the object."""
        try:
            self._dirty.set()
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write_statuses())
                await self._run(group)
                await self._ending.wait()
                writer.cancel()
            await self._delete()
        finally:
            for container in self.containers:
                container.kill_nowait()  # nothing is left to kill, unless a failure of ours has ended this method
            self._remove()

    async def _run(self, group: asyncio.TaskGroup) -> None:
        """Until all containers have ended, of themselves or because the pod must."""
        if self._is_over() or self._ending.is_set() or self._is_lost():
            self._finished = True
            return
        tasks: list[asyncio.Task[None]] = []
        events = [group.create_task(self._progress(group, tasks)), group.create_task(wait_for(self._ending))]
        if (seconds := self.object["spec"].get("activeDeadlineSeconds")) is not None:
            events.append(group.create_task(self._watch_deadline(seconds)))
        volumes = group.create_task(self._refresh_volumes())
        force = group.create_task(self._watch_force())
        await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
        for task in (*events, volumes):
            task.cancel()
        await self._stop_containers(tasks)
        force.cancel()
        self._release_sandbox()
        self._finished = True
        self._dirty.set()

    def _is_over(self) -> bool:
        return (self.object.get("status") or {}).get("phase") in ("Succeeded", "Failed")

    def _is_lost(self) -> bool:
        return all(container.done for container in self.containers)

    async def _progress(self, group: asyncio.TaskGroup, tasks: list[asyncio.Task[None]]) -> None:
        """Set up, start everything in its order, and wait for the end (of a pod that ends)."""
        await self._set_up()
        for container in self.containers:
            if container.done:
                continue
            tasks.append(group.create_task(container.supervise()))
            await self._wait_turn(container)
            if self._failed():
                return
        while not self._all_ended():
            self._changed.clear()
            await self._changed.wait()

    async def _wait_turn(self, container: Container) -> None:
        """Until the next container may start."""
        match container.record.kind:
            case Kind.APP:
                await container.launched.wait()
            case Kind.SIDECAR:
                await container.settled.wait()
            case Kind.INIT:
                while not container.done:
                    self._changed.clear()
                    await self._changed.wait()

    def _failed(self) -> bool:
        return any(
            container.done and container.record.kind is Kind.INIT and not container.record.succeeded
            for container in self.containers
        )

    def _all_ended(self) -> bool:
        return all(container.done for container in self.containers if container.record.kind is Kind.APP)

    async def _watch_force(self) -> None:
        await self._gone.wait()
        for container in self.containers:
            await container.kill()

    async def _watch_deadline(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, self.started + seconds - time.time()))
        message = "Pod was active on the node longer than the specified deadline"
        self.verdict = Verdict("DeadlineExceeded", message)
        self.event("Normal", "DeadlineExceeded", message)

    async def _stop_containers(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        """The containers at the same time, after them the sidecars, last one first, within one grace period."""
        grace = self._grace()
        deadline = time.monotonic() + grace
        async with asyncio.TaskGroup() as group:
            for container in self.containers:
                if container.record.kind is not Kind.SIDECAR:
                    group.create_task(container.stop(grace))
        for container in reversed(self.containers):
            if container.record.kind is Kind.SIDECAR:
                await container.stop(max(0.0, deadline - time.monotonic()))
        for task in tasks:
            await task

    def _grace(self) -> float:
        if self._gone.is_set():
            return 0.0
        seconds = self.object["metadata"].get("deletionGracePeriodSeconds")
        return float(seconds) if seconds is not None else self.grace_of(None)

    # Set-up and removal

    async def _set_up(self) -> None:
        self._make_directories()
        await self._make_network()
        self._write_names()
        self.volumes.facts = self.facts
        await self._make_volumes()
        if self.object["spec"].get("shareProcessNamespace"):
            self.pause = await self.node.spawner.pause()
        self._tell_differences()
        self._dirty.set()

    def _make_directories(self) -> None:
        for path in (self.directory, self.directory / "etc", self.shm):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)
        if not os.path.ismount(self.shm):
            syscalls.mount("tmpfs", str(self.shm), "tmpfs", options="mode=1777,size=64m")

    async def _make_network(self) -> None:
        spec = self.object["spec"]
        own = not spec.get("hostNetwork")
        wanted = {item["name"]: item["value"] for item in (spec.get("securityContext") or {}).get("sysctls") or ()}
        sysctls = {**(network.POD_SYSCTLS if own else {}), **wanted}
        hostname = self.hostname if own else self.node.settings.node_name
        while True:
            try:
                self.sandbox = await self.node.spawner.make_sandbox(hostname, network=own, sysctls=sysctls)
                break
            except SpawnError as error:
                self.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error.strerror}")
                await asyncio.sleep(_MOUNT_RETRY)
        self.address = self._connect() if own else str(self.node.settings.node_ip)

    def _connect(self) -> str:
        assert self.sandbox is not None
        address = self.node.addresses.take(self.uid)
        network.connect_pod(self.node.network, self.sandbox.net, address, self.node.settings.node_ip)
        return str(address)

    def _write_names(self) -> None:
        settings = self.node.settings
        files = {
            "hostname": f"{self.hostname}\n",
            "hosts": naming.hosts_file(self.object, self.address, settings.cluster_domain),
            "resolv.conf": naming.resolv_conf(
                self.object, self.node.resolv_conf, str(settings.cluster_dns), settings.cluster_domain
            ),
        }
        for name, text in files.items():
            path = self.directory / "etc" / name
            path.write_text(text)
            path.chmod(0o644)

    async def _make_volumes(self) -> None:
        began = time.monotonic()
        while True:
            try:
                await self.volumes.prepare()
                self._volumes_made.set()
                return
            except (VolumeError, ApiError, aiohttp.ClientError, OSError) as error:
                patient = time.monotonic() - began < _MOUNT_PATIENCE
                if not patient:
                    self.event("Warning", "FailedMount", str(error))
            await self._wait_references(0.2 if patient else _MOUNT_RETRY)

    async def _wait_references(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.references_changed()
        except TimeoutError:
            return

    async def _refresh_volumes(self) -> None:
        """Follow the objects that volumes are made of, and renew tokens."""
        await self._volumes_made.wait()
        while True:
            renew_at = self.tokens.renew_at()
            try:
                async with asyncio.timeout(None if renew_at is None else max(_RETRY, renew_at - time.monotonic())):
                    await self._volumes_stale.wait()
            except TimeoutError:
                pass  # a token is due
            self._volumes_stale.clear()
            try:
                self.volumes.pod = self.object
                await self.volumes.refresh()
            except (ApiError, aiohttp.ClientError, OSError) as error:
                log.warning("volumes of %s are not up to date: %s", self.title, error)
                self._volumes_stale.set()
                await asyncio.sleep(_MOUNT_RETRY)

    def _tell_differences(self) -> None:
        """Where the pod gets less than another node would give it, it is told so, never silently."""
        limited = [c.spec for c in self.containers if (c.spec.get("resources") or {}).get("limits")]
        if limited:
            names = ", ".join(item["name"] for item in limited)
            message = f"The embedded cluster does not enforce the limits of cpu and memory of: {names}"
            self.event("Normal", "LimitsNotEnforced", message)
        if ignored := ignored_fields(self.object["spec"]):
            message = f"The embedded cluster's node does not know, and ignores: {', '.join(ignored)}"
            self.event("Warning", "NotSupported", message)

    def _release_sandbox(self) -> None:
        if self.pause is not None:
            os.close(self.pause[1])
            self.node.spawner.kill_nowait(self.pause[0])
            self.pause = None
        if self.sandbox is not None:
            self.sandbox.close()
            self.sandbox = None
            if not self.object["spec"].get("hostNetwork"):
                self._disconnect()

    def _disconnect(self) -> None:
        address = network.IPv4Address(self.address)
        network.disconnect_pod(address)
        self.node.addresses.release(address)

    def _remove(self) -> None:
        self._release_sandbox()
        self.volumes.remove()
        if os.path.ismount(self.shm):
            syscalls.unmount(str(self.shm))
        shutil.rmtree(self.directory, ignore_errors=True)

    async def _delete(self) -> None:
        """The node's last word: with grace period 0 the API server removes the object."""
        metadata = self.object["metadata"]
        while not self._gone.is_set():
            try:
                await self._write_last_status()
                await self.node.client.delete(
                    resources.PODS, metadata["name"], metadata["namespace"], grace_period_seconds=0, uid=self.uid
                )
                return
            except (NotFound, Conflict):
                return
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("pod %s cannot be deleted yet: %s", self.title, error)
                await asyncio.sleep(_RETRY)

    # Its status

    async def _write_statuses(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(_STATUS_DELAY)
            self._dirty.clear()
            try:
                await self._write_status()
            except (NotFound, Conflict):
                return  # the object is gone, or another one has its name: the watch tells
            except Invalid as error:
                log.error("status of %s is refused: %s", self.title, error)
            except (ApiError, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("status of %s was not written: %s", self.title, error)
                await asyncio.sleep(_RETRY)
                self._dirty.set()

    async def _write_last_status(self) -> None:
        try:
            await self._write_status()
        except Invalid as error:
            log.error("last status of %s is refused: %s", self.title, error)

    async def _write_status(self) -> None:
        status = self.status()
        if status == self._sent:
            return
        metadata = self.object["metadata"]
        body = {"metadata": {"uid": self.uid}, "status": status}
        await self.node.client.patch(
            resources.PODS,
            metadata["name"],
            body,
            metadata["namespace"],
            content_type=STRATEGIC_MERGE_PATCH,
            subresource="status",
        )
        self._sent = status

    def status(self) -> Object:
        """The status as it is now."""
        records = [container.record for container in self.containers]
        phase = statuses.compute_phase(records, self.restart_policy, self.verdict)
        if self._is_over():
            phase = self.object["status"]["phase"]
        elif self._finished:
            phase = statuses.final_phase(records, phase)
        status: Object = {
            "phase": phase,
            "reason": self.verdict.reason if self.verdict else None,
            "message": self.verdict.message if self.verdict else None,
            "startTime": statuses.format_time(self.started),
            "hostIP": str(self.node.settings.node_ip),
            "hostIPs": _replaced([{"ip": str(self.node.settings.node_ip)}]),
            "conditions": self._conditions(records, phase),
            "containerStatuses": self._container_statuses(Kind.APP),
        }
        if generation := self.object["metadata"].get("generation"):
            status["observedGeneration"] = generation
        if self.object["spec"].get("initContainers"):
            status["initContainerStatuses"] = self._container_statuses(Kind.INIT, Kind.SIDECAR)
        if self.address:
            status |= {"podIP": self.address, "podIPs": _replaced([{"ip": self.address}])}
        return status

    def _container_statuses(self, *kinds: Kind) -> list[Object]:
        records = [container.record for container in self.containers if container.record.kind in kinds]
        return [statuses.container_status(shown_record(record, self.restart_policy)) for record in records]

    def _conditions(self, records: list[Record], phase: str) -> list[Object]:
        present = {item["type"]: item for item in (self.object.get("status") or {}).get("conditions") or ()}
        gates = [gate["conditionType"] for gate in self.object["spec"].get("readinessGates") or ()]
        computed = statuses.compute_conditions(
            records, phase, sandbox=self.sandbox is not None and bool(self.address), gates=gates, present=present
        )
        if self._sent is not None:
            present |= {item["type"]: item for item in self._sent["conditions"]}
        return statuses.with_times(computed, present, time.time())


def _replaced(items: list[Object]) -> list[Object]:
    """A list that a strategic merge patch puts in the place of the old one, where it would merge by key."""
    return [{"$patch": "replace"}, *items]


def ignored_fields(spec: Object) -> list[str]:
    """What a pod asks for and this node does not do."""
    containers = (*(spec.get("initContainers") or ()), *spec["containers"])
    host_ports = any(port.get("hostPort") for item in containers for port in item.get("ports") or ())
    ports = ["hostPort"] if host_ports and not spec.get("hostNetwork") else []
    return [*(name for name in ("hostPID", "hostIPC", "runtimeClassName") if spec.get(name)), *ports]


async def wait_for(event: asyncio.Event) -> None:
    """`event.wait()` without its result."""
    await event.wait()


def restore_record(record: Record, status: Object, restart_policy: str) -> None:
    """Take over what an earlier agent wrote about a container whose process is gone."""
    record.restarts = status.get("restartCount", 0)
    record.container_id = status.get("containerID", "")
    record.image_id = status.get("imageID", "")
    ended = statuses.parse_terminated(status.get("state") or {})
    before = statuses.parse_terminated(status.get("lastState") or {})
    running = (status.get("state") or {}).get("running")
    if running:
        began = statuses.parse_time(running["startedAt"])
        ended = Terminated(255, "Unknown", began, time.time(), record.container_id)
    record.last = before
    if ended is None:
        return
    completed = restart_policy == "OnFailure" and ended.exit_code == 0 and record.kind is Kind.APP
    if restart_policy == "Never" or completed:
        record.state = ended
        return
    record.last = ended
    record.restarts += 1


def lose_record(record: Record) -> None:
    """The container of a pod that ended with an earlier agent: what had not ended is not known any more."""
    if not isinstance(record.state, Terminated):
        message = "The container could not be located when the pod was terminated"
        record.state = record.last or Terminated(137, "ContainerStatusUnknown", None, None, message=message)


def shown_record(record: Record, restart_policy: str) -> Record:
    """The record as the API takes it: a completed init container that runs again, because a restarted agent had to
    make the pod's network anew, may not be shown as running when its pod is not of the kind that restarts."""
    rerun = record.kind is Kind.INIT and record.last is not None and record.last.exit_code == 0
    if rerun and restart_policy != "Always" and not isinstance(record.state, Terminated) and record.last:
        return replace(record, state=record.last)
    return record
