"""The node agent's process: `python -m linkerd.cluster.node.agent --config <state>/run/agent.json`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import sys
from pathlib import Path

from linkerd.cluster.node.assigned import AssignedPods
from linkerd.cluster.node.context import (
    NodeContext,
    prepare_directories,
    read_capacity,
    read_host_root,
    remove_strangers,
)
from linkerd.cluster.node.events import Recorder
from linkerd.cluster.node.netns.network import Addresses, Namespace, prepare_node
from linkerd.cluster.node.references import ClusterReferences
from linkerd.cluster.node.registration import Registration
from linkerd.cluster.node.rootfs import Node, outermost
from linkerd.cluster.node.runtime import NodeRuntime
from linkerd.cluster.node.settings import Settings, SettingsError, load_settings
from linkerd.cluster.node.spawning import Spawner
from linkerd.cluster.streams.server import serve
from linkerd.k8s import resources
from linkerd.k8s.client import Client, wait_ready
from linkerd.k8s.resources import Resource
from linkerd.k8s.watching import follow
from linkerd.kit.logging import configure
from linkerd.kit.tasks import fail, run, terminated

log = logging.getLogger(__name__)

_NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
_PORT = 10250
_API_PATIENCE = 120.0  # seconds for the API server to come up


class _Terminated(Exception):
    """The engine has asked the agent to end."""


async def run_agent(settings: Settings, spawner: Spawner) -> None:
    """Run the node until SIGTERM, or until something that it cannot do without has failed."""
    prepare_directories(settings)
    prepare_node(settings.node_ip)
    try:
        client = Client.load(str(settings.kubeconfig), user_agent="linkerd-node-agent")
        async with client, asyncio.TaskGroup() as group:
            group.create_task(spawner.run())
            group.create_task(_end_when_asked())
            await _serve_node(settings, spawner, client, group)
    except* _Terminated:
        log.info("shutting down: the containers end with the agent")
    finally:
        spawner.close()


async def _end_when_asked() -> None:
    await terminated()
    raise _Terminated


async def _serve_node(settings: Settings, spawner: Spawner, client: Client, group: asyncio.TaskGroup) -> None:
    await wait_ready(client, _API_PATIENCE)
    version = await client.request("GET", "/version")
    running = asyncio.Event()
    capacity = read_capacity(settings.state_dir)
    registration = Registration(settings, client, capacity, version["gitVersion"], running.is_set)
    recorder = Recorder(client, settings.node_name)
    pods: list[AssignedPods] = []

    def tell_pods(kind: str, namespace: str, name: str) -> None:
        for assigned in pods:
            assigned.reference_changed(kind, namespace, name)

    references = ClusterReferences(client, tell_pods)
    for reflector in references.reflectors():
        group.create_task(reflector.run())
    group.create_task(recorder.run())
    pod_cidr = await registration.register()
    node = NodeContext(
        settings=settings,
        client=client,
        spawner=spawner,
        references=references,
        recorder=recorder,
        addresses=Addresses(pod_cidr),
        network=Namespace.current(),
        capacity=capacity,
        root=_shared_root(settings),
        resolv_conf=_host_resolv_conf(),
    )
    assigned = AssignedPods(node)
    pods.append(assigned)
    await references.wait_synced()
    await _remove_leftovers(node)
    server = serve(
        NodeRuntime(node, assigned),
        host=str(settings.node_ip),
        port=_PORT,
        tls_cert=settings.tls_cert,
        tls_key=settings.tls_key,
        client_ca=settings.client_ca,
        client=client,
    )
    group.create_task(server)
    group.create_task(assigned.run())
    group.create_task(_tell_of_policies(client, recorder))
    running.set()
    recorder.node_event("Normal", "Starting", "Starting kubelet.")
    group.create_task(registration.run())
    log.info("node %s is running, pods get addresses of %s", settings.node_name, pod_cidr)


async def _tell_of_policies(client: Client, recorder: Recorder) -> None:
    """NetworkPolicies are stored, not enforced: whoever makes one is told so, once."""
    told = set()
    async for change in follow(client, _NETWORK_POLICIES):
        if change.type == "applied" and (uid := change.object["metadata"]["uid"]) not in told:
            told.add(uid)
            message = "The embedded cluster stores NetworkPolicies and does not enforce them"
            recorder.object_event(change.object, "Warning", "NetworkPolicyNotEnforced", message)


async def _remove_leftovers(node: NodeContext) -> None:
    selector = f"spec.nodeName={node.settings.node_name}"
    present = await node.client.list(resources.PODS, field_selector=selector)
    remove_strangers(node.pods_dir, [pod["metadata"]["uid"] for pod in present])


def _shared_root(settings: Settings) -> Node:
    programs = outermost(map(str, (settings.bin_dir, settings.clone_dir, *settings.python_prefixes)))
    state = str(settings.state_dir)
    return Node(read_host_root(), state, f"{state}/run/root", tuple(programs))


def _host_resolv_conf() -> str:
    path = Path("/etc/resolv.conf")
    return path.read_text() if path.is_file() else ""


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="linkerd.cluster.node.agent")
    parser.add_argument("--config", type=Path, required=True)
    try:
        settings = load_settings(parser.parse_args().config)
    except SettingsError as error:
        return fail(str(error))
    configure()
    # A pod takes three descriptors and each of its containers two; the usual soft limit of 1024 is for select().
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return run(run_agent(settings, Spawner.start()))


if __name__ == "__main__":
    sys.exit(main())
