from __future__ import annotations

import json
from pathlib import Path

import pytest
from linkerd.cluster.engine.settings import (
    DEFAULT_PORT,
    DEFAULT_STATE_DIR,
    Settings,
    instance_from,
    python_prefixes,
    settings_as_json,
    settings_from,
)


def test_the_environment_chooses_the_instance() -> None:
    assert instance_from({"LINKERD_CLUSTER_DIR": "/x", "LINKERD_CLUSTER_PORT": "7000"}) == (Path("/x"), 7000)
    assert instance_from({}) == (DEFAULT_STATE_DIR, DEFAULT_PORT)


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(ValueError, match="LINKERD_CLUSTER_PORT"):
        instance_from({"LINKERD_CLUSTER_PORT": port})


def test_the_first_process_gets_the_same_settings() -> None:
    settings = Settings(Path("/s"), 1, Path("/b"), Path("/c"), (Path("/p"), Path("/q")))
    assert settings_from(json.loads(json.dumps(settings_as_json(settings)))) == settings


def test_prefixes_are_outermost_and_leave_out_usr(tmp_path: Path) -> None:
    packages = tmp_path / "venv" / "lib" / "site-packages"
    sources = tmp_path / "clone" / "python"
    for path in (packages, sources):
        path.mkdir(parents=True)
    search = ["", "/usr/lib/python3.11", str(packages), str(sources), str(tmp_path / "absent.zip")]
    found = python_prefixes(str(tmp_path / "venv"), "/usr", "/usr/bin/python3.11", search)
    assert set(found) == {tmp_path / "venv", sources}
