"""`linkerd completion`: a shell's completion script."""

from __future__ import annotations

import click

from linkerd.cli.errors import UserError

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print a shell's completion script")
@click.argument("shell")
def command(shell: str) -> None:
    """Print a completion script for bash, zsh or fish.

    \b
    source <(linkerd completion bash)
    linkerd completion zsh
    linkerd completion fish
    """
    if shell not in SHELLS:
        raise UserError(f"unsupported shell type (must be bash, zsh or fish): {shell}")
    from click.shell_completion import get_completion_class

    from linkerd.cli.main import root

    kind = get_completion_class(shell)
    if kind is None:
        raise UserError(f"no completion for {shell}")
    if shell == "bash":
        # click asks the bash at hand for its version, which may not be the one that will read the script.
        kind._check_version = lambda *_: None  # type: ignore[attr-defined]
    print(kind(root, {}, "linkerd", "_LINKERD_COMPLETE").source())
