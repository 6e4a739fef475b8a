"""Where installer and injector meet: the control plane's own pods are meshed by the injector's pure function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from linkerd import VERSION
from linkerd.cli.errors import UserError
from linkerd.injector.inject import Owner, inject
from linkerd.injector.settings import settings_from_values
from linkerd.install import control_plane
from linkerd.install.values import (
    Values,
    ValuesError,
    check_values,
    default_values,
    merged,
    parse_values,
    with_settings,
)

Object = dict[str, Any]

CREATED_BY = "linkerd/cli"

HIGH_AVAILABILITY: Values = {
    "controllerReplicas": 3,
    "highAvailability": True,
    "webhookFailurePolicy": "Fail",
    **{
        name: {"cpu": {"request": "100m"}, "memory": {"request": "64Mi", "limit": "250Mi"}}
        for name in ("destinationResources", "identityResources", "policyControllerResources", "proxyInjectorResources")
    },
    "proxy": {"resources": {"cpu": {"request": "100m"}, "memory": {"request": "20Mi", "limit": "250Mi"}}},
}
"""What `--ha` sets, before the values that the user gives."""


def values_options(command: Any) -> Any:
    """`--set`, `--set-string`, `--set-file`, `-f`, as Helm has them."""
    for option in (
        click.option(
            "-f", "--values", "files", multiple=True, metavar="FILE", help="A file of values (may be repeated)."
        ),
        click.option(
            "--set-file", "set_files", multiple=True, metavar="KEY=FILE", help="Set a value to a file's text."
        ),
        click.option(
            "--set-string", "set_strings", multiple=True, metavar="KEY=VALUE", help="Set a value to a string."
        ),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set a value (may be repeated)."),
    ):
        command = option(command)
    return command


def given_values(
    files: tuple[str, ...], sets: tuple[str, ...], set_strings: tuple[str, ...], set_files: tuple[str, ...]
) -> Values:
    """What the user asks for, files first. Raises UserError."""
    values: Values = {}
    try:
        for name in files:
            values = merged(values, parse_values(Path(name).read_text(), name))
        values = with_settings(with_settings(values, sets), set_strings, as_strings=True)
        for assignment in set_files:
            key, _, name = assignment.partition("=")
            text = Path(name).read_text().replace("\\", "\\\\").replace(",", "\\,")
            values = with_settings(values, [f"{key}={text}"], as_strings=True)
    except ValuesError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    return values


def complete_values(given: Mapping[str, Any], defaults_name: str = "values.yaml") -> Values:
    """The defaults with what was given; unknown names are refused, since they would change nothing."""
    defaults = default_values(defaults_name)
    values = merged(defaults, given)
    values["linkerdVersion"] = values.get("linkerdVersion") or VERSION
    try:
        unknown = check_values(values, defaults)
    except ValuesError as error:
        raise UserError(str(error)) from error
    if unknown:
        raise UserError(
            f"unknown values: {', '.join(unknown)}",
            "`linkerd install --print-values` lists all with their defaults",
        )
    return values


def control_plane_documents(installation: control_plane.Installation) -> list[Object]:
    """All objects of the control plane, its pods meshed."""
    published = control_plane.published_values(installation)
    settings = settings_from_values(published, installation.namespace, installation.credentials.anchors)

    def mesh(template: Object, component: str, deployment: str) -> Object:
        owner = Owner("Deployment", deployment)
        done = inject(template, installation.namespace, {}, owner, settings, component=component, created_by=CREATED_BY)
        return done.pod

    return control_plane.render(installation, mesh)
