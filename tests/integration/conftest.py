"""What integration tests share: an API server for the session, clients of it, and a fresh namespace for each test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml
from linkerd.k8s.client import Client
from linkerd.k8s.errors import NotFound, TooManyRequests
from linkerd.k8s.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES
from support.apiserver import CRDS, PROGRAM, ApiServer, running_apiserver


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built (`make build`)")
    with running_apiserver(tmp_path_factory.mktemp("apiserver")) as server:
        asyncio.run(_install_crds(server))
        yield server


@pytest.fixture
async def client(apiserver: ApiServer) -> AsyncIterator[Client]:
    """Cluster administrator."""
    async with Client(apiserver.config()) as client:
        yield client


@pytest.fixture
async def namespace(client: Client) -> str:
    """A namespace of the test's own."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    await client.create(NAMESPACES, {"metadata": {"name": name}})
    return name


@pytest.fixture
def kubeconfig(apiserver: ApiServer, tmp_path: Path) -> Path:
    return apiserver.write_kubeconfig(tmp_path / "kubeconfig")


async def _install_crds(server: ApiServer) -> None:
    async with Client(server.config()) as client:
        definitions = [yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml"))]
        for definition in definitions:
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
        for definition in definitions:
            await _wait_served(client, definition)


async def _wait_served(client: Client, definition: dict) -> None:
    spec = definition["spec"]
    served = next(v["name"] for v in spec["versions"] if v["served"])
    async with asyncio.timeout(20):
        while True:
            try:
                await client.request("GET", f"/apis/{spec['group']}/{served}/{spec['names']['plural']}")
                return
            except (NotFound, TooManyRequests):
                await asyncio.sleep(0.05)
