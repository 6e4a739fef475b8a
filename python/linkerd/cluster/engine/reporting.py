"""How the first process tells the command that started it how far it has come: JSON lines through a pipe."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TextIO


class StartFailed(Exception):
    """The cluster did not come up; `component` is who failed, `reason` how."""

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(f"{component} {reason}" if component != "engine" else reason)
        self.component = component
        self.reason = reason


class Report:
    """The writing end. A reader that has gone away is no reason to stop."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def step(self, text: str) -> None:
        """What is being waited for from now on."""
        self._send({"step": text})

    def ready(self) -> None:
        """The last word of a start that went well."""
        self._send({"ready": True})
        self._close()

    def failed(self, failure: StartFailed) -> None:
        """The last word of one that did not."""
        self._send({"failed": failure.component, "reason": failure.reason})
        self._close()

    def _send(self, message: dict[str, object]) -> None:
        if self._fd < 0:
            return
        try:
            os.write(self._fd, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_report(stream: TextIO) -> Iterator[str]:
    """The steps, until the cluster is ready. Raises StartFailed, also when the report ends without a last word."""
    for line in stream:
        message = json.loads(line)
        if "step" in message:
            yield message["step"]
        elif "failed" in message:
            raise StartFailed(message["failed"], message["reason"])
        else:
            return
    raise StartFailed("engine", "the first process ended before the cluster was ready")
