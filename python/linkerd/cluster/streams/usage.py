"""The node's usage as others read it: metrics-server (`/metrics/resource`), Prometheus, `/stats/summary`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from linkerd.cluster.node.api import ContainerUsage, NodeUsage, PodUsage, Stats

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"

_LEAST_CPU = 1e-6
"""Seconds of a container whose use is still less than the kernel's tick. Metrics-server takes 0 for "not measured"
and would leave out the whole pod."""

_Sample = tuple[dict[str, str], float]


def render_resource_metrics(stats: Stats) -> str:
    """Kubelet's resource metrics; each sample of a usage carries the time of the reading, in milliseconds."""
    node, at = stats.node, stats.time
    containers = [(pod, container) for pod in stats.pods for container in pod.containers]
    cpu = [(_labels(pod, container), max(container.cpu_seconds, _LEAST_CPU)) for pod, container in containers]
    memory = [(_labels(pod, container), float(container.memory_bytes)) for pod, container in containers]
    started = [(_labels(pod, container), container.started.timestamp()) for pod, container in containers]
    pod_cpu = [(_labels(pod), _cpu_seconds(pod)) for pod in stats.pods]
    pod_memory = [(_labels(pod), float(_memory_bytes(pod))) for pod in stats.pods]
    families: list[Iterable[str]] = [
        _counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container", cpu, at),
        _gauge("container_memory_working_set_bytes", "Current working set of the container in bytes", memory, at),
        _gauge("container_start_time_seconds", "Start time of the container since unix epoch in seconds", started),
        _counter("node_cpu_usage_seconds_total", "Cumulative cpu time of the node", [({}, node.cpu_seconds)], at),
        _gauge("node_memory_working_set_bytes", "Working set of the node", [({}, float(node.memory_bytes))], at),
        _counter("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod", pod_cpu, at),
        _gauge("pod_memory_working_set_bytes", "Current working set of the pod in bytes", pod_memory, at),
        _gauge("resource_scrape_error", "1 if there was an error while getting container metrics", [({}, 0.0)]),
    ]
    return _text(families)


def render_container_metrics(stats: Stats) -> str:
    """The part of cAdvisor's metrics that dashboards and Linkerd's Prometheus look at."""
    at = stats.time
    pairs = [(pod, container) for pod in stats.pods for container in pod.containers]
    cpu = [(_labels(pod, container) | {"cpu": "total"}, container.cpu_seconds) for pod, container in pairs]
    memory = [(_labels(pod, container), float(container.memory_bytes)) for pod, container in pairs]
    return _text(
        [
            _counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds", cpu, at),
            _gauge("container_memory_usage_bytes", "Current memory usage in bytes", memory, at),
            _gauge("container_memory_working_set_bytes", "Current working set in bytes", memory, at),
        ]
    )


def summary_of(stats: Stats, earlier: Stats | None) -> dict[str, Any]:
    """Kubelet's Summary. `usageNanoCores` is the rate between the two readings, absent without an earlier one."""
    before = _Earlier(earlier)
    seconds = (stats.time - earlier.time).total_seconds() if earlier else 0.0
    return {
        "node": {
            "nodeName": stats.node.name,
            "startTime": _rfc3339(stats.node.started),
            "cpu": _cpu(stats.time, stats.node.cpu_seconds, before.node(stats.node), seconds),
            "memory": _memory(stats.time, stats.node.memory_bytes)
            | {"availableBytes": stats.node.memory_available_bytes},
        },
        "pods": [_pod_summary(stats.time, pod, before, seconds) for pod in stats.pods],
    }


class _Earlier:
    """CPU seconds of the reading before, for those who ran then and have not restarted since."""

    def __init__(self, stats: Stats | None) -> None:
        self._node = stats.node if stats else None
        self._containers = {
            (pod.uid, container.name, container.started): container.cpu_seconds
            for pod in (stats.pods if stats else ())
            for container in pod.containers
        }

    def node(self, node: NodeUsage) -> float | None:
        return self._node.cpu_seconds if self._node and self._node.started == node.started else None

    def container(self, pod: PodUsage, container: ContainerUsage) -> float | None:
        return self._containers.get((pod.uid, container.name, container.started))


def _pod_summary(at: datetime, pod: PodUsage, before: _Earlier, seconds: float) -> dict[str, Any]:
    earlier = [before.container(pod, container) for container in pod.containers]
    known = [value for value in earlier if value is not None]
    pod_before = sum(known) if len(known) == len(earlier) else None
    return {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": _rfc3339(pod.started),
        "containers": [
            {
                "name": container.name,
                "startTime": _rfc3339(container.started),
                "cpu": _cpu(at, container.cpu_seconds, value, seconds),
                "memory": _memory(at, container.memory_bytes),
            }
            for container, value in zip(pod.containers, earlier, strict=True)
        ],
        "cpu": _cpu(at, _cpu_seconds(pod), pod_before, seconds),
        "memory": _memory(at, _memory_bytes(pod)),
    }


def _cpu(at: datetime, total: float, before: float | None, seconds: float) -> dict[str, Any]:
    usage: dict[str, Any] = {"time": _rfc3339(at), "usageCoreNanoSeconds": round(total * 1e9)}
    if before is not None and seconds > 0:
        usage["usageNanoCores"] = round(max(0.0, total - before) / seconds * 1e9)
    return usage


def _memory(at: datetime, used: int) -> dict[str, Any]:
    return {"time": _rfc3339(at), "usageBytes": used, "workingSetBytes": used}


def _cpu_seconds(pod: PodUsage) -> float:
    return sum(container.cpu_seconds for container in pod.containers)


def _memory_bytes(pod: PodUsage) -> int:
    return sum(container.memory_bytes for container in pod.containers)


def _rfc3339(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def _labels(pod: PodUsage, container: ContainerUsage | None = None) -> dict[str, str]:
    labels = {"container": container.name} if container else {}
    return labels | {"namespace": pod.namespace, "pod": pod.name}


def _counter(name: str, about: str, samples: Iterable[_Sample], at: datetime | None = None) -> Iterator[str]:
    return _family(name, "counter", about, samples, at)


def _gauge(name: str, about: str, samples: Iterable[_Sample], at: datetime | None = None) -> Iterator[str]:
    return _family(name, "gauge", about, samples, at)


def _family(name: str, kind: str, about: str, samples: Iterable[_Sample], at: datetime | None) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    moment = f" {round(at.timestamp() * 1000)}" if at else ""
    for labels, value in samples:
        # Names of Kubernetes objects are DNS labels: there is nothing in them to escape.
        shown = ",".join(f'{key}="{text}"' for key, text in labels.items())
        yield f"{name}{{{shown}}} {value!r}{moment}" if shown else f"{name} {value!r}{moment}"


def _text(families: Iterable[Iterable[str]]) -> str:
    return "".join(f"{line}\n" for family in families for line in family)
