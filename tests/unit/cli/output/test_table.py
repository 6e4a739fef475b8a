"""The layouts that scripts and eyes are used to."""

from __future__ import annotations

from linkerd.cli.output.table import Column, left_aligned, padded, right_aligned


def test_right_aligned_columns_are_three_spaces_apart():
    columns = [Column("NAME", left=True), Column("MESHED"), Column("SUCCESS")]
    assert right_aligned(columns, [["api", "1/1", "-"], ["worker", "2/2", "99.01%"]]) == (
        "NAME     MESHED   SUCCESS\n"
        "api         1/1         -\n"
        "worker      2/2    99.01%\n"
    )  # fmt: skip


def test_a_column_can_be_as_wide_as_in_another_table():
    assert right_aligned([Column("A", left=True, width=5), Column("B")], [["x", "1"]]) == "A       B\nx       1\n"


def test_padded_cells_end_in_two_spaces():
    columns = [Column("ROUTE", left=True, width=6), Column("RPS")]
    assert padded(columns, [["*", "1.0"]]) == "ROUTE   RPS  \n*       1.0  \n"


def test_branches_of_a_tree_are_filled():
    assert padded([Column("ROUTE", left=True)], [["├─"]]) == "ROUTE  \n├────  \n"


def test_left_aligned_lines_end_with_their_last_cell():
    rows = [["production", "10.0.0.15", "8080", "a"]]
    assert left_aligned(["NAMESPACE", "IP", "PORT", "POD"], rows) == (
        "NAMESPACE    IP          PORT   POD\n"
        "production   10.0.0.15   8080   a\n"
    )  # fmt: skip


def test_a_table_without_rows_has_its_heading():
    assert right_aligned([Column("NAME", left=True), Column("X")], []) == "NAME   X\n"
