import base64
from pathlib import Path

import pytest
import yaml
from linkerd.k8s.config import ConfigError, config_from_kubeconfig, load_config

PATH = Path("/home/user/.kube/config")


def document(**changes):
    base = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443/"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    }
    return base | changes


def test_current_context_gives_server_namespace_and_credentials():
    config = config_from_kubeconfig(document(), PATH)
    assert (config.server, config.namespace, config.token) == ("https://127.0.0.1:6443", "shop", "secret")


def test_secrets_are_not_in_the_representation():
    assert "secret" not in repr(config_from_kubeconfig(document(), PATH))


def test_data_fields_are_decoded():
    ca = base64.b64encode(b"PEM").decode()
    clusters = [{"name": "c", "cluster": {"server": "https://x", "certificate-authority-data": ca}}]
    assert config_from_kubeconfig(document(clusters=clusters), PATH).ca_data == b"PEM"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"current-context": "there"}, "no context named `there`"),
        ({"clusters": []}, "no cluster named `c`"),
        ({"users": []}, "no user named `u`"),
        ({"clusters": [{"name": "c", "cluster": {}}]}, "has no server"),
    ],
)
def test_what_is_missing_is_named(changes, named):
    with pytest.raises(ConfigError, match=named):
        config_from_kubeconfig(document(**changes), PATH)


def test_first_file_wins_where_several_name_the_same(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text(yaml.safe_dump(document()))
    other = document(clusters=[{"name": "c", "cluster": {"server": "https://other"}}])
    two.write_text(yaml.safe_dump(other))
    monkeypatch.setenv("KUBECONFIG", f"{one}:{two}")
    assert load_config().server == "https://127.0.0.1:6443"


def test_no_kubeconfig_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigError, match="none"):
        load_config()


@pytest.mark.parametrize("text", ["[]", "a: [", "7"])
def test_file_that_is_no_kubeconfig_is_refused_by_name(tmp_path, text):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)):
        load_config(str(path))
