"""The sidecar beside its peers: client pod → sidecar ⇒ mTLS ⇒ sidecar → server pod; prints benches/README.md's table.

Needs root, for namespaces of its own. `make bench` builds what it needs and runs all of it; afterwards
`.venv/bin/python benches/proxy.py SCENARIO…` repeats some. Envoy comes from its wheel, HAProxy and nginx are Debian's;
a peer that is not there is left out.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from sidecars import lab, peers
from sidecars.scenarios import SCENARIOS, Bench, Row

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; none: all")
    parser.add_argument("--rounds", type=int, default=4, help="how often each peer has its turn (%(default)s)")
    parser.add_argument("--seconds", type=float, default=3, help="of each turn (%(default)s)")
    parser.add_argument("--peers", default="envoy,haproxy,nginx", help="to compare with (%(default)s)")
    parser.add_argument("--proxy", type=Path, default=BIN / "linkerd2-proxy", help="the binary (%(default)s)")
    parser.add_argument("--rig", type=Path, default=BIN / "rig", help="the clients' and servers' binary (%(default)s)")
    found = parser.parse_args()
    unknown = set(found.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    return found


def available(wanted: str, programs: dict[str, Path]) -> list[str]:
    names = []
    for name in filter(None, wanted.split(",")):
        if name in programs or shutil.which(name):
            names.append(name)
        else:
            print(f"{name} is not installed and left out", file=sys.stderr)
    return names


def main() -> int:
    options = arguments()
    lab.enclose()
    programs = peers.programs(BIN, options.rig, options.proxy)
    names = available(options.peers, programs)
    with_programs = lab.Lab(programs)
    try:
        certificates = with_programs.rig(
            "certificates", directory=str(with_programs.directory), names=[peers.CLIENT_ID, peers.SERVER_ID]
        )
        subprocess.run(certificates, check=True)
        for path in with_programs.directory.glob("*.*"):
            path.chmod(0o644)
        bench = Bench(with_programs, names, options.rounds, options.seconds)
        return run(bench, options.scenarios or list(SCENARIOS))
    except KeyboardInterrupt:
        return 130
    finally:
        with_programs.close()


def run(bench: Bench, names: list[str]) -> int:
    print("| what | must | goal | measured |\n| --- | --- | --- | --- |", flush=True)
    failed = False
    for name in names:
        try:
            for row in SCENARIOS[name](bench):
                print(line(row), flush=True)
        except (RuntimeError, OSError) as error:
            failed = True
            print(f"{name} failed: {error}", file=sys.stderr)
    return 1 if failed else 0


def line(row: Row) -> str:
    must, goal = (mark(text, met) for text, met in zip((row.must, row.goal), row.met, strict=True))
    return f"| {row.what} | {must} | {goal} | {row.measured} |"


def mark(text: str, met: bool | None) -> str:
    return text if met is None else f"{text} {'✓' if met else '✗'}"


if __name__ == "__main__":
    sys.exit(main())
