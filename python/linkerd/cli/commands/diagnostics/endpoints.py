"""`linkerd diagnostics endpoints`: where the control plane sends the traffic of an authority."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from linkerd.cli.completing import RESOURCE
from linkerd.cli.context import Context, pass_context
from linkerd.cli.errors import UserError
from linkerd.cli.flags import namespace_option
from linkerd.cli.live import LiveEndpoint, NotKnown, difference, live_endpoints, state_text
from linkerd.cli.output import json
from linkerd.cli.output.table import left_aligned
from linkerd.cli.reaching import channel, rpc_errors, targets
from linkerd.core import kinds
from linkerd.core.kinds import Target

if TYPE_CHECKING:
    from linkerd.proto import destination_pb2, net_pb2

HEADINGS = ["NAMESPACE", "IP", "PORT", "POD", "SERVICE"]
_FIRST_UPDATE_SECONDS = 5.0
_QUIET_SECONDS = 0.1  # a server may tell one state in several messages
_CHECK_HINT = "is the control plane well? see `linkerd check`"


@dataclass(frozen=True, slots=True)
class Endpoint:
    namespace: str
    ip: str
    port: int
    pod: str
    service: str
    weight: int
    http2: bool
    labels: dict[str, str] = field(hash=False)


@click.command(short_help="The endpoints that the destination service knows")
@click.argument("authorities", nargs=-1, required=True, metavar="AUTHORITY...")
@click.option("--destination-pod", default="", metavar="POD", help="Ask this pod of the control plane.")
@click.option("--token", default="", help="The context token that a proxy would send.")
@click.option("--from", "source", default="", metavar="pod/NAME", type=RESOURCE,
              help="Beside them what this pod's proxy believes.")  # fmt: skip
@namespace_option("Namespace of the pod of --from.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Output format.")
@pass_context
def command(
    ctx: Context,
    authorities: Sequence[str],
    destination_pod: str,
    token: str,
    source: str,
    namespace: str,
    output: str,
) -> None:
    """Show the endpoints of a service as the proxies are told of them.

    With --from, an endpoint's line also says whether the control plane and the proxy have it, and what differs is said
    on stderr. The proxy knows a service once its pod has sent something there.

    \b
    linkerd diagnostics endpoints api-service.production.svc.cluster.local:8080
    linkerd diagnostics endpoints api-service.production.svc.cluster.local:8080 --from pod/<client-pod> -n production
    """
    if source:
        _compare(ctx, authorities, destination_pod, _pod(source, ctx.namespace(namespace)), output)
        return
    endpoints = ctx.run(_endpoints(ctx, authorities, destination_pod, token))
    if output == "json":
        sys.stdout.write(json.indented([_json(endpoint) for endpoint in endpoints]))
    elif not endpoints:
        print("No endpoints found.", file=sys.stderr)
    else:
        sys.stdout.write(render(endpoints))


def _pod(source: str, namespace: str) -> Target:
    """Raises UserError."""
    found = targets([source], namespace)[0]
    if found.kind is not kinds.POD or not found.name:
        raise UserError("--from takes one pod", "as in `--from pod/web-5d9c-x2x1z`")
    return found


def _compare(ctx: Context, authorities: Sequence[str], destination_pod: str, pod: Target, output: str) -> None:
    token = json.line({"ns": pod.namespace, "pod": pod.name}).strip()
    told = ctx.run(_endpoints(ctx, authorities, destination_pod, token))
    believed, complete = ctx.run(_believed(ctx, authorities, pod))
    rows = joined(told, believed)
    if output == "json":
        sys.stdout.write(json.indented([row.json() for row in rows]))
    elif rows:
        sys.stdout.write(left_aligned([*HEADINGS, "CONTROL_PLANE", "PROXY"], [row.cells() for row in rows]))
    else:
        print("No endpoints found.", file=sys.stderr)
    if not complete:
        return  # what a proxy never asked for is no difference
    for sentence in difference(((e.ip, e.port) for e in told), (live.address for live in believed)):
        print(sentence, file=sys.stderr)


async def _believed(ctx: Context, authorities: Sequence[str], pod: Target) -> tuple[list[LiveEndpoint], bool]:
    """What the pod's proxy has, and whether it knows all of the authorities. Raises UserError."""
    from linkerd.cli.workloads import ScrapeError, Scraper, pods_of

    async with ctx.client() as client:
        found = (await pods_of(client, pod))[0]
        if not found.control_plane:
            raise UserError(f"{pod} is not meshed", "it has no proxy that could believe anything")
        async with Scraper(client).open(found) as admin:
            try:
                document = await admin.read("/discovery.json")
            except ScrapeError as error:
                raise UserError(f"{pod}: {error}") from None
    believed: list[LiveEndpoint] = []
    complete = True
    for authority in authorities:
        try:
            believed += live_endpoints(document, authority)
        except NotKnown as error:
            print(f"warning: {error}", file=sys.stderr)
            complete = False
    return believed, complete


@dataclass(frozen=True, slots=True)
class Joined:
    """One endpoint as both sides see it; one of them may be without."""

    told: Endpoint | None
    believed: LiveEndpoint | None

    def cells(self) -> list[str]:
        if self.told is not None:
            one = self.told
            own = [one.namespace, one.ip, str(one.port), one.pod, one.service]
        else:
            assert self.believed is not None
            labels, (ip, port) = self.believed.labels, self.believed.address
            service = f"{labels.get('service', '')}.{labels.get('namespace', '')}" if labels.get("service") else ""
            own = [labels.get("namespace", ""), ip, str(port), labels.get("pod", ""), service]
        return [*own, "yes" if self.told else "-", state_text(self.believed)]

    def json(self) -> dict[str, Any]:
        believed = self.believed
        address = {"ip": believed.address[0], "port": believed.address[1]} if believed else {}
        value = _json(self.told) if self.told else address | {"labels": dict(believed.labels) if believed else {}}
        return value | {"controlPlane": self.told is not None, "proxy": dict(believed.details) if believed else None}


def joined(told: Sequence[Endpoint], believed: Sequence[LiveEndpoint]) -> list[Joined]:
    """The control plane's, in their order; then what the proxy alone has."""
    live = {one.address: one for one in believed}
    rows = [Joined(one, live.pop((one.ip, one.port), None)) for one in told]
    return rows + [Joined(None, live[address]) for address in sorted(live)]


async def _endpoints(ctx: Context, authorities: Sequence[str], pod: str, token: str) -> list[Endpoint]:
    from linkerd.proto.destination_pb2_grpc import DestinationStub

    async with ctx.client() as client:
        reached = channel(ctx, client, ctx.linkerd_namespace, "linkerd-destination", 8086, pod=pod)
        async with reached as opened, rpc_errors("Destination", _CHECK_HINT):
            stub = DestinationStub(opened)
            found = await asyncio.gather(*(_of_authority(stub, authority, token) for authority in authorities))
    unique = {endpoint: None for endpoints in found for endpoint in endpoints}
    return sorted(unique, key=lambda e: (e.namespace, e.service, _address(e.ip), e.port))


def _address(ip: str) -> tuple[int, int]:
    return (6, int(IPv6Address(ip))) if ":" in ip else (4, int(IPv4Address(ip)))


async def _of_authority(stub: Any, authority: str, token: str) -> list[Endpoint]:
    """What is known when the stream falls quiet after its first update."""
    from linkerd.proto import destination_pb2

    request = destination_pb2.GetDestination(scheme="http:", path=authority, context_token=token)
    state = EndpointState()
    updates = aiter(stub.Get(request))
    wait = _FIRST_UPDATE_SECONDS
    while True:
        try:
            async with asyncio.timeout(wait):
                state.apply(await anext(updates))
        except StopAsyncIteration:
            break
        except TimeoutError:
            if wait == _FIRST_UPDATE_SECONDS:
                raise UserError(f"the destination service told nothing about {authority}", _CHECK_HINT) from None
            break
        wait = _QUIET_SECONDS
    return state.endpoints()


class EndpointState:
    """Applies updates as a proxy does: additions replace, removals remove."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Endpoint] = {}

    def apply(self, update: destination_pb2.Update) -> None:
        kind = update.WhichOneof("update")
        if kind == "add":
            for weighted in update.add.addrs:
                endpoint = _endpoint(weighted, update.add.metric_labels)
                self._known[endpoint.ip, endpoint.port] = endpoint
        elif kind == "remove":
            for address in update.remove.addrs:
                self._known.pop((ip_text(address.ip), address.port), None)
        elif kind == "no_endpoints":
            self._known.clear()

    def endpoints(self) -> list[Endpoint]:
        return list(self._known.values())


def _endpoint(weighted: destination_pb2.WeightedAddr, shared: Any) -> Endpoint:
    own = dict(weighted.metric_labels)
    labels = dict(shared) | own
    return Endpoint(
        namespace=labels.get("namespace", ""),
        ip=ip_text(weighted.addr.ip),
        port=weighted.addr.port,
        pod=labels.get("pod", "").rpartition("/")[2],
        service=f"{labels.get('service', '')}.{labels.get('namespace', '')}" if labels.get("service") else "",
        weight=weighted.weight,
        http2=weighted.protocol_hint.WhichOneof("protocol") == "h2",
        labels=labels,
    )


def ip_text(address: net_pb2.IPAddress) -> str:
    if address.WhichOneof("ip") == "ipv6":
        return str(IPv6Address(address.ipv6.first << 64 | address.ipv6.last))
    return str(IPv4Address(address.ipv4))


def render(endpoints: Sequence[Endpoint]) -> str:
    """A table for each namespace, an empty line between. Expects them sorted."""
    tables = []
    for _, of_namespace in groupby(endpoints, key=lambda endpoint: endpoint.namespace):
        rows = [[e.namespace, e.ip, str(e.port), e.pod, e.service] for e in of_namespace]
        tables.append(left_aligned(HEADINGS, rows))
    return "\n".join(tables)


def _json(endpoint: Endpoint) -> dict[str, Any]:
    value: dict[str, Any] = {
        "namespace": endpoint.namespace,
        "ip": endpoint.ip,
        "port": endpoint.port,
        "pod": endpoint.pod,
        "service": endpoint.service,
        "weight": endpoint.weight,
    }
    if endpoint.http2:
        value["http2"] = True
    return value | {"labels": dict(sorted(endpoint.labels.items())) or None}
