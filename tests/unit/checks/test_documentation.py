"""Every check has its place in docs/reference/checks.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from linkerd import VERSION
from linkerd.checks import certificates, control_plane, data_plane, kubernetes, viz
from linkerd.install import crds

PAGE = Path(__file__).parents[3] / "docs/reference/checks.md"


async def nothing(*_):
    raise NotImplementedError


@pytest.fixture
def checks(cluster):
    categories = [
        *kubernetes.reachable(cluster),
        kubernetes.before_installation(cluster, []),
        control_plane.existence(cluster),
        control_plane.configuration(cluster, crds.VERSIONS),
        certificates.identity(cluster),
        certificates.webhooks(cluster),
        certificates.data_plane(cluster, None),
        control_plane.versions(cluster, VERSION),
        control_plane.proxies(cluster, VERSION),
        data_plane.mutual_tls(cluster, None, nothing),
        data_plane.data_plane(cluster, None, VERSION),
        control_plane.high_availability(cluster),
        control_plane.extensions(cluster),
        viz.viz(cluster, "linkerd-viz", VERSION, nothing, nothing),
        viz.data_plane(cluster, None, nothing),
    ]
    return [check for category in categories for check in category.checks]


def test_each_check_is_documented_and_says_what_to_do(checks):
    anchors = set(re.findall(r'<a id="([^"]+)"></a>', PAGE.read_text()))
    assert {check.anchor.lower() for check in checks} == anchors
    assert [check.description for check in checks if not check.hint] == ["can initialize the client"]
