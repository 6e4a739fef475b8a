from __future__ import annotations

import os
from pathlib import Path

import pytest
from linkerd.cluster.engine import state
from linkerd.cluster.engine.settings import Settings
from linkerd.cluster.engine.state import ComponentState, Instance, StateError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "state", 7443, Path("/bin"), Path("/clone"))


@pytest.fixture
def prepared(settings: Settings) -> Settings:
    state.prepare(settings)
    return settings


def test_a_directory_with_other_things_is_left_alone(settings: Settings) -> None:
    settings.state_dir.mkdir()
    (settings.state_dir / "letters").touch()
    with pytest.raises(StateError, match=r"not empty and not a cluster's state directory.*letters"):
        state.prepare(settings)
    with pytest.raises(StateError):
        state.forget(settings)
    assert (settings.state_dir / "letters").exists()


def test_a_file_in_place_of_the_directory_is_named(settings: Settings) -> None:
    settings.state_dir.touch()
    with pytest.raises(StateError, match="is not a directory"):
        state.prepare(settings)


def test_a_path_that_kubeconfig_cannot_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="has a colon"):
        state.prepare(Settings(tmp_path / "a:b", 7443, Path("/bin"), Path("/clone")))
    assert not (tmp_path / "a:b").exists()


def test_a_damaged_marker_is_said_with_the_way_out(prepared: Settings) -> None:
    (prepared.state_dir / "state.json").write_text("{")
    with pytest.raises(StateError, match="damaged") as caught:
        state.prepare(prepared)
    assert "linkerd cluster reset" in caught.value.hint


def test_a_newer_layout_is_not_touched(prepared: Settings) -> None:
    (prepared.state_dir / "state.json").write_text('{"layout": 99}')
    with pytest.raises(StateError, match="another version"):
        state.prepare(prepared)


def test_forgetting_keeps_what_is_not_ours(prepared: Settings) -> None:
    (prepared.pki / "ca.crt").touch()
    (prepared.state_dir / "letters").touch()
    state.forget(prepared)
    assert [path.name for path in prepared.state_dir.iterdir()] == ["letters"]


def test_forgetting_ends_with_no_directory(prepared: Settings) -> None:
    state.forget(prepared)
    assert not prepared.state_dir.exists()


def test_the_lock_tells_who_runs(prepared: Settings) -> None:
    instance = Instance(4711, 7443, 1.5, True, (ComponentState("etcd", 7, 2, "running"),))
    holder = state.lock(prepared)
    assert holder is not None
    state.write_instance(prepared, instance)
    assert state.lock(prepared) is None
    assert state.running_instance(prepared) == instance
    os.close(holder)
    assert state.running_instance(prepared) is None


def test_a_lock_whose_holder_says_nothing_is_an_error(prepared: Settings) -> None:
    holder = state.lock(prepared)
    assert holder is not None
    with pytest.raises(StateError, match="does not tell which"):
        state.running_instance(prepared)
    os.close(holder)


def test_written_files_have_their_mode_from_the_beginning(tmp_path: Path) -> None:
    state.write_file(tmp_path / "secret", "text", 0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
