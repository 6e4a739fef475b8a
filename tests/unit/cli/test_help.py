"""The help of every command has examples, and they are ones that the command takes."""

from __future__ import annotations

import re
import shlex

import pytest
from linkerd.cli.context import Context
from support.examples import commands, examples

COMMANDS = {" ".join(path): command for path, command in commands()}
EXAMPLES = [(name, example) for name, command in COMMANDS.items() for example in examples(command)]
_PIECE = re.compile(r"\blinkerd ((?:[^|)\"']|'[^']*'|\"[^\"]*\")*)")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_of_itself(name):
    assert any(f"{name} " in f"{example} ".replace(")", " ") for example in examples(COMMANDS[name]))


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_an_example_is_what_the_command_takes(name, example, tmp_path, monkeypatch):
    (tmp_path / "web").mkdir()
    monkeypatch.chdir(tmp_path)
    words, path = shlex.split(_PIECE.search(example)[1]), name.split()[1:]
    assert words[: len(path)] == path
    COMMANDS[name].make_context(name, words[len(path) :], obj=Context())  # raises UsageError
