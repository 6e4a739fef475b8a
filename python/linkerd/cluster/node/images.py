"""From an image's name to a program: this node pulls nothing, a name is a lookup (pure).

The mesh's own images, the cluster's add-ons, Prometheus and the demo's are built in and resolve to the programs of
this installation, whatever their tag or digest says. A plain shell image means the host's own root. All others must
have been added by `linkerd cluster image add`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)


class UnknownImage(LookupError):
    """No image of this name; the message tells how to add one."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f'image "{name}" is not on this node: the embedded cluster pulls nothing. '
            f"Add it with `linkerd cluster image add {name} DIR` (or an OCI archive)"
        )


@dataclass(frozen=True, slots=True)
class Image:
    """What a container runtime takes from an image. Without `root` the container sees the host's root."""

    name: str
    id: str
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = ""
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class ImageName:
    """A parsed reference: `repository` is complete (`docker.io/library/busybox`), tag and digest may be empty."""

    repository: str
    tag: str
    digest: str


def parse_image_name(text: str) -> ImageName:
    """Split `[host/]path[:tag][@digest]`, with Docker's defaults for a name without host."""
    rest, _, digest = text.partition("@")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    first, slash, _ = head.partition("/")
    if not slash:
        head = f"docker.io/library/{head}"
    elif "." not in first and ":" not in first and first != "localhost":
        head = f"docker.io/{head}"
    return ImageName(head, tag, digest)


@dataclass(frozen=True, slots=True)
class Programs:
    """Where this installation's programs are."""

    bin_dir: Path

    def entrypoint(self, *words: str) -> tuple[str, ...]:
        """The program of that name with its first arguments."""
        return (str(self.bin_dir / words[0]), *words[1:])


_PROGRAMS = {
    "cr.l5d.io/linkerd/proxy": ("linkerd2-proxy",),
    "cr.l5d.io/linkerd/controller": ("linkerd-controller",),
    "docker.io/prom/prometheus": ("prometheus",),
    "registry.k8s.io/coredns/coredns": ("linkerd-kube", "coredns"),
    "registry.k8s.io/metrics-server/metrics-server": ("linkerd-kube", "metrics-server"),
    "linkerd.io/demo": ("python", "-m", "linkerd_demo"),
}
_HOST_ROOTS = frozenset({"docker.io/library/busybox", "docker.io/library/debian"})


def lookup(name: str, programs: Programs, added: Mapping[str, Image]) -> Image:
    """The image of that name: what the user added comes first. Raises UnknownImage.

    An image that was added without a tag stands for any tag; one with a tag only for that.
    """
    wanted = parse_image_name(name)
    for key in (f"{wanted.repository}@{wanted.digest}", f"{wanted.repository}:{wanted.tag}", wanted.repository):
        if key in added:
            return added[key]
    if wanted.tag == "" and f"{wanted.repository}:latest" in added:
        return added[f"{wanted.repository}:latest"]
    if wanted.repository in _PROGRAMS:
        entrypoint = programs.entrypoint(*_PROGRAMS[wanted.repository])
        return Image(name, _digest(wanted.repository), entrypoint)
    if wanted.repository in _HOST_ROOTS:
        return Image(name, _digest(wanted.repository))
    raise UnknownImage(name)


def added_images(directory: Path) -> dict[str, Image]:
    """What `linkerd cluster image add` has put there, by `key_of` its name. A damaged file is told and left out."""
    images = {}
    for path in sorted(directory.glob("*.json")):
        try:
            image = parse_image(path.read_text())
        except ValueError as error:
            log.error("image description %s: error: %s", path, error)
            continue
        images[key_of(image.name)] = image
    return images


def key_of(name: str) -> str:
    """The complete repository, with tag or digest if the name has one."""
    parsed = parse_image_name(name)
    if parsed.digest:
        return f"{parsed.repository}@{parsed.digest}"
    return f"{parsed.repository}:{parsed.tag}" if parsed.tag else parsed.repository


def parse_image(text: str) -> Image:
    """One file of the images directory. Raises ValueError."""
    try:
        raw = json.loads(text)
        return Image(
            name=raw["name"],
            id=raw.get("id") or _digest(text),
            entrypoint=tuple(raw.get("entrypoint") or ()),
            cmd=tuple(raw.get("cmd") or ()),
            env=dict(raw.get("env") or {}),
            workdir=raw.get("workdir") or "/",
            user=raw.get("user") or "",
            root=Path(raw["root"]) if raw.get("root") else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an image description: {error!r}") from error


def _digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
