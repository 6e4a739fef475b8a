"""The CustomResourceDefinitions as data."""

from __future__ import annotations

import pytest
from linkerd.install.crds import VERSIONS, definitions

DEFINITIONS = definitions("v", gateway_api=True)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: d["metadata"]["name"])
def test_each_definition_has_one_storage_version_and_schemas(definition):
    versions = definition["spec"]["versions"]
    assert sum(version["storage"] for version in versions) == 1
    assert all(version["schema"]["openAPIV3Schema"]["properties"]["spec"] for version in versions)
    names = definition["spec"]["names"]
    assert definition["metadata"]["name"] == f"{names['plural']}.{definition['spec']['group']}"


def test_traffic_split_can_be_left_out():
    assert [d["metadata"]["name"] for d in definitions("v", traffic_split=False)] == list(VERSIONS)


def test_the_control_plane_reads_the_newest_version_of_each():
    newest = {d["metadata"]["name"]: d["spec"]["versions"][-1]["name"] for d in definitions("v", traffic_split=False)}
    assert newest == VERSIONS
