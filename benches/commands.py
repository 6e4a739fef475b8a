"""How long the command line takes: to start, and to check a healthy cluster (`KUBECONFIG`, if one is at hand).

An empty Python is run in turn with ours, so that both see the same machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
ROUNDS = 20
START_LIMIT, START_GOAL = 8.0, 5.0
CHECK_LIMIT, CHECK_GOAL = 5.0, 2.0
CHECK_ROUNDS = 3


def seconds(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def start() -> float:
    """`version --client` in times of an empty Python, medians of both."""
    empty, ours = [], []
    for _ in range(ROUNDS):
        empty.append(seconds(sys.executable, "-c", "pass"))
        ours.append(seconds(str(BIN / "linkerd"), "version", "--client"))
    return statistics.median(ours) / statistics.median(empty)


def check() -> float:
    """`linkerd check`, the median of a few."""
    return statistics.median(seconds(str(BIN / "linkerd"), "check") for _ in range(CHECK_ROUNDS))


def told(name: str, value: float, unit: str, goal: float, limit: float) -> bool:
    """Whether it is within the limit; a line says so."""
    verdict = "meets the goal" if value <= goal else "within the limit" if value <= limit else "TOO SLOW"
    print(f"{name:<28} {value:6.2f} {unit:<16} (goal {goal:g}, limit {limit:g}): {verdict}")
    return value <= limit


def main() -> int:
    fine = [told("linkerd version --client", start(), "x empty Python", START_GOAL, START_LIMIT)]
    if os.environ.get("KUBECONFIG"):
        fine.append(told("linkerd check", check(), "s", CHECK_GOAL, CHECK_LIMIT))
    else:
        print("linkerd check                not measured: KUBECONFIG names no cluster")
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
