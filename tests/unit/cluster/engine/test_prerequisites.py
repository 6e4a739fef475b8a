from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from linkerd.cluster.engine import prerequisites
from linkerd.cluster.engine.prerequisites import Missing


def test_somebody_else_than_root_is_told() -> None:
    with pytest.raises(Missing, match="needs root"):
        prerequisites.check_user(1000)
    prerequisites.check_user(0)


def test_missing_programs_of_our_own_are_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=f"{tmp_path}/linkerd-kube is not there") as caught:
        prerequisites.check_built(tmp_path)
    assert "make build" in caught.value.hint


def test_too_little_space_is_measured_where_the_state_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=5 * 2**20)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(Missing, match="has 5 MiB of free space"):
        prerequisites.check_space(tmp_path / "not" / "yet" / "there")
    assert asked == [tmp_path]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("namespaces", "may not make namespaces"),
        ("network", "may not set up networks"),
        ("veth", "no veth"),
        ("nftables", "no nf_tables"),
        ("overlay", "no overlay"),
    ],
)
def test_each_thing_that_the_kernel_lacks_has_its_words(what: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prerequisites, "_try_all", lambda _: f"{what}\nOperation not supported")
    with pytest.raises(Missing, match=rf"{said}.*\(Operation not supported\)") as caught:
        prerequisites.check_kernel()
    assert caught.value.hint


def test_without_apt_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(Missing, match="`nft` and `ip` not found") as caught:
        prerequisites.install_missing(lambda _: None)
    assert "iproute2 nftables" in caught.value.hint


def test_a_kernel_that_kube_proxy_refuses_is_said() -> None:
    with pytest.raises(Missing, match=r"the kernel is 5\.10\.0-28-amd64; kube-proxy needs 5\.13"):
        prerequisites.check_kernel_version("5.10.0-28-amd64")
    prerequisites.check_kernel_version("6.1.0-18-amd64")
