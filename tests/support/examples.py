"""The examples in the help of every command, so that tests can run them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
from linkerd.cli.main import root

_EXAMPLE = re.compile(r"\s*((?:linkerd|kubectl|source|eval|export) .*\blinkerd\b.*|linkerd .*)")

Path = tuple[str, ...]


def commands(group: click.Command = root, path: Path = ("linkerd",)) -> Iterator[tuple[Path, click.Command]]:
    """Every command that is no group, by the words that one types."""
    if not isinstance(group, click.Group):
        yield path, group
        return
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        found = group.get_command(ctx, name)
        assert found is not None
        yield from commands(found, (*path, name))


def examples(command: click.Command) -> list[str]:
    lines = (command.help or "").splitlines()
    return [match[1] for line in lines if (match := _EXAMPLE.fullmatch(line))]
