"""The CustomResourceDefinitions as data."""

from __future__ import annotations

import pytest
from linkerd.install.crds import NAMES, definitions, newest_versions

DEFINITIONS = definitions("v")


@pytest.mark.parametrize("definition", DEFINITIONS, ids=lambda d: d["metadata"]["name"])
def test_each_definition_has_one_storage_version_and_schemas(definition):
    versions = definition["spec"]["versions"]
    assert sum(version["storage"] for version in versions) == 1
    assert all(version["schema"]["openAPIV3Schema"]["properties"]["spec"] for version in versions)
    names = definition["spec"]["names"]
    assert definition["metadata"]["name"] == f"{names['plural']}.{definition['spec']['group']}"


def test_traffic_split_can_be_left_out():
    assert [d["metadata"]["name"] for d in definitions("v", traffic_split=False)] == list(NAMES)


def test_the_versions_that_the_control_plane_reads():
    versions = newest_versions()
    assert versions["httproutes.policy.linkerd.io"] == "v1beta3"
    assert versions["serviceprofiles.linkerd.io"] == "v1alpha2"
