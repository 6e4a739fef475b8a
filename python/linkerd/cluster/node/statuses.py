"""From what the node knows of a pod's containers to `status` of the API object (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

Object = dict[str, Any]


class Kind(Enum):
    """The three ways in which a pod has a container."""

    INIT = "init"
    SIDECAR = "sidecar"
    """An init container with restartPolicy Always: it stays."""
    APP = "app"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not running, and why."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """Since when (seconds since the epoch)."""

    started: float


@dataclass(frozen=True, slots=True)
class Terminated:
    """How a run ended."""

    exit_code: int
    reason: str
    started: float | None
    finished: float | None
    container_id: str = ""
    signal: int = 0
    message: str = ""


State = Waiting | Running | Terminated

CREATING = Waiting("ContainerCreating")
INITIALIZING = Waiting("PodInitializing")


@dataclass
class Record:
    """One container of a pod, as its status tells it."""

    name: str
    image: str
    kind: Kind
    state: State = CREATING
    last: Terminated | None = None
    restarts: int = 0
    ready: bool = False
    started: bool = False
    container_id: str = ""
    image_id: str = ""

    @property
    def succeeded(self) -> bool:
        """Ended for good with code 0 (an ended container that is to be restarted is Waiting)."""
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    @property
    def initialized(self) -> bool:
        """Whether what comes after this init container may start."""
        if self.kind is Kind.SIDECAR:
            return self.started
        return self.succeeded


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the node has ended the pod as a whole, if it has (DeadlineExceeded, Evicted …)."""

    reason: str
    message: str


def format_time(seconds: float) -> str:
    """RFC 3339 in whole seconds, as metav1.Time is written."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> float:
    """The inverse; fractions are allowed."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def container_status(record: Record) -> Object:
    """One entry of containerStatuses."""
    status: Object = {
        "name": record.name,
        "image": record.image,
        "imageID": record.image_id,
        "state": state_object(record.state),
        "lastState": state_object(record.last) if record.last else {},
        "restartCount": record.restarts,
        "ready": record.ready or (record.kind is Kind.INIT and record.succeeded),
        "started": record.started,
    }
    if record.container_id:
        status["containerID"] = record.container_id
    return status


def state_object(state: State) -> Object:
    """A ContainerState."""
    match state:
        case Waiting(reason, message):
            return {"waiting": _filled({"reason": reason, "message": message})}
        case Running(started):
            return {"running": {"startedAt": format_time(started)}}
        case Terminated():
            return {"terminated": _terminated_object(state)}


def _terminated_object(state: Terminated) -> Object:
    optional = {
        "reason": state.reason,
        "message": state.message,
        "signal": state.signal,
        "containerID": state.container_id,
    }
    times = {"startedAt": state.started, "finishedAt": state.finished}
    return {
        "exitCode": state.exit_code,
        **_filled(optional),
        **{name: format_time(moment) if moment is not None else None for name, moment in times.items()},
    }


def _filled(values: Object) -> Object:
    return {key: value for key, value in values.items() if value}


def parse_terminated(state: Object) -> Terminated | None:
    """The `terminated` of a ContainerState of the API, if it is one."""
    ended = state.get("terminated")
    if not ended:
        return None
    started, finished = ended.get("startedAt"), ended.get("finishedAt")
    return Terminated(
        exit_code=ended["exitCode"],
        reason=ended.get("reason", ""),
        started=parse_time(started) if started else None,
        finished=parse_time(finished) if finished else None,
        container_id=ended.get("containerID", ""),
        signal=ended.get("signal", 0),
        message=ended.get("message", ""),
    )


def compute_phase(records: Sequence[Record], restart_policy: str, verdict: Verdict | None) -> str:
    """Pending, Running, Succeeded or Failed, by kubelet's rules (`getPhase` in kubelet_pods.go)."""
    if verdict is not None:
        return "Failed"
    inits = [record for record in records if record.kind is not Kind.APP]
    apps = [record for record in records if record.kind is Kind.APP]
    if restart_policy == "Never" and any(_failed(record) for record in inits if record.kind is Kind.INIT):
        return "Failed"
    started_before = any(record.last or not isinstance(record.state, Waiting) for record in apps)
    if not started_before and not all(record.initialized for record in inits):
        return "Pending"
    if any(isinstance(record.state, Waiting) and record.last is None for record in apps):
        return "Pending"
    if any(isinstance(record.state, Running) for record in apps):
        return "Running"
    return _ended_phase(apps, restart_policy)


def _ended_phase(apps: Sequence[Record], restart_policy: str) -> str:
    if restart_policy == "Always" or any(isinstance(record.state, Waiting) for record in apps):
        return "Running"
    if all(record.succeeded for record in apps):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


def final_phase(records: Sequence[Record], phase: str) -> str:
    """The phase of a pod whose containers have all been ended: it must be a final one, or its Job waits for ever."""
    if phase in ("Succeeded", "Failed"):
        return phase
    apps = [record for record in records if record.kind is Kind.APP]
    return "Succeeded" if all(record.succeeded for record in apps) else "Failed"


def _failed(record: Record) -> bool:
    return isinstance(record.state, Terminated) and record.state.exit_code != 0


def compute_conditions(
    records: Sequence[Record], phase: str, *, sandbox: bool, gates: Sequence[str], present: Mapping[str, Object]
) -> list[Object]:
    """The node's conditions without their times; `present` are the object's, by type, for the readiness gates."""
    ready, ready_reason, ready_message = _containers_ready(records, phase)
    conditions = [
        _condition("PodReadyToStartContainers", sandbox),
        _initialized(records, phase),
        _condition("ContainersReady", ready, ready_reason, ready_message),
    ]
    missing = [gate for gate in gates if (present.get(gate) or {}).get("status") != "True"]
    if ready and missing:
        texts = [_gate_message(gate, present.get(gate)) for gate in missing]
        return [*conditions, _condition("Ready", False, "ReadinessGatesNotReady", ", ".join(texts))]
    return [*conditions, _condition("Ready", ready, ready_reason, ready_message)]


def _gate_message(gate: str, condition: Object | None) -> str:
    if condition is None:
        return f'corresponding condition of pod readiness gate "{gate}" does not exist.'
    return f'the status of pod readiness gate "{gate}" is not "True", but {condition.get("status")}'


def _containers_ready(records: Sequence[Record], phase: str) -> tuple[bool, str, str]:
    if phase == "Succeeded":
        return False, "PodCompleted", ""
    if phase == "Failed":
        return False, "PodFailed", ""
    unready = [record.name for record in records if record.kind is not Kind.INIT and not record.ready]
    if unready:
        return False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    return True, "", ""


def _initialized(records: Sequence[Record], phase: str) -> Object:
    if phase == "Succeeded":
        return _condition("Initialized", True, "PodCompleted")
    open_ones = [record.name for record in records if record.kind is not Kind.APP and not record.initialized]
    apps_began = any(
        record.last or not isinstance(record.state, Waiting) for record in records if record.kind is Kind.APP
    )
    if open_ones and not apps_began:
        message = f"containers with incomplete status: [{' '.join(open_ones)}]"
        return _condition("Initialized", False, "ContainersNotInitialized", message)
    return _condition("Initialized", True)


def _condition(kind: str, holds: bool, reason: str = "", message: str = "") -> Object:
    return {"type": kind, "status": "True" if holds else "False", **_filled({"reason": reason, "message": message})}


def with_times(conditions: Sequence[Object], present: Mapping[str, Object], now: float) -> list[Object]:
    """Conditions with lastTransitionTime: kept where the status is what it was, `now` where it changed.

    `reason` and `message` are always there (null removes them in a merge patch).
    """
    result = []
    for condition in conditions:
        old = present.get(condition["type"]) or {}
        same = old.get("status") == condition["status"] and old.get("lastTransitionTime")
        result.append(
            {
                "reason": None,
                "message": None,
                **condition,
                "lastProbeTime": None,
                "lastTransitionTime": old["lastTransitionTime"] if same else format_time(now),
            }
        )
    return result
