"""Every example of every command's help, run as it stands on the demo application."""

from __future__ import annotations

import subprocess

import pytest
from support.examples import commands, examples

OF_THE_CLUSTER_ITSELF = ("start", "stop", "reset", "add")  # tests/e2e/test_cluster_engine.py runs these on its own
ENDLESS_SECONDS = 4
RUN = [
    example
    for path, command in commands()
    if not (path[1] == "cluster" and path[-1] in OF_THE_CLUSTER_ITSELF)
    for example in examples(command)
]
MAY_BE_SILENT = ("prune", "--status 5xx", "stat-outbound", "cluster kubeconfig", "source <(", "kubectl diff")
MAY_REFUSE = {"linkerd check --pre": 'The "linkerd" namespace already exists'}


@pytest.fixture(scope="module")
def placeholders(demo):
    names = {"<pod-name>": "api-service", "<client-pod>": "api-gateway"}
    return {word: demo.pods(app)[0]["metadata"]["name"] for word, app in names.items()}


@pytest.fixture(scope="module")
def directory(demo, tmp_path_factory):
    """With the files that the examples name."""
    found = tmp_path_factory.mktemp("examples")
    ask = ["wget", "-qO-", "http://api-service:8080/openapi.json"]
    text = demo.kubectl("exec", "-n", "production", "deploy/frontend", "-c", "linkerd-proxy", "--", *ask)
    (found / "swagger.json").write_text(text)
    (found / "ledger.proto").write_text((demo.sources / "linkerd_demo" / "ledger.proto").read_text())
    return found


@pytest.mark.parametrize("example", RUN)
def test_an_example_does_what_it_says(demo, placeholders, directory, example):
    line = example
    for word, name in placeholders.items():
        line = line.replace(word, name)
    endless = any(f"viz {verb} " in line for verb in ("tap", "top")) and "--duration" not in line
    script = f"timeout -s INT {ENDLESS_SECONDS} {line}" if endless else line
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {script}"],
        cwd=directory,
        env=demo.environment | {"LINKERD_CLUSTER_DIR": str(demo.state_dir)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    refusal = next((text for start, text in MAY_REFUSE.items() if line.startswith(start)), None)
    if refusal is not None and done.returncode == 1:
        assert refusal in done.stdout + done.stderr
        return
    assert done.returncode == 0 or (endless and done.returncode in (124, 130)), done.stderr
    assert "error: " not in done.stderr
    assert done.stdout or any(part in line for part in MAY_BE_SILENT)
