"""Groups of commands that import a command's module only when it is used, so that `linkerd version` starts fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import click

from linkerd.cli.context import global_options
from linkerd.cli.errors import UserError

Options = Callable[[bool], list[click.Option]]
"""Makes options anew; the argument says whether help hides them."""


class Entry(NamedTuple):
    """One line of a group's table. The module exports `command`; `help` is shown without importing it."""

    module: str
    help: str
    hidden: bool = False
    alias_of: str = ""
    moved_to: str = ""
    """Where the command is found nowadays; said on stderr before it runs."""
    out_of_scope: str = ""
    """Why Linkerd's command of this name is not here; said instead of running anything."""


class LazyGroup(click.Group):
    """A group whose commands are a table of `Entry`. Its `shared` options may be given to each command too."""

    def __init__(self, name: str, table: Mapping[str, Entry], *, shared: Options | None = None, **more: Any) -> None:
        super().__init__(name, params=shared(False) if shared else [], **more)
        self.table = table
        self._shared = shared

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(name for name, entry in self.table.items() if not (entry.hidden or entry.alias_of))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.table.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = importlib.import_module(entry.module).command
        for shared in {self._shared, global_options} - {None}:
            _add_options(command, shared(True))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.table:
            raise click.UsageError(f'unknown command "{name}" for "{ctx.command_path}"', ctx)
        if reason := self.table[name].out_of_scope:
            raise UserError(f"`{ctx.command_path} {name}` is out of scope: {reason}")
        if moved_to := self.table[name].moved_to:
            print(f'Command "{name}" is deprecated, use instead `{moved_to}`\n', file=sys.stderr)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.table[name].help) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _add_options(command: click.Command, options: list[click.Option]) -> None:
    """Gives the command the options of the groups above it, unless it defines its own of that name."""
    taken = {name for parameter in command.params for name in parameter.opts}
    command.params += [option for option in options if not taken.intersection(option.opts)]
    if not command.epilog:
        command.epilog = "The global options of `linkerd --help` may be given here too."
