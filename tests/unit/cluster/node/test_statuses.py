from __future__ import annotations

from typing import Any

import pytest
from linkerd.cluster.node.pods import lose_record, restore_record, shown_record
from linkerd.cluster.node.statuses import (
    CREATING,
    Kind,
    Record,
    Running,
    Terminated,
    Verdict,
    Waiting,
    compute_conditions,
    compute_phase,
    container_status,
    final_phase,
    format_time,
    parse_terminated,
    parse_time,
    state_object,
    with_times,
)

OK = Terminated(0, "Completed", 1.0, 2.0, "linkerd://a")
BAD = Terminated(3, "Error", 1.0, 2.0, "linkerd://a")
CRASHING = Waiting("CrashLoopBackOff")


def app(state: Any = CREATING, **values: Any) -> Record:
    return Record("app", "busybox", Kind.APP, state, **values)


def init(state: Any = CREATING, kind: Kind = Kind.INIT, **values: Any) -> Record:
    return Record("init", "busybox", kind, state, **values)


@pytest.mark.parametrize(
    ("records", "policy", "phase"),
    [
        ([app()], "Always", "Pending"),
        ([app(Running(1.0))], "Always", "Running"),
        ([app(Running(1.0)), app()], "Always", "Pending"),
        ([app(CRASHING, last=BAD)], "Always", "Running"),
        ([app(OK)], "Always", "Running"),
        ([app(OK)], "Never", "Succeeded"),
        ([app(OK), app(BAD)], "Never", "Failed"),
        ([app(OK), app(Running(1.0))], "Never", "Running"),
        ([app(BAD)], "OnFailure", "Running"),
        ([app(OK)], "OnFailure", "Succeeded"),
        ([init(Running(1.0)), app()], "Always", "Pending"),
        ([init(OK), app()], "Always", "Pending"),
        ([init(OK), app(Running(1.0))], "Always", "Running"),
        ([init(BAD), app()], "Never", "Failed"),
        ([init(CRASHING, last=BAD), app()], "Always", "Pending"),
        ([init(Running(1.0), Kind.SIDECAR), app()], "Always", "Pending"),
        ([init(Running(1.0), Kind.SIDECAR, started=True), app(Running(1.0))], "Always", "Running"),
        ([init(CRASHING, Kind.SIDECAR, last=BAD), app(Running(1.0))], "Always", "Running"),
        ([init(Running(1.0), Kind.SIDECAR, started=True), app(OK)], "Never", "Succeeded"),
    ],
)
def test_phases(records: list[Record], policy: str, phase: str) -> None:
    assert compute_phase(records, policy, None) == phase


def test_a_verdict_of_the_node_is_a_failure() -> None:
    assert compute_phase([app(Running(1.0))], "Always", Verdict("DeadlineExceeded", "")) == "Failed"


@pytest.mark.parametrize(("state", "phase"), [(OK, "Succeeded"), (BAD, "Failed"), (CREATING, "Failed")])
def test_a_pod_that_was_ended_has_a_final_phase(state: Any, phase: str) -> None:
    assert final_phase([app(state)], "Running") == phase


def conditions(records: list[Record], phase: str = "Running", **values: Any) -> dict[str, Any]:
    given = {"sandbox": True, "gates": (), "present": {}, **values}
    return {item["type"]: item for item in compute_conditions(records, phase, **given)}


def test_a_ready_pod() -> None:
    found = conditions([init(OK), app(Running(1.0), ready=True)])
    assert {kind: item["status"] for kind, item in found.items()} == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "ContainersReady": "True",
        "Ready": "True",
    }


def test_unready_containers_are_named() -> None:
    ready = conditions([app(Running(1.0))])["Ready"]
    assert ready["status"] == "False"
    assert ready["message"] == "containers with unready status: [app]"


def test_open_init_containers_are_named() -> None:
    found = conditions([init(Running(1.0)), app()], "Pending")["Initialized"]
    assert (found["status"], found["reason"]) == ("False", "ContainersNotInitialized")
    assert found["message"] == "containers with incomplete status: [init]"


def test_a_pod_stays_initialized_when_a_sidecar_restarts() -> None:
    records = [init(CRASHING, Kind.SIDECAR, last=BAD), app(Running(1.0))]
    assert conditions(records)["Initialized"]["status"] == "True"


@pytest.mark.parametrize(("present", "ready"), [({}, "False"), ({"g": {"status": "True"}}, "True")])
def test_readiness_gates(present: dict[str, Any], ready: str) -> None:
    found = conditions([app(Running(1.0), ready=True)], gates=["g"], present=present)
    assert found["ContainersReady"]["status"] == "True"
    assert found["Ready"]["status"] == ready


def test_completed_pods_are_not_ready() -> None:
    found = conditions([app(OK)], "Succeeded")
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "PodCompleted")


def test_the_time_of_transition_moves_only_with_the_status() -> None:
    present = {"Ready": {"status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}}
    kept = with_times([{"type": "Ready", "status": "True"}], present, now=0.0)
    moved = with_times([{"type": "Ready", "status": "False"}], present, now=0.0)
    assert kept[0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert moved[0]["lastTransitionTime"] == "1970-01-01T00:00:00Z"


def test_times_come_back() -> None:
    assert parse_time(format_time(1_800_000_000)) == 1_800_000_000
    assert parse_time("1970-01-01T00:00:01.5Z") == 1.5


def test_an_end_comes_back_from_the_api() -> None:
    assert parse_terminated(state_object(BAD)) == BAD
    assert parse_terminated({"running": {}}) is None


def test_a_completed_init_container_counts_as_ready() -> None:
    assert container_status(init(OK))["ready"]
    assert not container_status(init(BAD))["ready"]


def running_status(restarts: int) -> dict[str, Any]:
    return {
        "restartCount": restarts,
        "containerID": "linkerd://a",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }


def test_after_a_restart_of_the_agent_a_running_container_was_lost() -> None:
    record = app()
    restore_record(record, running_status(2), "Always")
    assert record.restarts == 3
    assert record.last is not None
    assert (record.last.exit_code, record.last.reason) == (255, "Unknown")
    assert isinstance(record.state, Waiting)


def test_after_a_restart_of_the_agent_a_pod_that_never_restarts_has_failed() -> None:
    record = app()
    restore_record(record, running_status(0), "Never")
    assert compute_phase([record], "Never", None) == "Failed"


def test_after_a_restart_of_the_agent_a_completed_container_stays_completed() -> None:
    record = app()
    restore_record(record, {"restartCount": 0, "state": state_object(OK)}, "OnFailure")
    assert record.succeeded
    assert record.restarts == 0


def test_a_container_that_never_started_is_not_counted() -> None:
    record = app()
    restore_record(record, {"restartCount": 0, "state": state_object(CREATING)}, "Always")
    assert (record.restarts, record.last) == (0, None)


def test_what_a_lost_pod_had_not_ended_is_unknown() -> None:
    running, waiting, ended = app(), app(), app(OK)
    restore_record(running, running_status(0), "Always")
    for record in (running, waiting, ended):
        lose_record(record)
    assert [record.state.reason for record in (running, waiting, ended)] == [
        "Unknown",
        "ContainerStatusUnknown",
        "Completed",
    ]
    assert compute_phase([running, waiting, ended], "Never", None) == "Failed"


@pytest.mark.parametrize(("policy", "shown"), [("OnFailure", OK), ("Always", Running(5.0))])
def test_an_init_container_that_runs_again_stays_completed_where_the_api_wants_it(policy: str, shown: Any) -> None:
    assert shown_record(init(Running(5.0), last=OK), policy).state == shown
    assert shown_record(init(Running(5.0), last=BAD), policy).state == Running(5.0)
