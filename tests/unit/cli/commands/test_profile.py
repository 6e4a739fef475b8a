"""`linkerd profile` as it is typed, without a cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from linkerd.cli import main as cli
from support.golden import check_golden

GOLDENS = Path(__file__).parent.parent / "goldens"

SWAGGER = {
    "swagger": "2.0",
    "basePath": "/api",
    "paths": {
        "/v1/users/{id}": {
            "get": {"responses": {"200": {}, "500": {}}, "x-linkerd-retryable": True, "x-linkerd-timeout": "3s"}
        },
        "/v1/orders": {"post": {"responses": {"201": {}}}},
    },
}


def profile(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        cli.main(["profile", "api-service", "-n", "production", "--ignore-cluster", *arguments])
    return done.value.code


@pytest.fixture
def swagger(tmp_path):
    path = tmp_path / "swagger.json"
    path.write_text(json.dumps(SWAGGER))
    return str(path)


@pytest.mark.parametrize(("form", "golden"), [("yaml", "profile.yaml"), ("json", "profile.json")])
def test_a_profile_from_openapi(swagger, capsys, form, golden):
    assert profile("--open-api", swagger, "-o", form) == 0
    check_golden(GOLDENS / golden, capsys.readouterr().out)


def test_yaml_gives_the_same_as_json(tmp_path, swagger, capsys):
    path = tmp_path / "openapi.yaml"
    path.write_text(yaml.safe_dump(SWAGGER))
    profile("--open-api", swagger)
    from_json = capsys.readouterr().out
    profile("--open-api", str(path))
    assert capsys.readouterr().out == from_json


def test_a_profile_from_proto(tmp_path, capsys):
    path = tmp_path / "ledger.proto"
    path.write_text("package shop; service Ledger { rpc Book(A) returns (B); }")
    assert profile("--proto", str(path)) == 0
    assert yaml.safe_load(capsys.readouterr().out)["spec"]["routes"] == [
        {"name": "Book", "condition": {"method": "POST", "pathRegex": "/shop\\.Ledger/Book"}}
    ]


def test_the_template_and_its_json_say_the_same(capsys):
    assert profile("--template") == 0
    text = capsys.readouterr().out
    assert text.startswith("### ServiceProfile for api-service.production ###\n")
    assert profile("--template", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out) == yaml.safe_load(text)


def test_every_comment_of_the_template_that_is_a_field_can_be_switched_on(capsys):
    profile("--template")
    text = capsys.readouterr().out
    for field in ("isRetryable", "timeout", "retryBudget", "  retryRatio", "  minRetriesPerSecond", "  ttl"):
        assert f"# {field}:" in text
        text = text.replace(f"# {field}:", f"{field}:")
    spec = yaml.safe_load(text)["spec"]
    assert spec["retryBudget"] == {"retryRatio": 0.2, "minRetriesPerSecond": 10, "ttl": "10s"}
    assert spec["routes"][0]["timeout"] == "250ms"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "You must specify exactly one of --template or --open-api or --proto"),
        (("--template", "--proto", "x"), "You must specify exactly one of --template or --open-api or --proto"),
        (("--open-api", "/nowhere.json"), "/nowhere.json: No such file or directory"),
        (("--template", "-n", "Bad_Name"), 'invalid namespace "Bad_Name"'),
    ],
)
def test_wrong_usage(capsys, arguments, text):
    assert profile(*arguments) == 1
    assert text in capsys.readouterr().err


def test_what_is_no_openapi_is_named(tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text("a: [")
    assert profile("--open-api", str(path)) == 1
    assert f"error: {path}: neither JSON nor YAML" in capsys.readouterr().err
