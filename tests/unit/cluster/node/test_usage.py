from __future__ import annotations

import os

from linkerd.cluster.node.usage import (
    namespace_of,
    parse_cpu_ticks,
    parse_pss,
    processes_by_namespace,
    read_machine,
    usage_of,
)


def test_cpu_counts_reaped_children_and_any_name() -> None:
    fields = " ".join(str(number) for number in range(3, 53))
    assert parse_cpu_ticks(f"7 (a) b (c) {fields}") == 14 + 15 + 16 + 17


def test_pss_is_in_kilobytes() -> None:
    assert parse_pss("Rss: 20 kB\nPss:      12 kB\nPss_Dirty: 3 kB\n") == 12 * 1024
    assert parse_pss("Rss: 20 kB\n") is None


def test_this_process_is_seen() -> None:
    own = namespace_of(os.getpid())
    assert own is not None
    assert os.getpid() in processes_by_namespace()[own]
    assert usage_of([os.getpid()]).memory_bytes > 0


def test_processes_that_are_gone_do_not_count() -> None:
    assert usage_of([2**22 + 1]).memory_bytes == 0
    assert namespace_of(2**22 + 1) is None


def test_the_machine_has_been_busy() -> None:
    machine = read_machine()
    assert machine.usage.cpu_seconds > 0
    assert machine.available_bytes > 0
