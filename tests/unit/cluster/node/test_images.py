from __future__ import annotations

import json
from pathlib import Path

import pytest
from linkerd.cluster.node.images import (
    Image,
    ImageName,
    Programs,
    UnknownImage,
    added_images,
    key_of,
    lookup,
    parse_image,
    parse_image_name,
)

PROGRAMS = Programs(Path("/opt/bin"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("busybox", ImageName("docker.io/library/busybox", "", "")),
        ("busybox:1.36", ImageName("docker.io/library/busybox", "1.36", "")),
        ("prom/prometheus:v3", ImageName("docker.io/prom/prometheus", "v3", "")),
        ("localhost:5000/a/b", ImageName("localhost:5000/a/b", "", "")),
        ("cr.l5d.io/linkerd/proxy:stable-0.1.0", ImageName("cr.l5d.io/linkerd/proxy", "stable-0.1.0", "")),
        ("a.io/b@sha256:00", ImageName("a.io/b", "", "sha256:00")),
        ("a.io/b:1@sha256:00", ImageName("a.io/b", "1", "sha256:00")),
    ],
)
def test_names_are_completed_as_docker_does(text: str, name: ImageName) -> None:
    assert parse_image_name(text) == name


@pytest.mark.parametrize(
    ("name", "entrypoint"),
    [
        ("cr.l5d.io/linkerd/proxy:any", ("/opt/bin/linkerd2-proxy",)),
        ("cr.l5d.io/linkerd/controller@sha256:00", ("/opt/bin/linkerd-controller",)),
        ("prom/prometheus", ("/opt/bin/prometheus",)),
        ("docker.io/prom/prometheus:v3", ("/opt/bin/prometheus",)),
        ("registry.k8s.io/coredns/coredns:v1", ("/opt/bin/linkerd-kube", "coredns")),
        ("linkerd.io/demo:1", ("/opt/bin/python", "-m", "linkerd_demo")),
        ("busybox", ()),
        ("docker.io/library/debian:12", ()),
    ],
)
def test_built_in_images(name: str, entrypoint: tuple[str, ...]) -> None:
    found = lookup(name, PROGRAMS, {})
    assert found.entrypoint == entrypoint
    assert found.root is None
    assert found.id.startswith("sha256:")


def test_an_unknown_image_tells_how_to_add_it() -> None:
    with pytest.raises(UnknownImage, match="linkerd cluster image add nginx:1 DIR"):
        lookup("nginx:1", PROGRAMS, {})


def test_an_image_added_without_a_tag_stands_for_any() -> None:
    added = {key_of("nginx"): Image("nginx", "id")}
    assert lookup("nginx:1.27", PROGRAMS, added).id == "id"
    assert lookup("docker.io/library/nginx", PROGRAMS, added).id == "id"


def test_an_image_added_with_a_tag_is_only_that_one() -> None:
    added = {key_of("nginx:1"): Image("nginx:1", "id")}
    assert lookup("nginx:1", PROGRAMS, added).id == "id"
    with pytest.raises(UnknownImage):
        lookup("nginx:2", PROGRAMS, added)


def test_what_the_user_added_goes_over_what_is_built_in() -> None:
    assert lookup("busybox", PROGRAMS, {key_of("busybox"): Image("busybox", "mine")}).id == "mine"


def test_latest_is_the_tag_of_a_name_without_one() -> None:
    assert lookup("nginx", PROGRAMS, {key_of("nginx:latest"): Image("nginx:latest", "id")}).id == "id"


def test_descriptions_are_read_from_their_directory(tmp_path: Path) -> None:
    description = {"name": "a.io/b:1", "root": "/srv/b", "entrypoint": ["/b"], "env": {"K": "V"}, "user": "10"}
    (tmp_path / "b.json").write_text(json.dumps(description))
    image = added_images(tmp_path)["a.io/b:1"]
    assert (image.root, image.entrypoint, image.env, image.workdir) == (Path("/srv/b"), ("/b",), {"K": "V"}, "/")


def test_a_damaged_description_does_not_keep_the_others_away(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text(json.dumps({"name": "a.io/b:1", "root": None}))
    assert list(added_images(tmp_path)) == ["a.io/b:1"]


@pytest.mark.parametrize("text", ["[]", "{}", "{"])
def test_a_damaged_description_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not an image description"):
        parse_image(text)
