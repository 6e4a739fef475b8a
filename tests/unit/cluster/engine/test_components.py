from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from linkerd.cluster.engine.certificates import ensure_pki
from linkerd.cluster.engine.components import admin_kubeconfig, components, configuration_files
from linkerd.cluster.engine.settings import Settings
from linkerd.cluster.node.settings import load_settings


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    directory = tmp_path_factory.mktemp("state")
    settings = Settings(directory, 7443, Path("/venv/bin"), Path("/clone"), (Path("/venv"),))
    ensure_pki(settings.pki)
    settings.run.mkdir()
    return settings


def test_every_file_that_a_component_is_given_exists(settings: Settings) -> None:
    for name, text in configuration_files(settings).items():
        (settings.run / name).write_text(text)
    words = " ".join(word for component in components(settings) for word in component.argv)
    mentioned = re.findall(rf"{settings.state_dir}/(?:pki|run)/[\w.-]+", words)
    assert len(mentioned) > 15
    assert [path for path in mentioned if not Path(path).exists()] == []


def test_etcd_starts_first_and_ends_last(settings: Settings) -> None:
    assert [component.name for component in components(settings)][:2] == ["etcd", "kube-apiserver"]


def test_components_speak_to_the_inner_address_and_users_to_the_hosts(settings: Settings) -> None:
    inner = yaml.safe_load(configuration_files(settings)["kube-proxy.kubeconfig"])
    assert inner["clusters"][0]["cluster"]["server"] == "https://192.168.127.1:6443"
    outer = yaml.safe_load(admin_kubeconfig(settings))
    assert outer["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:7443"
    assert outer["current-context"] == "linkerd-cluster"


def test_the_node_agent_understands_its_configuration(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    path.write_text(configuration_files(settings)["agent.json"])
    assert load_settings(path).state_dir == settings.state_dir
    assert json.loads(path.read_text())["cluster_dns"] == "10.96.0.10"
