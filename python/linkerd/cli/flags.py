"""Flags that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from linkerd.cli.completing import NAMESPACE
from linkerd.kit.durations import parse_duration


class Duration(click.ParamType):
    """A Go duration (`30s`, `1m30s`), given to the command in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = Duration()


def namespace_option(text: str = "Namespace (default: that of the kubeconfig's context).") -> Callable[[Any], Any]:
    """`-n/--namespace`, empty when not given."""
    return click.option("-n", "--namespace", default="", metavar="NAMESPACE", type=NAMESPACE, help=text)
