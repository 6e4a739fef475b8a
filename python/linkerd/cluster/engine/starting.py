"""`linkerd cluster start`, step by step, for a command to show: everything that can go wrong ends as a `StartError`.

A start that fails, or is interrupted, ends what it has begun.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import aiohttp

from linkerd.cluster.engine import launching, logfiles, prerequisites, settings, state
from linkerd.cluster.engine.addons import apply_addons, manifests, resource_of
from linkerd.cluster.engine.reporting import StartFailed
from linkerd.cluster.engine.settings import Settings
from linkerd.cluster.engine.state import StateError
from linkerd.k8s import resources
from linkerd.k8s.client import Client, Object
from linkerd.k8s.errors import ApiError, NotFound

NODE_SECONDS = 60.0
MOST_RESTARTS = 3
"""Of the node agent during a start."""
ADDON_SECONDS = 30.0
TAIL_LINES = 10


class StartError(Exception):
    """The cluster was not started; `hint` is what to try, `log_lines` the last words of whoever failed."""

    def __init__(self, message: str, hint: str, log_lines: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.log_lines = log_lines


@dataclass(frozen=True, slots=True)
class Started:
    """`already`: it ran before we came."""

    already: bool


def start(config: Settings, progress: Callable[[str], None]) -> Started:
    """Bring the cluster up and wait until its node is ready. `progress` hears each step. Raises StartError."""
    try:
        if _runs_already(config):
            return _complete(config, progress)
        prerequisites.check(config, progress)
        state.prepare(config)
        lock_fd = _take_lock(config)
        if lock_fd is None and _runs_already(config):
            return _complete(config, progress)
        if lock_fd is None:
            raise StartError("another start has just failed or is being ended", "try again in a moment")
        try:
            _launch_and_wait(config, lock_fd, progress)
        finally:
            os.close(lock_fd)
    except (prerequisites.Missing, StateError) as error:
        raise StartError(str(error), error.hint) from error
    return Started(already=False)


def _runs_already(config: Settings) -> bool:
    """Raises StartError when it runs on another port than the one that is asked for."""
    try:
        instance = state.running_instance(config)
    except PermissionError:
        # Not ours to read: the prerequisites say it better.
        return False
    if instance is None:
        return False
    if instance.port != config.port:
        raise StartError(
            f"another instance runs with the state directory {config.state_dir}, on port {instance.port}",
            f"use it with `--port {instance.port}`, stop it with `linkerd cluster stop`, "
            "or choose another `--state-dir`",
        )
    return True


def _complete(config: Settings, progress: Callable[[str], None]) -> Started:
    """A start that was killed leaves a cluster without its add-ons: the next one goes on where it ended."""
    try:
        asyncio.run(_finish_if_needed(config, progress))
    except StartFailed as error:
        raise _explained(config, error) from error
    return Started(already=True)


async def _finish_if_needed(config: Settings, progress: Callable[[str], None]) -> None:
    async with Client.load(str(config.kubeconfig)) as client:
        try:
            *_, last = manifests(config)
            await client.get(resource_of(last), last["metadata"]["name"])
        except (ApiError, aiohttp.ClientError):
            await _finish(config, 0.0, progress)


def _take_lock(config: Settings) -> int | None:
    """None when another start was faster. A `status` that is just looking holds the lock only for a moment."""
    deadline = time.monotonic() + 1.0
    while (descriptor := state.lock(config)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return descriptor


def _launch_and_wait(config: Settings, lock_fd: int, progress: Callable[[str], None]) -> None:
    with _listen(config) as listener:
        progress("preparing keys and configuration")
        launching.write_configuration(config)
        try:
            launched = launching.launch(config, listener, lock_fd)
        except OSError as error:
            raise StartError(f"the cluster's first process cannot be made: {error}", "see `dmesg`") from error
    began = time.time()
    try:
        for step in launched.steps():
            progress(step)
        asyncio.run(_finish(config, began, progress))
    except BaseException as error:
        progress("cleaning up")
        launching.end_process(launched.pid, seconds=launching.STOP_SECONDS)
        if isinstance(error, StartFailed):
            raise _explained(config, error) from error
        raise


def _listen(config: Settings) -> socket.socket:
    try:
        return launching.listen(config.port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise StartError(f"cannot listen on 127.0.0.1:{config.port}: {error.strerror}", "use `--port`") from error
        raise StartError(
            f"port {config.port} of 127.0.0.1 is taken by another program",
            f"choose another one with `--port`, or see who has it: `ss -ltnp 'sport = :{config.port}'`",
        ) from error


def _explained(config: Settings, failure: StartFailed) -> StartError:
    whole = logfiles.tail(config.logs / f"{failure.component}.log", 10 * TAIL_LINES)
    lines = tuple(logfiles.without_stacks(whole)[-TAIL_LINES:])
    text = "\n".join(lines)
    if "no space left on device" in text.lower():
        hint = f"the disk of {config.state_dir} is full: free some space there"
    elif failure.component == "etcd":
        hint = "the state may be damaged: " + state.RESET_HINT.format(config.state_dir)
    else:
        hint = f"see `linkerd cluster logs {failure.component} --state-dir {config.state_dir}`"
    return StartError(f"the cluster did not start: {failure}", hint, lines)


async def _finish(config: Settings, began: float, progress: Callable[[str], None]) -> None:
    """What is done through the API once it answers. Raises StartFailed."""
    async with Client.load(str(config.kubeconfig)) as client:
        progress("installing CoreDNS and metrics-server")
        await _apply(client, config)
        progress("waiting for the node to be ready")
        await _wait_node(client, config, began)


async def _apply(client: Client, config: Settings) -> None:
    """Repeated for a while: the API server is ready before its default namespaces and roles are all there."""
    last: Exception | None = None
    try:
        async with asyncio.timeout(ADDON_SECONDS):
            while True:
                try:
                    await apply_addons(client, config)
                    return
                except (ApiError, aiohttp.ClientError) as error:
                    last = error
                    await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise StartFailed("kube-apiserver", f"did not take the add-ons: {last}") from error


async def _wait_node(client: Client, config: Settings, began: float) -> None:
    try:
        async with asyncio.timeout(NODE_SECONDS):
            while not await _node_is_ready(client, began):
                _check_agent(config)
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise StartFailed("node-agent", f"did not make the node ready within {NODE_SECONDS:.0f} s") from error


def _check_agent(config: Settings) -> None:
    """Not worth waiting for one that dies again and again."""
    for component in state.read_instance(config).components:
        if component.name == "node-agent" and component.restarts >= MOST_RESTARTS:
            raise StartFailed("node-agent", "ends again and again")


async def _node_is_ready(client: Client, began: float) -> bool:
    try:
        node = await client.get(resources.NODES, settings.NODE_NAME)
    except NotFound:
        return False
    return is_ready(node, began)


def is_ready(node: Object, since: float = 0.0) -> bool:
    """What the node's own condition says, if it was said since then (Unix time): a node that was just stopped is
    still called ready for a while."""
    for condition in node.get("status", {}).get("conditions") or []:
        if condition["type"] == "Ready":
            heard = datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp()
            return condition["status"] == "True" and heard >= int(since)
    return False
