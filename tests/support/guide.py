"""The guide's blocks, read from Markdown, and a shell that types them."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from support.demo import Demo

_BLOCK = re.compile(r"^```(bash|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_GOES_ON = re.compile(r"[\\|]\s*$")
_FILE_NAME = re.compile(r"^# (\S+\.yaml)$", re.MULTILINE)
_ENDLESS = re.compile(r"viz (tap|top|dashboard)|logs .*-f$")
ENDLESS_SECONDS = 8.0


@dataclass(frozen=True)
class Section:
    """One heading: what is typed there, a string for each command, and the manifests by their file names."""

    title: str
    commands: tuple[str, ...]
    manifests: Mapping[str, str]


def sections(path: Path) -> dict[str, Section]:
    found = {}
    for part in re.split(r"^## ", path.read_text(), flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        blocks = _BLOCK.findall(text)
        typed = tuple(line for kind, body in blocks if kind == "bash" for line in commands(body))
        manifests = {_FILE_NAME.search(body)[1]: body for kind, body in blocks if kind == "yaml"}
        found[title] = Section(title, typed, manifests)
    return found


def commands(body: str) -> Iterator[str]:
    """A command may go on over several lines, and an opened quote goes on to its end."""
    pending = ""
    for line in body.splitlines():
        if not pending and (not line.strip() or line.startswith("#")):
            continue
        pending += line
        if _GOES_ON.search(line) or pending.count("'") % 2:
            pending += "\n"
            continue
        yield pending
        pending = ""
    assert not pending, pending


@dataclass
class Typed:
    """What a command printed, and how it ended (None: it was stopped, as a person stops what never ends)."""

    command: str
    stdout: str
    stderr: str
    code: int | None


@dataclass
class Shell:
    """Types commands in a directory, with the guide's placeholders filled in."""

    demo: Demo
    directory: Path
    placeholders: dict[str, str] = field(default_factory=dict)

    def run(self, section: Section, **placeholders: str) -> list[Typed]:
        """All of a section in their order. An underscore in a placeholder's name stands for a hyphen."""
        return [self.type(command, **placeholders) for command in section.commands]

    def type(self, command: str, **placeholders: str) -> Typed:
        chosen = self.placeholders | {name.replace("_", "-"): value for name, value in placeholders.items()}
        for name in sorted(chosen, key=len, reverse=True):
            command = command.replace(f"<{name}>", chosen[name]).replace(name, chosen[name])
        return self._endless(command) if _ENDLESS.search(command) else self._to_its_end(command)

    def _to_its_end(self, command: str) -> Typed:
        done = subprocess.run(
            ["bash", "-c", command], **self._where(), capture_output=True, text=True, timeout=180, check=False
        )
        return Typed(command, done.stdout, done.stderr, done.returncode)

    def _endless(self, command: str) -> Typed:
        """Its output is a terminal's, since grep and jq keep back what they print into a file."""
        master, slave = pty.openpty()
        stopped = ["timeout", "--signal=INT", "--kill-after=10", str(ENDLESS_SECONDS), "bash", "-c", command]
        process = subprocess.Popen(
            stopped, **self._where(), stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE, text=True
        )
        os.close(slave)
        read: list[bytes] = []
        reader = threading.Thread(target=_read_all, args=(master, read))
        reader.start()
        _, errors = process.communicate(timeout=ENDLESS_SECONDS + 60)
        reader.join()
        os.close(master)
        code = None if process.returncode in (124, 130, 137) else process.returncode
        return Typed(command, b"".join(read).decode().replace("\r\n", "\n"), errors, code)

    def _where(self) -> dict[str, object]:
        return {"cwd": self.directory, "env": self.demo.environment}


def _read_all(master: int, into: list[bytes]) -> None:
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:
            return  # the last process that wrote has gone
        if not data:
            return
        into.append(data)
