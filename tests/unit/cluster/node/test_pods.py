from __future__ import annotations

from typing import Any

import pytest
from linkerd.cluster.node.pods import ignored_fields

PORT = {"containerPort": 80, "hostPort": 80}


@pytest.mark.parametrize(
    ("spec", "ignored"),
    [
        ({}, []),
        ({"hostPID": True, "hostIPC": False}, ["hostPID"]),
        ({"containers": [{"ports": [PORT]}]}, ["hostPort"]),
        ({"containers": [{"ports": [PORT]}], "hostNetwork": True}, []),
    ],
)
def test_what_the_node_does_not_do_is_named(spec: dict[str, Any], ignored: list[str]) -> None:
    assert ignored_fields({"containers": [], **spec}) == ignored
