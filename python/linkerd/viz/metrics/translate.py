"""Between the messages of `linkerd2.viz` and the values in the middle. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from linkerd.core import kinds
from linkerd.core.kinds import Kind, Target, UnknownKind, parse_kind, target_of
from linkerd.proto import viz_pb2 as pb
from linkerd.viz.metrics.queries import Question
from linkerd.viz.metrics.summary import Authorized, Edge, PodCounts, Requests, Tcp


class InvalidRequest(ValueError):
    """The request cannot be answered; the text is for the person who made it."""


def target_from(resource: pb.Resource) -> Target:
    try:
        kind = parse_kind(resource.type)
    except UnknownKind as error:
        raise InvalidRequest(f"invalid resource type: {resource.type}") from error
    return target_of(kind, resource.name, resource.namespace)


def question_from(request: pb.StatSummaryRequest) -> Question:
    """Raises InvalidRequest."""
    selector = target_from(request.selector.resource)
    outbound = request.WhichOneof("outbound")
    to = target_from(request.to_resource) if outbound == "to_resource" else None
    source = target_from(request.from_resource) if outbound == "from_resource" else None
    _check(selector, to, source)
    return Question(selector, to, source)


def _check(selector: Target, to: Target | None, source: Target | None) -> None:
    if source is not None and source.kind is kinds.SERVICE:
        raise InvalidRequest("service is not supported as a target on 'from' queries, or as a target with 'to' queries")
    for word, other in (("to", to), ("from", source)):
        if other is not None and selector.kind in kinds.POLICY_KINDS:
            raise InvalidRequest(
                f"'{word}' queries are not supported with policy resources, as they have inbound metrics only"
            )
        if other is not None and other.kind is kinds.ALL:
            raise InvalidRequest("resource type 'all' is not supported as a filter")


def resource(kind: Kind, namespace: str, name: str) -> pb.Resource:
    return pb.Resource(namespace=namespace, type=kind.name, name=name)


def basic_stats(requests: Requests) -> pb.BasicStats:
    return pb.BasicStats(
        success_count=requests.success,
        failure_count=requests.failure,
        latency_ms_p50=_milliseconds(requests.p50),
        latency_ms_p95=_milliseconds(requests.p95),
        latency_ms_p99=_milliseconds(requests.p99),
        actual_success_count=requests.actual_success,
        actual_failure_count=requests.actual_failure,
    )


def _milliseconds(value: float) -> int:
    return 0 if math.isnan(value) else round(value)


def tcp_stats(tcp: Tcp) -> pb.TcpStats:
    return pb.TcpStats(
        open_connections=tcp.connections, read_bytes_total=tcp.read_bytes, write_bytes_total=tcp.write_bytes
    )


def server_stats(authorized: Authorized | None, labels: dict[str, str]) -> pb.ServerStats:
    """What was allowed and denied, and the server, route and authorization that the labels name."""
    counts = authorized or Authorized()
    stats = pb.ServerStats(allowed_count=counts.allowed, denied_count=counts.denied)
    for part, prefix in ((stats.srv, "srv"), (stats.route, "route"), (stats.authz, "authz")):
        if labels.get(f"{prefix}_name") or labels.get(f"{prefix}_kind"):
            part.type, part.name = labels.get(f"{prefix}_kind", ""), labels.get(f"{prefix}_name", "")
    return stats


def set_pods(row: pb.StatTable.PodGroup.Row, counts: PodCounts) -> None:
    row.meshed_pod_count, row.running_pod_count = counts.meshed, counts.running
    row.failed_pod_count = counts.failed
    for pod, problems in counts.problems.items():
        errors = row.errors_by_pod[pod].errors
        for problem in problems:
            container = errors.add().container
            container.message, container.container = problem.message, problem.container
            container.image, container.reason = problem.image, problem.reason


def stat_ok(tables: Iterable[list[pb.StatTable.PodGroup.Row]]) -> pb.StatSummaryResponse:
    ok = pb.StatSummaryResponse.Ok(
        stat_tables=[pb.StatTable(pod_group=pb.StatTable.PodGroup(rows=rows)) for rows in tables]
    )
    return pb.StatSummaryResponse(ok=ok)


def edge_message(edge: Edge, kind: Kind) -> pb.Edge:
    return pb.Edge(
        src=resource(kind, edge.source_namespace, edge.source),
        dst=resource(kind, edge.target_namespace, edge.target),
        client_id=edge.client_id,
        server_id=edge.server_id,
        no_identity_msg=edge.no_tls_reason,
    )
