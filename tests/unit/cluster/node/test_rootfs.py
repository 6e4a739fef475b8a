from __future__ import annotations

from typing import Any

import pytest
from linkerd.cluster.node.rootfs import HostRoot, Mount, Node, Overlay, RootPlan, outermost, plan_root

HOST = HostRoot(("etc", "home", "proc", "root", "run", "srv", "tmp", "usr"), (("usr/bin", "/bin"),))


def plan(programs: tuple[str, ...] = (), **values: Any) -> RootPlan:
    node = Node(HOST, "/var/lib/cluster", "/var/lib/cluster/run/root", programs)
    given = {"overlay": None, "shm": "/shm", "mounts": [], "cwd": "/", "readonly": False, **values}
    return plan_root(node, **given)


def test_the_host_is_seen_but_for_what_is_private() -> None:
    found = plan()
    assert found.views == ("/etc", "/srv", "/usr")
    assert found.links == (("usr/bin", "/bin"),)
    assert {path for path, _ in found.directories} >= {"/tmp", "/run", "/root", "/home"}


def test_the_clusters_own_directory_is_hidden() -> None:
    assert plan().hidden == ("/var/lib/cluster",)
    assert plan().detached == ("/var/lib/cluster/pods",)


def test_programs_below_a_home_stay_visible() -> None:
    programs = ("/root/clone", "/root/clone/.venv", "/usr/lib/python3", "/root/.pyenv")
    assert plan(programs).views == ("/etc", "/srv", "/usr", "/root/.pyenv", "/root/clone")


def test_outer_mounts_come_first() -> None:
    mounts = [Mount("/b", "/data/sub"), Mount("/a", "/data")]
    assert [mount.target for mount in plan(mounts=mounts).mounts] == ["/data", "/data/sub"]


def test_an_image_with_a_root_sees_nothing_of_the_host() -> None:
    found = plan(overlay=Overlay("/image", "/upper", "/work"))
    assert found.views == ()
    assert found.overlay is not None


@pytest.mark.parametrize(
    ("paths", "kept"), [(["/a/b", "/a"], ["/a"]), (["/ab", "/a"], ["/a", "/ab"]), (["/a/", "/a"], ["/a"])]
)
def test_outermost(paths: list[str], kept: list[str]) -> None:
    assert outermost(paths) == kept
