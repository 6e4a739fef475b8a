"""The cluster's first process: `python -m linkerd.cluster.engine.init JSON`, inside new namespaces.

It is PID 1 in there, so all that runs ends with it, however it ends. It starts the components one after the other,
keeps them running, relays the API to the host, and tells the command that started it how far it has come: JSON lines
on the report descriptor (`reporting.py`), which is closed when the cluster is ready or has failed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from linkerd.cluster.engine import inside
from linkerd.cluster.engine import settings as names
from linkerd.cluster.engine.components import Component, components
from linkerd.cluster.engine.logfiles import LogFile
from linkerd.cluster.engine.relay import Relay
from linkerd.cluster.engine.reporting import Report, StartFailed
from linkerd.cluster.engine.settings import Settings, settings_from
from linkerd.cluster.engine.state import Instance, write_instance
from linkerd.cluster.engine.supervising import Children, Supervised, Supervisor
from linkerd.kit.logging import configure

log = logging.getLogger(__name__)

ETCD_SECONDS = 30.0
API_SECONDS = 90.0
_POLL = 0.05


class FirstProcess:
    """The whole of one running cluster."""

    def __init__(self, config: Settings, host_pid: int, listener: socket.socket, report: Report) -> None:
        self._config = config
        self._host_pid = host_pid
        self._listener = listener
        self._report = report
        self._started = time.time()
        self._ready = False
        self._failure: StartFailed | None = None
        self._tls = ssl.create_default_context(cafile=str(config.pki / "ca.crt"))
        self._stopping = asyncio.Event()
        self._children = Children()
        self._supervisor = Supervisor(self._children, component_environment(config), self._write_state)

    async def run(self) -> int:
        """Until a signal asks for the end, or the start fails; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._children.install()
        self._write_state()
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(self._start_or_fail(group))
            await self._stopping.wait()
            starting.cancel()
            await self._end()
        if self._failure is not None:
            self._report.failed(self._failure)
            return 1
        log.info("ended")
        return 0

    async def _start_or_fail(self, group: asyncio.TaskGroup) -> None:
        try:
            await self._start(group)
        except StartFailed as failure:
            log.error("the start failed: %s", failure)
            self._failure = failure
            self._stopping.set()

    async def _start(self, group: asyncio.TaskGroup) -> None:
        etcd, apiserver, *others = components(self._config)
        self._report.step("starting etcd")
        await self._start_needed(group, etcd, _etcd_is_ready, ETCD_SECONDS)
        self._report.step("starting the API server")
        await self._start_needed(group, apiserver, self._api_is_ready, API_SECONDS)
        for component in others:
            self._add(group, component)
        await Relay(group, (names.NODE_IP, names.API_PORT)).serve(self._listener)
        self._ready = True
        self._write_state()
        log.info("the API is ready")
        self._report.ready()

    async def _start_needed(
        self, group: asyncio.TaskGroup, component: Component, is_ready: Callable[[], Awaitable[bool]], seconds: float
    ) -> None:
        """Start what the rest cannot do without. Raises StartFailed when it dies or is not ready in time."""
        member = self._add(group, component)
        try:
            async with asyncio.timeout(seconds):
                while not await is_ready():
                    if member.died.is_set():
                        raise StartFailed(component.name, member.last_exit)
                    await asyncio.sleep(_POLL)
        except TimeoutError as error:
            raise StartFailed(component.name, f"was not ready within {seconds:.0f} s") from error

    def _add(self, group: asyncio.TaskGroup, component: Component) -> Supervised:
        log_file = LogFile(self._config.logs / f"{component.name}.log")
        return self._supervisor.add(group, component, log_file)

    async def _api_is_ready(self) -> bool:
        return await answers_ok(names.NODE_IP, names.API_PORT, "/readyz", self._tls)

    async def _end(self) -> None:
        """In the opposite order of the start; etcd, which has something to lose, when nobody writes any more."""
        self._ready = False
        for component in reversed(components(self._config)):
            await self._supervisor.stop(component.name)

    def _write_state(self) -> None:
        members = tuple(member.description() for member in self._supervisor.members.values())
        instance = Instance(self._host_pid, self._config.port, self._started, self._ready, members)
        try:
            write_instance(self._config, instance)
        except OSError as error:
            # Nothing depends on it but what `status` shows; a full disk must not end the cluster.
            log.warning("cannot write the state of the components: %s", error)


async def _etcd_is_ready() -> bool:
    return await answers_ok("127.0.0.1", 2379, "/health", None)


async def answers_ok(host: str, port: int, path: str, tls: ssl.SSLContext | None) -> bool:
    """Whether GET of the path is answered with 200 right now."""
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    except OSError:
        return False
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        status = await reader.readline()
        return status.split(b" ")[1:2] == [b"200"]
    except OSError:
        return False
    finally:
        writer.transport.abort()


def component_environment(config: Settings) -> dict[str, str]:
    """What the components see of the environment of whoever typed the command: next to nothing."""
    path = os.pathsep.join(
        [str(config.bin_dir), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    )
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    return kept | {"PATH": path, "HOME": "/root", "PYTHONUNBUFFERED": "1"}


def main(arguments: Sequence[str]) -> int:
    """`arguments`: a JSON object, as `launching` writes it."""
    # /proc is still the host's here, so its `self` is our pid as the host sees it.
    host_pid = int(os.readlink("/proc/self"))
    values = json.loads(arguments[0])
    config = settings_from(values["settings"])
    report = Report(values["report_fd"])
    listener = socket.socket(fileno=values["listen_fd"])
    for descriptor in (values["report_fd"], values["listen_fd"], values["lock_fd"]):
        os.set_inheritable(descriptor, False)
    configure("info")
    # Who became root by `su` may have a PATH without the administrators' programs.
    os.environ["PATH"] = component_environment(config)["PATH"]
    try:
        inside.set_up_process()
        inside.set_up_mounts()
        inside.set_up_network()
    except OSError as error:
        log.error("cannot set up the namespaces: %s", error)
        report.failed(StartFailed("engine", f"cannot set up the cluster's namespaces: {error}"))
        return 1
    listener.setblocking(False)
    return asyncio.run(FirstProcess(config, host_pid, listener, report).run())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
