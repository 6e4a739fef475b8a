"""The paths of kubelet's API that this node serves, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. `container` is empty for port-forward, `uid` unless the path pins a pod's incarnation."""

    namespace: str
    pod: str
    container: str = ""
    uid: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """The first word of a path and what follows it."""

    name: str
    target: Target | None = None


_PLAIN = {
    "/healthz": "healthz",
    "/healthz/ping": "healthz",
    "/healthz/log": "healthz",
    "/healthz/syncloop": "healthz",
    "/pods": "pods",
    "/runningpods": "runningpods",
    "/metrics": "metrics",
    "/metrics/resource": "metrics/resource",
    "/metrics/cadvisor": "metrics/cadvisor",
    "/metrics/probes": "metrics/probes",
    "/stats/summary": "stats/summary",
}


def parse_route(path: str) -> Route | None:
    """None for a path that is not served."""
    if (plain := _PLAIN.get(path.rstrip("/"))) is not None:
        return Route(plain)
    parts = path.strip("/").split("/")
    if not all(parts):
        return None
    match parts:
        case [("exec" | "attach") as name, namespace, pod, container]:
            return Route(name, Target(namespace, pod, container))
        case [("exec" | "attach") as name, namespace, pod, uid, container]:
            return Route(name, Target(namespace, pod, container, uid))
        case ["portForward", namespace, pod]:
            return Route("portForward", Target(namespace, pod))
        case ["portForward", namespace, pod, uid]:
            return Route("portForward", Target(namespace, pod, uid=uid))
        case ["containerLogs", namespace, pod, container]:
            return Route("containerLogs", Target(namespace, pod, container))
        case _:
            return None
