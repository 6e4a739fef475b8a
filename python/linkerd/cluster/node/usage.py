"""CPU and memory of containers and of the machine, from /proc.

A container is the processes of its PID namespace. CPU is theirs plus that of the children they have reaped, so it never
goes back while the container runs. Memory is PSS: pages that several processes share count in parts, and the sum over
all containers is what they really take.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds since the start, bytes now."""

    cpu_seconds: float
    memory_bytes: int


def parse_cpu_ticks(stat: str) -> int:
    """utime + stime + cutime + cstime of /proc/PID/stat; the name in it may hold spaces and parentheses."""
    fields = stat.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])


def parse_pss(rollup: str) -> int | None:
    """The Pss line of /proc/PID/smaps_rollup in bytes."""
    for line in rollup.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


def processes_by_namespace(proc: Path = Path("/proc")) -> dict[int, list[int]]:
    """All processes in sight, by the inode of their PID namespace."""
    found: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir(proc):
        if name.isdigit():
            try:
                found[os.stat(proc / name / "ns/pid").st_ino].append(int(name))
            except OSError:
                continue  # ended meanwhile
    return found


def namespace_of(pid: int) -> int | None:
    """The inode of a process's PID namespace; None when it has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None


def usage_of(pids: Iterable[int]) -> Usage:
    """The sum over processes; those that end meanwhile do not count."""
    ticks, memory = 0, 0
    for pid in pids:
        try:
            ticks += parse_cpu_ticks(Path(f"/proc/{pid}/stat").read_text())
            memory += _memory(pid)
        except OSError:
            continue
    return Usage(ticks / _TICK, memory)


def _memory(pid: int) -> int:
    pss = parse_pss(Path(f"/proc/{pid}/smaps_rollup").read_text())
    if pss is not None:
        return pss
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as a whole."""

    usage: Usage
    available_bytes: int
    booted: float


def read_machine() -> Machine:
    """From /proc/stat, /proc/meminfo and the boot clock."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    busy = sum(int(first[index]) for index in (1, 2, 3, 6, 7, 8))  # all but idle and iowait; guest is in user
    memory = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        memory[name] = int(rest.split()[0]) * 1024
    used = memory["MemTotal"] - memory["MemAvailable"]
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return Machine(Usage(busy / _TICK, used), memory["MemAvailable"], booted)
