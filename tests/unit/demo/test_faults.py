import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd_demo.faults import Fault, FaultError, FaultFile, fault_from_json, read_rate


@given(
    st.builds(
        Fault,
        path=st.sampled_from(["", "/a", "/a/.*"]),
        error_rate=st.floats(0, 1),
        status=st.integers(400, 599),
        latency_ms=st.floats(0, 1e6),
        crash=st.booleans(),
        not_ready=st.booleans(),
    )
)
def test_fault_survives_its_json(fault):
    assert fault_from_json(fault.as_json()) == fault


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"error_rate": 1.5}, "error rate 1.5"),
        ({"status": 200}, "status 200"),
        ({"latency_ms": -1}, "latency -1"),
        ({"path": "("}, "path `(`"),
    ],
)
def test_impossible_fault_is_refused_by_name(fields, named):
    with pytest.raises(FaultError, match=named.replace("(", r"\(")):
        Fault(**fields)


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"unknown": 1}', '{"error_rate": "much"}'])
def test_text_that_is_no_fault_is_refused(text):
    with pytest.raises(FaultError):
        fault_from_json(text)


def test_path_is_matched_from_its_start():
    fault = Fault(path="/api/v1/orders", error_rate=1)
    assert fault.applies("/api/v1/orders/42")
    assert not fault.applies("/x/api/v1/orders")


def test_file_is_read_again_when_it_changes(tmp_path):
    faults = FaultFile("backend", tmp_path)
    assert faults.current() == ()
    _replace(tmp_path / "backend", Fault(error_rate=0.5).as_json())
    assert faults.current() == (Fault(error_rate=0.5),)
    _replace(tmp_path / "backend", Fault(crash=True).as_json() + "\n" + Fault(path="/a").as_json())
    assert faults.current() == (Fault(crash=True), Fault(path="/a"))
    (tmp_path / "backend").unlink()
    assert faults.current() == ()


def test_rate_of_one_caller_wins_over_that_of_all(tmp_path):
    assert read_rate(7, "web", tmp_path) == 7
    (tmp_path / "rate").write_text("3")
    assert read_rate(7, "web", tmp_path) == 3
    (tmp_path / "rate.web").write_text("0")
    assert read_rate(7, "web", tmp_path) == 0


def _replace(path, text):
    """As a ConfigMap volume changes: a new file under the old name."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)
