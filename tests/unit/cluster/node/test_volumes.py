from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import pytest
from linkerd.cluster.node.atomic import File, write_files
from linkerd.cluster.node.environment import PodFacts
from linkerd.cluster.node.rootfs import Mount
from linkerd.cluster.node.tokens import Tokens, renewal_delay
from linkerd.cluster.node.volumes import VolumeError, Volumes
from linkerd.k8s.client import Client

FACTS = PodFacts(("10.244.0.7",), "192.168.127.1", Fraction(2), Fraction(2**30))


class Objects:
    """ConfigMaps and Secrets that a test may change."""

    def __init__(self) -> None:
        self.objects: dict[str, Mapping[str, bytes]] = {}

    def config_map(self, namespace: str, name: str) -> Mapping[str, bytes] | None:
        return self.objects.get(name)

    secret = config_map


class Server:
    """The one call that tokens make."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def create(self, resource: object, body: dict[str, Any], namespace: str, **_: Any) -> dict[str, Any]:
        self.asked.append(body["spec"])
        return {"status": {"token": f"token-{len(self.asked)}"}}


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def server() -> Server:
    return Server()


def volumes(directory: Path, objects: Objects, server: Server, *items: dict[str, Any], **spec: Any) -> Volumes:
    metadata = {"name": "web", "namespace": "shop", "uid": "u", "labels": {"a": "b"}}
    pod = {"metadata": metadata, "spec": {"volumes": list(items), "containers": [{"name": "c"}], **spec}}
    tokens = Tokens(cast("Client", server), pod, clock=lambda: 0.0)
    return Volumes(pod, directory / "disk", directory / "memory", objects, tokens, FACTS)


async def test_a_config_map_is_missing_then_there_then_different(
    tmp_path: Path, objects: Objects, server: Server
) -> None:
    made = volumes(tmp_path, objects, server, {"name": "v", "configMap": {"name": "conf"}})
    with pytest.raises(VolumeError, match=r'MountVolume.SetUp failed for volume "v" : configmap "conf" not found'):
        await made.prepare()
    objects.objects["conf"] = {"k": b"1"}
    await made.prepare()
    assert (tmp_path / "memory/v/k").read_text() == "1"
    objects.objects["conf"] = {"j": b"2"}
    await made.refresh()
    assert [path.name for path in (tmp_path / "memory/v").iterdir() if not path.name.startswith("..")] == ["j"]


async def test_items_choose_paths_and_modes(tmp_path: Path, objects: Objects, server: Server) -> None:
    objects.objects["s"] = {"k": b"1", "j": b"2"}
    item = {"key": "k", "path": "sub/x", "mode": 0o400}
    made = volumes(tmp_path, objects, server, {"name": "v", "secret": {"secretName": "s", "items": [item]}})
    await made.prepare()
    path = tmp_path / "memory/v/sub/x"
    assert path.read_text() == "1"
    assert path.stat().st_mode & 0o777 == 0o400


async def test_a_projection_puts_sources_together(tmp_path: Path, objects: Objects, server: Server) -> None:
    objects.objects["conf"] = {"ca": b"pem"}
    token = {"path": "token", "audience": "identity.l5d.io", "expirationSeconds": 600}
    labels = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    sources = [
        {"configMap": {"name": "conf"}},
        {"serviceAccountToken": token},
        {"downwardAPI": {"items": [labels]}},
    ]
    made = volumes(tmp_path, objects, server, {"name": "v", "projected": {"sources": sources}})
    await made.prepare()
    found = {path.name: path.read_text() for path in (tmp_path / "memory/v").iterdir() if path.is_file()}
    assert found == {"ca": "pem", "token": "token-1", "labels": 'a="b"'}
    assert server.asked[0]["audiences"] == ["identity.l5d.io"]


async def test_a_token_is_kept_until_it_is_old(server: Server) -> None:
    now = 0.0
    pod = {"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": {}}
    tokens = Tokens(cast("Client", server), pod, clock=lambda: now)
    assert await tokens.get("", 600) == await tokens.get("", 600)
    now = 481.0
    assert await tokens.get("", 600) == b"token-2"


def test_tokens_are_renewed_before_four_fifths_of_their_life_or_a_day() -> None:
    assert 0.75 * 600 < renewal_delay(600) <= 480
    assert renewal_delay(10**9) <= 24 * 3600


async def test_mounts_name_the_source(tmp_path: Path, objects: Objects, server: Server) -> None:
    made = volumes(tmp_path, objects, server, {"name": "v", "emptyDir": {}})
    await made.prepare()
    items = [{"name": "v", "mountPath": "/d"}, {"name": "v", "mountPath": "/e", "subPathExpr": "$(POD)"}]
    assert made.mounts({"volumeMounts": items}, {"POD": "web"}) == [
        Mount(str(tmp_path / "disk/v"), "/d"),
        Mount(str(tmp_path / "disk/v/web"), "/e"),
    ]


async def test_a_sub_path_does_not_leave_its_volume(tmp_path: Path, objects: Objects, server: Server) -> None:
    made = volumes(tmp_path, objects, server, {"name": "v", "emptyDir": {}})
    await made.prepare()
    (tmp_path / "disk/v/out").symlink_to("/etc")
    with pytest.raises(VolumeError, match="leaves the volume"):
        made.mounts({"volumeMounts": [{"name": "v", "mountPath": "/d", "subPath": "out"}]}, {})


async def test_a_kind_that_the_node_lacks_is_named(tmp_path: Path, objects: Objects, server: Server) -> None:
    with pytest.raises(VolumeError, match="no volumes of type nfs"):
        await volumes(tmp_path, objects, server, {"name": "v", "nfs": {}}).prepare()


async def test_a_host_path_is_checked(tmp_path: Path, objects: Objects, server: Server) -> None:
    source = {"path": str(tmp_path / "none"), "type": "Directory"}
    with pytest.raises(VolumeError, match="is not a directory"):
        await volumes(tmp_path, objects, server, {"name": "v", "hostPath": source}).prepare()


def test_files_change_all_at_once(tmp_path: Path) -> None:
    assert write_files(tmp_path, {"a": File(b"1", 0o644), "d/b": File(b"2", 0o600)})
    before = os.readlink(tmp_path / "..data")
    assert not write_files(tmp_path, {"a": File(b"1", 0o644), "d/b": File(b"2", 0o600)})
    assert os.readlink(tmp_path / "..data") == before
    assert write_files(tmp_path, {"a": File(b"3", 0o644)})
    assert (tmp_path / "a").read_bytes() == b"3"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "..data", os.readlink(tmp_path / "..data")}
