"""`linkerd-controller <component> [flags]`: one program, one process per component.

Modules are imported only when they are asked for, so a process carries no other component's memory.
"""

from __future__ import annotations

import importlib
import os
import sys

COMPONENTS = {
    "identity": "linkerd.runtime.identity",
    "destination": "linkerd.runtime.destination",
    "policy": "linkerd.runtime.policy",
    "sp-validator": "linkerd.runtime.sp_validator",
    "proxy-injector": "linkerd.runtime.proxy_injector",
    "metrics-api": "linkerd.runtime.metrics_api",
    "tap": "linkerd.runtime.tap",
}
"""Each module has `main(argv: list[str]) -> int`: the flags in, the exit code out."""

_USAGE = f"usage: linkerd-controller ({' | '.join(COMPONENTS)}) [flags]\n"


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        return 0
    if not arguments or arguments[0] not in COMPONENTS:
        unknown = f"unknown component `{arguments[0]}`\n" if arguments else ""
        sys.stderr.write(unknown + _USAGE)
        return 2
    # Lines about each closed connection, in a format of its own, are no log of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    return importlib.import_module(COMPONENTS[arguments[0]]).main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
