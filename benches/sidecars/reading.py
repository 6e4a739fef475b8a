"""Readings from /proc."""

from __future__ import annotations

from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """The time that all threads of a process have run, to the nanosecond; threads that ended are not in it."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def memory(pid: int) -> int:
    """Resident bytes, shared pages included."""
    return _status(pid, "VmRSS")


def peak_memory(pid: int) -> int:
    """The most resident bytes since `forget_peak`."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise LookupError(f"process {pid} has no {field}")
