from __future__ import annotations

from pathlib import Path

import pytest
from linkerd.cluster.engine.starting import is_ready
from linkerd.cluster.engine.state import ComponentState, Instance
from linkerd.cluster.engine.status import component_statuses


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with a first process, one component, a container in a namespace below, and a stranger."""
    for pid, namespace, pids, pss in (
        (500, "pid:[2]", "500 1", 10),
        (501, "pid:[2]", "501 7", 20),
        (502, "pid:[3]", "502 7 7", 40),
        (7, "pid:[1]", "7", 80),
    ):
        (tmp_path / str(pid) / "ns").mkdir(parents=True)
        (tmp_path / str(pid) / "ns" / "pid").symlink_to(namespace)
        (tmp_path / str(pid) / "status").write_text(f"Name:\tx\nNSpid:\t{pids}\n")
        (tmp_path / str(pid) / "smaps_rollup").write_text(f"Rss: 900 kB\nPss:    {pss} kB\nPss_Dirty: 5 kB\n")
    return tmp_path


def test_components_have_the_hosts_pids_and_memory(proc: Path) -> None:
    instance = Instance(
        500, 6443, 0.0, True, (ComponentState("etcd", 7, 1, "running"), ComponentState("kube-proxy", 0, 3, "waiting"))
    )
    engine, etcd, proxy = component_statuses(instance, proc)
    assert (engine.name, engine.pid, engine.pss_bytes) == ("engine", 500, 10240)
    assert (etcd.pid, etcd.pss_bytes, etcd.restarts) == (501, 20480, 1)
    assert (proxy.pid, proxy.pss_bytes, proxy.state) == (None, None, "waiting")


def test_a_component_that_is_not_there_is_down_whatever_was_written_last(proc: Path) -> None:
    instance = Instance(500, 6443, 0.0, True, (ComponentState("etcd", 99, 0, "running"),))
    assert [c.state for c in component_statuses(instance, proc)] == ["running", "down"]


def test_a_node_that_was_ready_before_the_start_is_not_ready_yet() -> None:
    condition = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:10Z"}
    node = {"status": {"conditions": [condition]}}
    heard = 1767225610
    assert is_ready(node, heard + 0.5)
    assert not is_ready(node, heard + 1)
    assert not is_ready({}, heard)
