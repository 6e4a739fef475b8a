"""`linkerd cluster`: the embedded Kubernetes for itself."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.output.table import left_aligned
from linkerd.cluster.engine import logfiles, settings, state
from linkerd.cluster.engine.components import components
from linkerd.cluster.engine.settings import Settings
from linkerd.cluster.engine.state import StateError

if TYPE_CHECKING:
    from linkerd.cluster.engine.status import ClusterStatus

QUIET_SECONDS = 2.0
"""A start that is faster than this says nothing about its steps."""


class _Port(click.IntRange):
    name = "port"


def _instance_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--state-dir` and `--port` of every sub-command, with the environment's defaults."""
    for option in (
        click.option("--port", type=_Port(1, 65535), help="Of the API on 127.0.0.1 (LINKERD_CLUSTER_PORT, 6443)."),
        click.option(
            "--state-dir",
            type=click.Path(path_type=Path),
            help="Where the cluster lives (LINKERD_CLUSTER_DIR, /var/lib/linkerd-cluster).",
        ),
    ):
        command = option(command)
    return command


def _settings(state_dir: Path | None, port: int | None) -> Settings:
    try:
        default_dir, default_port = settings.instance_from(os.environ)
    except ValueError as error:
        raise UserError(str(error)) from error
    return settings.settings_for(state_dir or default_dir, port or default_port)


@contextmanager
def _state_errors() -> Iterator[None]:
    """What the state directory has to say, in our words."""
    try:
        yield
    except StateError as error:
        raise UserError(str(error), error.hint) from error


@click.group(name="cluster")
def command() -> None:
    """Run a Kubernetes of one machine, without containers."""


class Progress:
    """Steps on stderr with the seconds since the beginning, once it takes long enough to be worth a line."""

    def __init__(self, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._began = time.monotonic()
        self._quiet = quiet_seconds
        self._held = ""
        self._last = ""

    def __call__(self, step: str) -> None:
        elapsed = time.monotonic() - self._began
        line = f"{elapsed:5.1f} s  {step}"
        if step == self._last:
            return
        self._last = step
        if elapsed < self._quiet:
            self._held = line
            return
        for text in filter(None, (self._held, line)):
            print(text, file=sys.stderr, flush=True)
        self._held = ""


@command.command()
@_instance_options
def start(state_dir: Path | None, port: int | None) -> None:
    """Start the cluster and wait until it is ready.

    \b
    eval "$(linkerd cluster start)"
    """
    from linkerd.cluster.engine import starting

    config = _settings(state_dir, port)
    began = time.monotonic()
    # As with Ctrl-C: what has begun is ended before we go.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        started = starting.start(config, Progress())
    except starting.StartError as error:
        for line in error.log_lines:
            print(f"  {line}", file=sys.stderr)
        raise UserError(str(error), error.hint) from error
    if started.already:
        print(f"The cluster already runs on https://127.0.0.1:{config.port}", file=sys.stderr)
    else:
        took = time.monotonic() - began
        print(f"The cluster is ready on https://127.0.0.1:{config.port} ({took:.1f} s)", file=sys.stderr)
    print(f"export KUBECONFIG={shlex.quote(str(config.kubeconfig))}")


@command.command()
@_instance_options
def stop(state_dir: Path | None, port: int | None) -> None:
    """Stop the cluster; its state stays.

    \b
    linkerd cluster stop
    """
    from linkerd.cluster.engine import launching

    config = _settings(state_dir, port)
    with _state_errors():
        instance = state.running_instance(config)
    if instance is None:
        print(f"No cluster runs with {config.state_dir}", file=sys.stderr)
        return
    progress = Progress()
    try:
        graceful = launching.stop(instance, waiting=lambda: progress("stopping"))
    except PermissionError as error:
        raise UserError(f"process {instance.pid} is not yours to stop", "run it with sudo") from error
    how = "" if graceful else " (it had to be killed; its state is intact)"
    print(f"The cluster is stopped{how}", file=sys.stderr)


@command.command()
@_instance_options
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="How to print it.")
@pass_context
def status(ctx: Context, state_dir: Path | None, port: int | None, output: str) -> None:
    """Show the components with their memory. Fails when the cluster does not run.

    \b
    linkerd cluster status
    linkerd cluster status -o json
    """
    from linkerd.cluster.engine.status import cluster_status

    config = _settings(state_dir, port)
    with _state_errors():
        found = ctx.run(cluster_status(config))
    if output == "json":
        print(json.dumps(found.as_json(), indent=2))
    elif found.running:
        print(_status_text(found), end="")
    else:
        print(f"No cluster runs with {config.state_dir}")
    sys.exit(0 if found.running else 1)


def _status_text(found: ClusterStatus) -> str:
    from linkerd.cluster.engine.status import NOTES

    rows = [(c.name, c.state, str(c.pid or "-"), _mebibytes(c.pss_bytes), str(c.restarts)) for c in found.components]
    total = sum(c.pss_bytes or 0 for c in found.components)
    lines = [
        f"API:    https://127.0.0.1:{found.port} ({_readiness(found.api_ready)})",
        f"Node:   {settings.NODE_NAME} ({_readiness(found.node_ready)})",
        f"State:  {found.state_dir}",
        f"Memory: {_mebibytes(total)} (PSS, without the pods)",
        "",
        left_aligned(("COMPONENT", "STATE", "PID", "PSS", "RESTARTS"), rows),
        *(f"Note: {note}" for note in NOTES),
    ]
    return "\n".join(lines) + "\n"


def _readiness(ready: bool) -> str:
    return "ready" if ready else "not ready"


def _mebibytes(amount: int | None) -> str:
    return "-" if amount is None else f"{amount / 2**20:.1f} MiB"


@command.command()
@_instance_options
def kubeconfig(state_dir: Path | None, port: int | None) -> None:
    """Print the path of the administrator's kubeconfig.

    \b
    export KUBECONFIG="$(linkerd cluster kubeconfig)"
    """
    config = _settings(state_dir, port)
    if not config.kubeconfig.exists():
        raise UserError(f"{config.kubeconfig} is not there yet", "start the cluster with `linkerd cluster start`")
    print(config.kubeconfig)


@command.command()
@_instance_options
@click.argument("component", default="engine")
@click.option("--tail", "lines", type=click.IntRange(min=0), default=200, show_default=True, help="How many lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
def logs(state_dir: Path | None, port: int | None, component: str, lines: int, follow: bool) -> None:
    """Show the log of a COMPONENT (default: the engine's own).

    \b
    linkerd cluster logs
    linkerd cluster logs kube-apiserver
    """
    config = _settings(state_dir, port)
    known = ["engine", *(c.name for c in components(config))]
    if component not in known:
        raise UserError(f"no component is called `{component}`", f"one of: {', '.join(known)}")
    path = config.logs / f"{component}.log"
    if not path.exists():
        raise UserError(f"{path} is not there: {component} was never started", "start it with `linkerd cluster start`")
    offset = path.stat().st_size
    for line in logfiles.tail(path, lines):
        print(line)
    if follow:
        for text in logfiles.follow(path, offset, time.sleep):
            print(text, end="", flush=True)


@command.command()
@_instance_options
@click.option("--yes", is_flag=True, help="Do not ask.")
def reset(state_dir: Path | None, port: int | None, yes: bool) -> None:
    """Forget the whole state of a stopped cluster: all objects, keys, logs and added images.

    \b
    linkerd cluster reset
    """
    config = _settings(state_dir, port)
    if not state.is_cluster(config.state_dir):
        raise UserError(f"{config.state_dir} is not a cluster's state directory", "name it with `--state-dir`")
    with _state_errors():
        if state.running_instance(config) is not None:
            raise UserError(f"the cluster with {config.state_dir} runs", "stop it first: `linkerd cluster stop`")
        if not yes:
            click.confirm(f"Delete everything in {config.state_dir}?", abort=True, err=True)
        state.forget(config)
    print(f"The state in {config.state_dir} is forgotten", file=sys.stderr)


@command.group()
def image() -> None:
    """Programs of your own as images."""


@image.command()
@_instance_options
@click.argument("name")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("cmd", nargs=-1, type=click.UNPROCESSED)
@click.option("--env", "-e", "environment", multiple=True, metavar="KEY=VALUE", help="A variable of its processes.")
@click.option("--workdir", default="", help="Where its processes start.")
@click.option("--user", default="", help="As whom they run (UID or UID:GID).")
def add(
    state_dir: Path | None,
    port: int | None,
    name: str,
    source: Path,
    cmd: tuple[str, ...],
    environment: tuple[str, ...],
    workdir: str,
    user: str,
) -> None:
    """Make SOURCE, a directory or an OCI archive, known under NAME. What stands after `--` is the command.

    \b
    linkerd cluster image add shop/web:1 ./web -- ./serve --port 8080
    """
    from linkerd.cluster.engine import images

    config = _settings(state_dir, port)
    wish = images.Wish(name, tuple(cmd), images.parse_environment(environment), workdir, user)
    with _state_errors():
        state.prepare(config)
    try:
        path = images.add_image(config.images, source, wish)
    except images.ImageError as error:
        raise UserError(str(error), error.hint) from error
    print(f"Pods may use the image `{name}` now ({path})", file=sys.stderr)
