"""What `linkerd check` prints."""

from __future__ import annotations

import json

import pytest
from linkerd.checks.model import Check, Outcome, Report, Result
from linkerd.cli.output.check import Printer, as_json, final, line


async def nothing() -> None:
    pass


def result(outcome=Outcome.OK, error="", description="can query the Kubernetes API", category="kubernetes-api"):
    return Result(category, Check(description, "K8s-Api", nothing, "look"), outcome, error)


def test_dots_reach_to_column_60():
    text = line(result())
    assert text == "can query the Kubernetes API................................[ok]\n"
    assert text.index("[") == 60


def test_a_long_description_has_three_dots():
    assert line(result(description="x" * 70)) == "x" * 70 + "...[ok]\n"


def test_an_error_is_followed_by_what_to_do():
    assert line(result(Outcome.WARNING, "one\ntwo")).splitlines()[1:] == [
        "    one",
        "    two",
        "    hint: look",
        "    see docs/reference/checks.md#k8s-api",
    ]


@pytest.mark.parametrize(("success", "mark"), [(True, "[ok]"), (False, "[FAIL]")])
def test_the_last_line(success, mark):
    assert final(success) == f"Status check results are {mark}\n"


def test_categories_have_a_heading_and_a_blank_line_between(capsys):
    printer = Printer()
    printer.add(result())
    printer.add(result(category="linkerd-webhooks-and-apisvc-tls"))
    printer.end(True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["kubernetes-api", "-" * 21]
    assert lines[3:6] == ["", "linkerd-webhooks-and-apisvc-tls", "-" * 31]


def test_short_shows_only_what_is_wrong(capsys):
    printer = Printer(short=True)
    printer.add(result())
    printer.end(True)
    assert capsys.readouterr().out == "Status check results are [ok]\n"


def test_json_is_one_document_with_hints_only_where_needed():
    report = Report([result(), result(Outcome.FAILED, "broken", category="b")])
    assert json.loads(as_json(report)) == {
        "success": False,
        "categories": [
            {
                "categoryName": "kubernetes-api",
                "checks": [{"description": "can query the Kubernetes API", "result": "success"}],
            },
            {
                "categoryName": "b",
                "checks": [
                    {
                        "description": "can query the Kubernetes API",
                        "hint": "look",
                        "error": "broken",
                        "result": "error",
                    }
                ],
            },
        ],
    }
