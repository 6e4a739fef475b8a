"""Runs the rig's clients in a pod, and reads what it costs the sidecars meanwhile."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from .lab import Lab
from .peers import Deployment
from .reading import cpu_seconds


@dataclass(frozen=True)
class Load:
    protocol: str = "h1"
    connections: int = 50
    streams: int = 1
    rate: float | None = None
    body_bytes: int = 0
    seconds: float = 3
    warm_up: float = 1


@dataclass(frozen=True)
class Result:
    """What the client saw, and the seconds of CPU that each sidecar used."""

    told: dict
    cpu: tuple[float, ...]

    @property
    def requests(self) -> int:
        return self.told["requests"]

    @property
    def rate(self) -> float:
        return self.requests / self.told["seconds"]

    @property
    def micros(self) -> tuple[float, ...]:
        """CPU per request and sidecar."""
        return tuple(used / self.requests * 1e6 for used in self.cpu)


def run(lab: Lab, deployment: Deployment, load: Load) -> Result:
    options = {name: value for name, value in vars(load).items() if value is not None}
    result = _measured(deployment, lab.rig("load", addr=deployment.target, **options))
    if not result.requests or result.told["errors"] > result.requests // 1000:
        raise RuntimeError(f"{deployment.name}: requests failed: {result.told}")
    return result


def stream(lab: Lab, deployment: Deployment, connections: int, seconds: float) -> Result:
    options = {"connections": connections, "seconds": seconds, "warm_up": 0.5}
    return _measured(deployment, lab.rig("stream", addr=deployment.target, **options))


def _measured(deployment: Deployment, argv: list[str]) -> Result:
    process = deployment.pair.client.talk(argv)
    assert process.stdout
    _expect(process.stdout.readline(), deployment)
    before = [cpu_seconds(pid) for pid in deployment.sidecars]
    told = process.stdout.readline()
    after = [cpu_seconds(pid) for pid in deployment.sidecars]
    process.wait()
    if not told:
        raise RuntimeError(f"{deployment.name}: the client ended with {process.returncode}")
    return Result(json.loads(told), tuple(b - a for a, b in zip(before, after, strict=True)))


@contextlib.contextmanager
def idle_connections(lab: Lab, deployment: Deployment, connections: int) -> Iterator[None]:
    process = deployment.pair.client.talk(lab.rig("idle", addr=deployment.target, connections=connections))
    assert process.stdout
    _expect(process.stdout.readline(), deployment)
    yield
    assert process.stdin
    process.stdin.close()
    process.wait()


@contextlib.contextmanager
def tapped(lab: Lab, deployment: Deployment, tap: list[str]) -> Iterator[None]:
    process = deployment.pair.client.talk(tap)
    assert process.stdout
    _expect(process.stdout.readline(), deployment)
    yield
    if process.poll() is not None:
        raise RuntimeError("the tap ended too early")
    process.kill()
    process.wait()


def _expect(line: str, deployment: Deployment) -> None:
    if line != "begin\n":
        pods = (deployment.pair.client, deployment.pair.server)
        said = "\n".join(log.read_text()[-1000:] for pod in pods for log in pod.logs)
        raise RuntimeError(f"{deployment.name}: the client did not begin\n{said}")
