"""The pods as `ListPods` tells them. Pure but for the time, which is passed in."""

from __future__ import annotations

from collections.abc import Mapping

from linkerd.proto import viz_pb2 as pb
from linkerd.viz.index import Pod, PodIndex
from linkerd.viz.metrics.summary import Key

_OWNER_FIELDS = {
    "deployment": "deployment",
    "replicaset": "replica_set",
    "replicationcontroller": "replication_controller",
    "statefulset": "stateful_set",
    "daemonset": "daemon_set",
    "job": "job",
    "cronjob": "job",
}


def pod_message(pod: Pod, index: PodIndex, control_plane: str, started: Mapping[Key, float], now: float) -> pb.Pod:
    """`started` holds, by pod, when the proxies started that Prometheus scrapes (seconds since the epoch)."""
    message = pb.Pod(
        name=f"{pod.namespace}/{pod.name}",
        podIP=pod.ip,
        status=_phase(pod),
        controllerNamespace=pod.control_plane,
        controlPlane=bool(pod.component) and pod.namespace == control_plane,
        proxyReady=pod.proxy_ready,
        proxyVersion=pod.proxy_version,
        resourceVersion=pod.resource_version,
    )
    _set_owner(message, pod, index)
    since = started.get((pod.namespace, pod.name))
    if since is not None:
        message.added = True
        message.sinceLastReport.FromSeconds(0)
        message.uptime.FromMilliseconds(max(0, round((now - since) * 1000)))
    return message


def _set_owner(message: pb.Pod, pod: Pod, index: PodIndex) -> None:
    for owner in reversed(index.owners(pod)):
        field = _OWNER_FIELDS.get(owner.kind)
        if field is not None:
            setattr(message, field, f"{owner.namespace}/{owner.name}")
            return


def _phase(pod: Pod) -> str:
    if pod.terminating:
        return "Terminating"
    return "Evicted" if pod.status == "Evicted" else pod.phase
