"""What a shell is told at a resource."""

from __future__ import annotations

import pytest
from click.shell_completion import ShellComplete
from linkerd.cli import completing
from linkerd.cli.main import root

NAMES = {
    ("deployments", "shop"): ["api", "web", "worker"],
    ("services", "shop"): ["web"],
    ("namespaces", None): ["shop", "staging"],
    ("pods", "shop"): ["web-1"],
}


@pytest.fixture
def cluster(monkeypatch):
    async def listed(state, resource, namespace):
        return NAMES[resource.plural, namespace if resource.namespaced else None]

    monkeypatch.setattr(completing, "_listed", listed)


def completed(line: str) -> list[str]:
    *words, incomplete = line.split(" ")
    shell = ShellComplete(root, {}, "linkerd", "_LINKERD_COMPLETE")
    return [item.value for item in shell.get_completions(words, incomplete)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("viz stat dep", ["deploy"]),
        ("viz stat -n shop deploy/w", ["deploy/web", "deploy/worker"]),
        ("viz stat -n shop deploy w", ["web", "worker"]),
        ("viz tap -n shop deploy/api --to svc/", ["svc/web"]),
        ("viz stat deploy -n s", ["shop", "staging"]),
        ("stat ns/st", ["ns/staging"]),
        ("identity -n shop ", ["web-1"]),
        ("viz stat -n shop nonsense/", []),
    ],
)
def test_kinds_and_names(cluster, line, expected):
    assert completed(line) == expected


def test_without_a_cluster_there_are_just_no_names(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert completed("viz stat deploy/") == []
    assert capsys.readouterr() == ("", "")
