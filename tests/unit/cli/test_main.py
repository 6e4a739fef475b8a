"""The command line's frame: exit codes, global flags anywhere, errors in words."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from linkerd import VERSION
from linkerd.cli import main as cli
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError


def run(*arguments):
    with pytest.raises(SystemExit) as done:
        cli.main(list(arguments))
    return done.value.code


def test_the_clients_version_needs_no_cluster(capsys):
    assert run("version", "--client") == 0
    assert capsys.readouterr().out == f"Client version: {VERSION}\n"


def test_short_prints_the_value_only(capsys):
    run("version", "--client", "--short")
    assert capsys.readouterr().out == f"{VERSION}\n"


def test_wrong_usage_is_exit_1_on_stderr(capsys):
    assert run("version", "--nonsense") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert "hint: run `linkerd version --help` for usage" in captured.err


def test_an_unknown_command_is_named(capsys):
    assert run("frobnicate") == 1
    assert 'unknown command "frobnicate" for "linkerd"' in capsys.readouterr().err


def test_a_missing_kubeconfig_is_explained(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert run("install") == 1
    error = capsys.readouterr().err
    assert "no kubeconfig found" in error
    assert "hint: " in error


@pytest.fixture
def probe(monkeypatch):
    """A command of the test's own, and the contexts that it saw."""
    seen = []

    @click.command()
    @pass_context
    def command(ctx: Context) -> None:
        seen.append(ctx)
        raise UserError("no", "try this", exit_code=3)

    module = type(sys)("linkerd.cli.commands.probe")
    module.command = command
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.TABLE, "probe", cli.Entry(module.__name__, "A test"))
    return seen


@pytest.mark.parametrize("arguments", [("--context", "c", "-L", "mesh", "probe"), ("probe", "--context=c", "-Lmesh")])
def test_global_flags_may_stand_anywhere(probe, arguments):
    run(*arguments)
    assert (probe[0].kube_context, probe[0].linkerd_namespace) == ("c", "mesh")


def test_a_user_error_has_its_hint_and_exit_code(probe, capsys):
    assert run("probe") == 3
    assert capsys.readouterr().err == "error: no\nhint: try this\n"


def test_the_control_planes_namespace_comes_from_the_environment(probe, monkeypatch):
    monkeypatch.setenv("LINKERD_NAMESPACE", "other")
    run("probe")
    assert probe[0].linkerd_namespace == "other"


@pytest.mark.parametrize("name", sorted(name for name, entry in cli.TABLE.items() if not entry.out_of_scope))
def test_every_command_has_help(name, capsys):
    assert run(name, "--help") == 0
    assert "Usage: linkerd" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("multicluster",), ("mc", "link"), ("jaeger", "--help"), ("install-cni", "-o")])
def test_what_is_out_of_scope_says_so(capsys, arguments):
    assert run(*arguments) == 1
    assert f"error: `linkerd {arguments[0]}` is out of scope: " in capsys.readouterr().err


def test_version_loads_only_what_it_needs():
    code = (
        "import sys; from linkerd.cli.main import main\ntry: main(['version', '--client'])\nexcept SystemExit: pass\n"
    )
    heavy = "print(sorted({'aiohttp', 'yaml', 'grpc', 'asyncio', 'cryptography'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + heavy], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
