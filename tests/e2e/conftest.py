"""One embedded cluster for all end-to-end tests (`LINKERD_TEST_KUBECONFIG` names a running one instead)."""

from __future__ import annotations

import pytest
from support.clusters import running_cluster


@pytest.fixture(scope="session")
def cluster():
    with running_cluster() as found:
        yield found
