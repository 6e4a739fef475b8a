"""Containers without a cluster: the spawner, a root made of the host's, and the network of a pod. Needs root."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from linkerd.cluster.node import syscalls
from linkerd.cluster.node.context import detach, read_host_root
from linkerd.cluster.node.rootfs import Mount, Node, plan_root
from linkerd.cluster.node.spawning import Child, Command, Sandbox, Spawner

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
CLONE = Path(__file__).resolve().parents[4]


@dataclass
class Rig:
    """Starts containers in one sandbox and reads what they print."""

    spawner: Spawner
    sandbox: Sandbox
    node: Node
    shm: Path
    mounts: list[Mount] = field(default_factory=list)
    readonly: bool = False
    command: Command = field(
        default_factory=lambda: Command(
            argv=(),
            env={"PATH": PATH},
            cwd="/",
            uid=0,
            gid=0,
            groups=(),
            capabilities=(),
            no_new_privileges=False,
        )
    )

    def script(self, text: str) -> Command:
        return replace(self.command, argv=("/bin/sh", "-c", text))

    async def start(self, command: Command, output: int, inside: Child | None = None) -> Child:
        null = os.open("/dev/null", os.O_RDWR)
        fds = {} if command.tty else {"stdin": null, "stdout": output, "stderr": output}
        try:
            if inside is not None:
                return await self.spawner.start_exec(inside, command, fds)
            plan = plan_root(
                self.node,
                overlay=None,
                shm=str(self.shm),
                mounts=self.mounts,
                cwd=command.cwd,
                readonly=self.readonly,
            )
            namespaces = self.sandbox.fds()
            return await self.spawner.start_container(
                command, {**fds, **namespaces}, root=plan.to_json(), privileged=False, oom_score=1000
            )
        finally:
            os.close(null)

    async def run(self, command: Command, inside: Child | None = None) -> tuple[int, str]:
        """Exit code and output."""
        output = os.memfd_create("output")
        try:
            child = await self.start(command, output, inside)
            ended = await child.wait()
            if child.master is not None:
                text = os.read(child.master, 65536)
                os.close(child.master)
            else:
                text = os.pread(output, 1 << 20, 0)
            return ended.status, text.decode()
        finally:
            os.close(output)

    async def sleeping(self) -> Child:
        """A container that stays."""
        null = os.open("/dev/null", os.O_RDWR)
        try:
            return await self.start(self.script("sleep 100 & exec sleep 100"), null)
        finally:
            os.close(null)


@pytest.fixture
def shm(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "state/pods/u/shm"
    path.mkdir(parents=True)
    syscalls.mount("tmpfs", str(path), "tmpfs")
    yield path
    detach(str(path))


@pytest.fixture
async def rig(tmp_path: Path, shm: Path) -> AsyncIterator[Rig]:
    state = tmp_path / "state"
    (state / "run/root").mkdir(parents=True)
    node = Node(read_host_root(), str(state), str(state / "run/root"), (str(CLONE),))
    spawner = Spawner.start()
    running = asyncio.ensure_future(spawner.run())
    sandbox = await spawner.make_sandbox("pod-1", network=True, sysctls={"net.ipv4.ip_unprivileged_port_start": "0"})
    yield Rig(spawner, sandbox, node, shm)
    running.cancel()
    sandbox.close()
    spawner.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="namespaces of containers need root"))
