"""`linkerd viz top`: a live table of the most frequent requests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

import click

from linkerd.cli.completing import RESOURCE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.tapping import say_on_stderr, tap_events, tap_options, tap_request

if TYPE_CHECKING:
    import curses

    from linkerd.cli.output.top import Top

_STEP = 5  # columns per key press
_FIRST_ROW = 4


@click.command(short_help="A live table of the most frequent requests")
@click.argument("resource", nargs=-1, required=True, metavar="(TYPE/NAME | TYPE NAME | TYPE)", type=RESOURCE)
@tap_options
@click.option("--hide-sources", is_flag=True, help="Leave out who calls.")
@click.option("--routes", is_flag=True, help="By the routes of ServiceProfiles instead of method and path.")
@pass_context
def command(ctx: Context, **options: Any) -> None:
    """A live table of the most frequent requests. Into a pipe, a table each second.

    \b
    linkerd viz top deploy/api-service -n production
    linkerd viz top deploy/api-service -n production --duration 10s | cat
    """
    from linkerd.cli.output.top import Top

    top = Top(routes=options["routes"], hide_sources=options["hide_sources"])
    if sys.stdout.isatty() and sys.stdin.isatty():
        _full_screen(lambda window: ctx.run(_live(ctx, top, options, _Screen(window))))
    else:
        ctx.run(_live(ctx, top, options, _Pipe()))


class _Quit(Exception):
    """The person has seen enough."""


async def _live(ctx: Context, top: Top, options: dict[str, Any], view: _View) -> None:
    """Draws what was counted so far, now and then, until the tap ends; and once more then."""
    try:
        async with asyncio.TaskGroup() as group:
            drawing = group.create_task(_draw_often(top, view))
            request = tap_request(ctx, options)
            async with aclosing(tap_events(ctx, request, seconds=options["duration"], say=view.say)) as events:
                async for event in events:
                    top.add(event)
            drawing.cancel()
            view.draw(top)
    except* _Quit:
        pass


async def _draw_often(top: Top, view: _View) -> None:
    while True:
        await asyncio.sleep(view.seconds)
        view.draw(top)


class _View(Protocol):
    """Where the table goes, and how often."""

    seconds: float

    def draw(self, top: Top) -> None: ...

    def say(self, text: str) -> None: ...


class _Pipe:
    """Table after table on stdout."""

    seconds = 1.0

    def draw(self, top: Top) -> None:
        from linkerd.cli.output.top import table

        rows = top.rows()
        if rows:
            sys.stdout.write("\n".join(table(top.headings, rows, top.right_aligned)) + "\n\n")
            sys.stdout.flush()

    def say(self, text: str) -> None:
        say_on_stderr(text)


def _full_screen(run: Callable[[curses.window], None]) -> None:
    import curses

    curses.wrapper(run)


class _Screen:
    """The terminal: keys in, table out."""

    seconds = 0.1

    def __init__(self, window: curses.window) -> None:
        import curses

        self._window = window
        self._left = 0
        self._message = ""
        window.nodelay(True)
        try:
            curses.curs_set(0)
        except curses.error:
            pass  # a terminal that cannot hide its cursor shows it

    def say(self, text: str) -> None:
        self._message = text

    def draw(self, top: Top) -> None:
        """Raises _Quit when that was asked for."""
        from linkerd.cli.output.top import table

        self._read_keys()
        self._window.erase()
        self._put(0, "(press q to quit)", whole=True)
        self._put(1, "(press a/LeftArrowKey to scroll left, d/RightArrowKey to scroll right)", whole=True)
        self._put(2, self._message, whole=True)
        lines = table(top.headings, top.rows(), top.right_aligned)
        self._put(_FIRST_ROW - 1, lines[0], bold=True)
        for row, line in enumerate(lines[1:], _FIRST_ROW):
            self._put(row, line)
        self._window.refresh()

    def _read_keys(self) -> None:
        import curses

        while (key := self._window.getch()) != -1:
            if key in (ord("q"), 3):
                raise _Quit
            if key in (ord("a"), curses.KEY_LEFT):
                self._left = max(0, self._left - _STEP)
            if key in (ord("d"), curses.KEY_RIGHT):
                self._left += _STEP

    def _put(self, row: int, text: str, *, bold: bool = False, whole: bool = False) -> None:
        import curses

        height, width = self._window.getmaxyx()
        if row < height:
            shown = text if whole else text[self._left :]
            # The last cell of the screen cannot be written: curses would move the cursor beyond it.
            self._window.addnstr(row, 0, shown, max(0, width - 1), curses.A_BOLD if bold else curses.A_NORMAL)
