from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linkerd.cluster.engine.images import ImageError, Wish, add_image, file_name, unpack_layer
from linkerd.cluster.node.images import parse_image

File = tuple[str, "bytes | str | None"]
"""A name with its content; None for a directory, `-> target` for a symbolic link, `= target` for a hard link."""


def layer(files: Sequence[File]) -> bytes:
    """A layer's tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mode = os.getuid(), os.getgid(), 0o755
            if content is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                kind, info.linkname = content.split(" ", 1)
                info.type = tarfile.SYMTYPE if kind == "->" else tarfile.LNKTYPE
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def archive(path: Path, layers: Sequence[bytes], config: Mapping[str, object]) -> Path:
    """An OCI archive with these layers, gzipped as usual."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest = {
        "config": blob(json.dumps({"config": config}).encode()),
        "layers": [blob(gzip.compress(data)) for data in layers],
    }
    index = {"manifests": [blob(json.dumps(manifest).encode()) | {"platform": {"os": "linux"}}]}
    with tarfile.open(path, "w") as tar:
        for name, data in {**blobs, "index.json": json.dumps(index).encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def unpacked(root: Path, *layers: Sequence[File]) -> Path:
    root.mkdir(exist_ok=True)
    for files in layers:
        with tarfile.open(fileobj=io.BytesIO(layer(files))) as tar:
            unpack_layer(tar, root)
    return root


def test_an_archive_brings_its_configuration_which_the_user_may_override(tmp_path: Path) -> None:
    config = {"Entrypoint": ["/hello"], "Cmd": ["--once"], "Env": ["A=1", "B=2"], "WorkingDir": "/srv", "User": "7"}
    source = archive(tmp_path / "a.tar", [layer([("hello", b"#!/bin/sh\n")])], config)
    wish = Wish("example.com/hello:1", cmd=("--twice",), env={"B": "3"})
    image = parse_image(add_image(tmp_path / "images", source, wish).read_text())
    assert (image.entrypoint, image.cmd, image.workdir, image.user) == (("/hello",), ("--twice",), "/srv", "7")
    assert image.env == {"A": "1", "B": "3"}
    assert image.root is not None
    assert (image.root / "hello").read_bytes() == b"#!/bin/sh\n"


def test_a_directory_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "program").mkdir()
    (tmp_path / "images").mkdir()
    path = add_image(tmp_path / "images", tmp_path / "program", Wish("mine", cmd=("/run", "-v")))
    image = parse_image(path.read_text())
    assert (image.root, image.cmd, image.entrypoint) == (tmp_path / "program", ("/run", "-v"), ())


def test_later_layers_replace_and_remove(tmp_path: Path) -> None:
    root = unpacked(
        tmp_path / "root",
        [("etc", None), ("etc/a", b"1"), ("etc/b", b"1"), ("opt", None), ("opt/old", b"1")],
        [("etc/a", b"2"), ("etc/.wh.b", b""), ("opt/.wh..wh..opq", b""), ("opt/new", b"2")],
    )
    assert {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} == {"etc/a", "opt/new"}
    assert (root / "etc/a").read_bytes() == b"2"


def test_links_are_kept_and_followed_inside_the_image(tmp_path: Path) -> None:
    root = unpacked(
        tmp_path / "root", [("usr/bin", None), ("bin", "-> /usr/bin"), ("bin/sh", b"shell"), ("bin/ash", "= bin/sh")]
    )
    assert os.readlink(root / "bin") == "/usr/bin"
    assert (root / "usr/bin/sh").read_bytes() == b"shell"
    assert (root / "usr/bin/ash").samefile(root / "usr/bin/sh")


@pytest.mark.parametrize("name", [".wh...", ".wh..", ".wh.", "etc/.wh..."])
def test_a_whiteout_cannot_reach_beyond_its_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "sibling").write_text("stays")
    with pytest.raises(ValueError, match="names no file"):
        unpacked(tmp_path / "root", [("etc", None), (name, b"")])
    assert (tmp_path / "sibling").exists()


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/../evil"])
def test_a_path_out_of_the_image_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="leaves the image"):
        unpacked(tmp_path / "root", [(name, b"x")])
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("target", ["../..", "/", "../../outside", "/outside"])
def test_a_link_does_not_lead_out(tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").mkdir()
    unpacked(tmp_path / "root", [("out", f"-> {target}"), ("out/evil", b"x")])
    assert [str(p) for p in (tmp_path / "outside").rglob("*")] == []
    assert not (tmp_path / "evil").exists()


def test_a_hard_link_does_not_reach_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(ValueError, match="leaves the image"):
        unpacked(tmp_path / "root", [("copy", "= ../secret")])


def test_links_in_a_circle_are_noticed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too many symbolic links"):
        unpacked(tmp_path / "root", [("a", "-> b"), ("b", "-> a"), ("a/x", b"")])


def test_a_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.tar", [layer([("hello", b"x" * 5000)])], {})
    data = bytearray(source.read_bytes())
    data[512 + 5] ^= 1
    source.write_bytes(data)
    with pytest.raises(ImageError, match="cannot be unpacked"):
        add_image(tmp_path / "images", source, Wish("hello"))
    assert list((tmp_path / "images" / "roots").iterdir()) == []


def test_something_else_than_an_archive_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ImageError) as caught:
        add_image(tmp_path / "images", tmp_path / "text", Wish("hello"))
    assert "oci-archive" in caught.value.hint


@pytest.mark.parametrize("name", ["", "-x", "a b", "Hello", "a//"])
def test_a_name_that_no_pod_could_use_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="is not an image name"):
        add_image(tmp_path, tmp_path, Wish(name))


@given(st.text(min_size=1), st.text(min_size=1))
def test_different_names_have_different_files(one: str, other: str) -> None:
    assert (file_name(one) == file_name(other)) == (one == other)
    assert "/" not in file_name(one)
