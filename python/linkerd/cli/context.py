"""What every command has: the global flags, the cluster they choose, and a way to run a coroutine.

A command takes it as its first argument:

    @click.command()
    @pass_context
    def command(ctx: Context) -> None:
        ctx.run(_show(ctx))
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from linkerd.cli.errors import UserError

if TYPE_CHECKING:
    from linkerd.k8s.client import Client
    from linkerd.k8s.config import ClusterConfig

T = TypeVar("T")

_NAMESPACE = re.compile(r"[a-zA-Z0-9-]+")


@dataclass
class Context:
    """The global flags of one invocation. `linkerd_namespace` is where the control plane lives."""

    api_addr: str = ""
    impersonate_user: str = ""
    impersonate_groups: tuple[str, ...] = ()
    kube_context: str = ""
    kubeconfig: str = ""
    linkerd_namespace: str = "linkerd"
    viz_namespace: str = ""
    verbose: bool = False
    _config: ClusterConfig | None = field(default=None, repr=False)

    def config(self) -> ClusterConfig:
        """The chosen cluster and who we are there; raises ConfigError."""
        if self._config is None:
            from dataclasses import replace

            from linkerd.k8s.config import load_config

            loaded = load_config(self.kubeconfig or None, self.kube_context or None)
            self._config = replace(
                loaded, impersonate_user=self.impersonate_user, impersonate_groups=self.impersonate_groups
            )
        return self._config

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the chosen cluster; raises ConfigError."""
        from linkerd import VERSION
        from linkerd.k8s.client import Client

        async with Client(self.config(), user_agent=f"linkerd/{VERSION}") as client:
            yield client

    def namespace(self, flag: str | None = None) -> str:
        """The `-n` flag, else the namespace of the kubeconfig's context, else `default`."""
        return flag or self.config().namespace or "default"

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs to the end. Errors pass to `main`, which explains them."""
        import asyncio

        if self.verbose:
            import logging

            logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
        return asyncio.run(coroutine)


pass_context = click.make_pass_decorator(Context, ensure=True)


def checked_namespace(value: str) -> str:
    """The value; raises UserError when it cannot be a namespace."""
    if not _NAMESPACE.fullmatch(value):
        raise UserError(f"{value} is not a valid namespace")
    return value


def _store(name: str) -> Any:
    def callback(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        source = ctx.get_parameter_source(parameter.name or "")
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
            state = ctx.ensure_object(Context)
            setattr(state, name, checked_namespace(value) if name.endswith("_namespace") and value else value)

    return callback


def global_options(hidden: bool = False) -> list[click.Option]:
    """The root's flags. Commands take them too, hidden, so that they may stand anywhere on the line."""

    def option(*names: str, to: str, text: str, **more: Any) -> click.Option:
        return click.Option(
            [*names, f"global_{to}"], expose_value=False, callback=_store(to), help=text, hidden=hidden, **more
        )

    return [
        option("--api-addr", to="api_addr", metavar="HOST:PORT", text="Reach this address instead of a port-forward."),
        option("--as", to="impersonate_user", metavar="USER", text="Act as this user."),
        option("--as-group", to="impersonate_groups", metavar="GROUP", multiple=True, text="Act as this group."),
        option("--context", to="kube_context", metavar="NAME", text="The kubeconfig's context to use."),
        option("--kubeconfig", to="kubeconfig", metavar="FILE", text="The kubeconfig to use."),
        option(
            "-L",
            "--linkerd-namespace",
            to="linkerd_namespace",
            metavar="NAMESPACE",
            envvar="LINKERD_NAMESPACE",
            text="Where the control plane is installed (default: linkerd).",
        ),
        option("--verbose", to="verbose", is_flag=True, text="Debug messages on stderr."),
    ]


def viz_options(hidden: bool = False) -> list[click.Option]:
    """What `linkerd viz` has besides."""
    return [
        click.Option(
            ["--viz-namespace", "global_viz_namespace"],
            expose_value=False,
            callback=_store("viz_namespace"),
            metavar="NAMESPACE",
            help="Where viz is installed (default: found by its label).",
            hidden=hidden,
        )
    ]
