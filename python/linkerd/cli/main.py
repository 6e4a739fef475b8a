"""The `linkerd` command: its table of commands, and the one place that decides exit codes.

0: done. 1: anything that failed, wrong usage included (as with Linkerd's CLI). 130: interrupted.
"""

from __future__ import annotations

import os
import shutil
import sys

import click

from linkerd.cli.context import Context, global_options
from linkerd.cli.errors import UserError, explain, report
from linkerd.cli.groups import Entry, LazyGroup

_COMMANDS = "linkerd.cli.commands"

_OUT_OF_SCOPE = {
    "install-cni": "the proxy's init container sets the rules of a pod's network, there is no CNI plugin",
    "jaeger": "proxies pass trace headers on, but report to no collector; use your tracing system's own installation",
    "multicluster": "a mesh lives in one cluster; other clusters' services are reached like any outside service",
    "spire": "identities come from the control plane's own identity service, for pods only",
}

TABLE = {
    "authz": Entry(f"{_COMMANDS}.authz", "The policies that bear on a workload"),
    "check": Entry(f"{_COMMANDS}.check", "Check the installation for problems"),
    "cluster": Entry(f"{_COMMANDS}.cluster", "Run a Kubernetes of one machine, without containers"),
    "completion": Entry(f"{_COMMANDS}.completion", "Print a shell's completion script"),
    "diagnostics": Entry(f"{_COMMANDS}.diagnostics", "Look into the control plane and the proxies"),
    "dg": Entry(f"{_COMMANDS}.diagnostics", "", alias_of="diagnostics"),
    "identity": Entry(f"{_COMMANDS}.identity", "Show the certificates of meshed pods"),
    "inject": Entry(f"{_COMMANDS}.inject", "Add the proxy, or the wish for it, to manifests"),
    "install": Entry(f"{_COMMANDS}.install", "Print the manifests of the control plane"),
    "prune": Entry(f"{_COMMANDS}.prune", "Print objects that an older version left behind, for deletion"),
    "profile": Entry(f"{_COMMANDS}.profile", "Print a ServiceProfile made from OpenAPI, proto or a template"),
    "stat": Entry(f"{_COMMANDS}.stat", "Golden metrics from the proxies themselves, and which are not well"),
    **{
        name: Entry(f"{_COMMANDS}.viz.{name}", "", hidden=True, moved_to=f"linkerd viz {name}")
        for name in ("edges", "routes", "tap", "top")
    },
    **{name: Entry("", "", hidden=True, out_of_scope=reason) for name, reason in _OUT_OF_SCOPE.items()},
    "mc": Entry("", "", hidden=True, out_of_scope=_OUT_OF_SCOPE["multicluster"]),
    "uninject": Entry(f"{_COMMANDS}.uninject", "Remove the proxy from manifests"),
    "uninstall": Entry(f"{_COMMANDS}.uninstall", "Print the objects of the control plane, for deletion"),
    "upgrade": Entry(f"{_COMMANDS}.upgrade", "Print the manifests of an installed control plane anew"),
    "version": Entry(f"{_COMMANDS}.version", "Show the versions of the CLI and the control plane"),
    "viz": Entry(f"{_COMMANDS}.viz", "Metrics and live traffic"),
}

root = LazyGroup(
    "linkerd",
    TABLE,
    shared=global_options,
    help="A service mesh and its debugging toolkit.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def main(argv: list[str] | None = None) -> None:
    """The console script; never returns."""
    arguments = sys.argv[1:] if argv is None else argv
    if "_LINKERD_COMPLETE" in os.environ:
        _complete(os.environ["_LINKERD_COMPLETE"])
    _run_extension(arguments)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`); what Python still buffers has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    try:
        result = root.main(arguments, prog_name="linkerd", standalone_mode=False, obj=Context())
    except click.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.UsageError as error:
        _report_usage(error)
        return 1
    except click.ClickException as error:
        report(UserError(error.format_message()))
        return 1
    except BrokenPipeError:
        raise
    except Exception as error:
        explained = explain(error)
        if explained is None or "--verbose" in arguments:
            raise
        report(explained)
        return explained.exit_code
    return result if isinstance(result, int) else 0


def _complete(instruction: str) -> None:
    """What the completion scripts of `linkerd completion` ask for. Does not return."""
    from click.shell_completion import shell_complete

    try:
        sys.exit(shell_complete(root, {}, "linkerd", "_LINKERD_COMPLETE", instruction))
    except UserError:
        sys.exit(1)  # below a command that is out of scope there is nothing to complete


def _report_usage(error: click.UsageError) -> None:
    path = error.ctx.command_path if error.ctx else "linkerd"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print(error.format_message())
        return
    report(UserError(error.format_message(), f"run `{path} --help` for usage"))


def _run_extension(arguments: list[str]) -> None:
    """`linkerd foo` with no `foo` of ours becomes `linkerd-foo` of the PATH, as Linkerd's extensions expect."""
    if not arguments or arguments[0].startswith("-") or arguments[0] in TABLE:
        return
    program = shutil.which(f"linkerd-{arguments[0]}")
    if program is not None:
        os.execv(program, [program, *arguments[1:]])


if __name__ == "__main__":
    main()
