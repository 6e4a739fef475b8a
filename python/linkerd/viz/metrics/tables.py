"""Answers questions: asks Kubernetes and Prometheus at once, and lays the two side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from linkerd.core import kinds
from linkerd.core.kinds import Kind, Target
from linkerd.kit.durations import format_duration
from linkerd.proto import viz_pb2 as pb
from linkerd.viz.index import PodIndex
from linkerd.viz.metrics import queries, translate
from linkerd.viz.metrics.objects import Leaf, Objects, Profile
from linkerd.viz.metrics.prometheus import Prometheus
from linkerd.viz.metrics.queries import Plan, Question
from linkerd.viz.metrics.summary import (
    DEFAULT_ROUTE,
    Edge,
    Key,
    Traffic,
    TrafficTable,
    count_pods,
    edges,
    row_keys,
)
from linkerd.viz.metrics.translate import InvalidRequest

T = TypeVar("T")
Row = pb.StatTable.PodGroup.Row

_SMALLEST_WINDOW_SCRAPES = 2


async def together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All at once; the first failure ends the others and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


class Tables:
    def __init__(
        self,
        prometheus: Prometheus,
        objects: Objects,
        pods: PodIndex,
        *,
        control_plane: str = "linkerd",
        cluster_domain: str = "cluster.local",
        ignored_namespaces: frozenset[str] = frozenset(),
    ) -> None:
        self._prometheus = prometheus
        self._objects = objects
        self._pods = pods
        self._control_plane = control_plane
        self._domain = cluster_domain
        self._ignored = ignored_namespaces

    async def check_window(self, window: str) -> None:
        """Raises InvalidRequest for one that is none, or that has not two scrapes in it: it would show noise."""
        try:
            seconds = queries.parse_window(window)
        except ValueError as error:
            raise InvalidRequest(f"invalid time window: {error}") from error
        interval = await self._prometheus.scrape_interval()
        if interval is not None and seconds < _SMALLEST_WINDOW_SCRAPES * interval:
            smallest = format_duration(_SMALLEST_WINDOW_SCRAPES * interval)
            raise InvalidRequest(
                f"invalid time window: {window} is shorter than two scrape intervals; the smallest is {smallest}"
            )

    # stat

    async def stat(self, request: pb.StatSummaryRequest) -> list[list[Row]]:
        """One table for each kind. Raises InvalidRequest, UnsupportedKind, ApiError, PrometheusError."""
        question = translate.question_from(request)
        if not request.skip_stats:
            await self.check_window(request.time_window)
        asked = [question]
        if question.selector.kind is kinds.ALL:
            asked = [replace(question, selector=replace(question.selector, kind=kind)) for kind in kinds.ALL_MEANS]
        return await together(self._stat(one, request) for one in asked)

    async def _stat(self, question: Question, request: pb.StatSummaryRequest) -> list[Row]:
        kind = question.selector.kind
        if kind is kinds.TRAFFIC_SPLIT:
            return await self._split_rows(question, request)
        if kind is kinds.SERVICE:
            return await self._service_rows(question, request)
        # With to/from an unlabelled question needs no objects: the rows are what has traffic.
        selection = request.selector.label_selector
        wanted = question.direct or bool(selection) or bool(question.selector.name)
        found, traffic = await asyncio.gather(
            self._objects.keys(question.selector, selection) if wanted else _nothing(),
            self._traffic(question, request),
        )
        if question.selector.kind is kinds.NAMESPACE:
            found = [key for key in found if key[1] not in self._ignored]
        keys = row_keys(found, traffic.rows, direct=question.direct, selected=wanted)  # type: ignore[arg-type]
        return self._rows(kind, keys, traffic, question, request.time_window)

    def _rows(self, kind: Kind, keys: list[Key], traffic: TrafficTable, question: Question, window: str) -> list[Row]:
        pods = self._pods.by_workload(kind.name, question.selector.namespace) if kind.pods else {}
        if kind is kinds.HTTP_ROUTE:
            return _route_rows(keys, traffic, window)
        rows = []
        for key in keys:
            row = _row(kind, key, window, traffic.rows.get(key))
            if kind.pods:
                counts = count_pods(pods.get(key, ()), self._control_plane)
                translate.set_pods(row, counts)
                row.status = counts.status if kind is kinds.POD else ""
            rows.append(row)
        return rows

    async def _traffic(self, question: Question, request: pb.StatSummaryRequest) -> TrafficTable:
        plan = queries.plan(question, self._domain)
        # Two Servers may share a route's name.
        key = ("namespace", "route_name", "srv_kind", "srv_name")
        table = TrafficTable(key if question.selector.kind is kinds.HTTP_ROUTE else plan.key)
        if not request.skip_stats:
            await self._fill(table, plan, request.time_window, tcp=request.tcp_stats)
        return table

    async def _fill(self, table: TrafficTable, plan: Plan, window: str, *, tcp: bool) -> None:
        asked = {"requests": plan.requests(window), "latency": plan.latency(window)}
        if tcp and plan.tcp_matchers is not None:
            asked["connections"] = plan.tcp_connections()
            asked["read_bytes"] = plan.tcp_bytes(queries.TCP_READ, window)
            asked["write_bytes"] = plan.tcp_bytes(queries.TCP_WRITE, window)
        if plan.authz_matchers is not None:
            asked["allowed"] = plan.authz(queries.AUTHZ_ALLOW, window)
            asked["denied"] = plan.authz(queries.AUTHZ_DENY, window)
        answers = await together(self._prometheus.query(text) for text in asked.values())
        answered = dict(zip(asked, answers, strict=True))
        table.add_requests(answered["requests"])
        table.add_latency(answered["latency"])
        for name in ("connections", "read_bytes", "write_bytes"):
            table.add_tcp(name, answered.get(name, ()))
        for name in ("allowed", "denied"):
            table.add_authorized(name, answered.get(name, ()))

    async def _service_rows(self, question: Question, request: pb.StatSummaryRequest) -> list[Row]:
        """A row for each service that took traffic, and for each leaf of a service whose traffic is led elsewhere."""
        traffic, leaves = await asyncio.gather(
            self._traffic(question, request), self._objects.overrides(question.selector)
        )
        rows = {
            key: _row(kinds.SERVICE, key, request.time_window, one)
            for key, one in traffic.rows.items()  # type: ignore[arg-type]
        }
        for leaf in leaves if question.direct else []:
            key = (leaf.namespace, leaf.name)
            row = rows.setdefault(key, _row(kinds.SERVICE, key, request.time_window, None))
            _set_leaf(row, leaf)
        return [rows[key] for key in sorted(rows)]

    async def _split_rows(self, question: Question, request: pb.StatSummaryRequest) -> list[Row]:
        """A row for each backend of each split, with the traffic that was addressed to the apex and went there."""
        leaves = await self._objects.splits(question.selector)
        apexes = sorted({(leaf.namespace, leaf.apex) for leaf in leaves})
        tables = await together(
            self._traffic(replace(question, selector=Target(kinds.TRAFFIC_SPLIT, apex, namespace)), request)
            for namespace, apex in apexes
        )
        by_apex = dict(zip(apexes, tables, strict=True))
        rows = []
        for leaf in leaves:
            traffic = by_apex[leaf.namespace, leaf.apex].rows.get((leaf.namespace, leaf.name))
            row = _row(kinds.TRAFFIC_SPLIT, (leaf.namespace, leaf.split), request.time_window, traffic)
            _set_leaf(row, leaf)
            rows.append(row)
        return rows

    # edges

    async def edges(self, selector: Target) -> list[Edge]:
        kind = selector.kind
        if not kind.pods:
            raise InvalidRequest(f"Resource type is not supported: {kind.name}")
        samples = await self._prometheus.query(queries.edges_query(kind))
        return edges(samples, kind.label, self._pods.pods, selector.namespace)

    # routes

    async def routes(self, request: pb.TopRoutesRequest) -> list[pb.RouteTable]:
        selector = translate.target_from(request.selector.resource)
        to = translate.target_from(request.to_resource) if request.WhichOneof("outbound") == "to_resource" else None
        if to is not None and selector.kind is kinds.SERVICE:
            raise InvalidRequest("The service resource type is not supported with 'to' queries")
        if selector.kind is kinds.ALL or selector.kind in kinds.POLICY_KINDS:
            raise InvalidRequest("Routes are not available")
        await self.check_window(request.time_window)
        keys = await self._objects.keys(selector, request.selector.label_selector)
        targets = [kinds.target_of(selector.kind, name, namespace) for namespace, name in keys]
        tables = await together(self._route_table(target, to, request.time_window) for target in targets)
        found = [table for table in tables if table is not None]
        if not found:
            raise InvalidRequest("No Service Profiles found for selected resources")
        return found

    async def _route_table(self, target: Target, to: Target | None, window: str) -> pb.RouteTable | None:
        namespace = target.name if target.kind is kinds.NAMESPACE else target.namespace
        scope = to or (replace(target, namespace=target.name) if target.kind is kinds.NAMESPACE else target)
        profiles = await self._objects.profiles(scope, namespace)
        if not profiles:
            return None
        plan = queries.routes_plan(target, [profile.name for profile in profiles], to)
        traffic = await self._route_traffic(plan, window, with_actual=to is not None)
        return pb.RouteTable(resource=str(target), rows=_profile_rows(profiles, traffic, window))

    async def _route_traffic(self, plan: Plan, window: str, *, with_actual: bool) -> dict[Key, Traffic]:
        asked = [plan.requests(window, queries.ROUTE_REQUESTS), plan.latency(window, queries.ROUTE_LATENCY)]
        if with_actual:
            asked.append(plan.requests(window, queries.ROUTE_ACTUAL_REQUESTS))
        answers = await together(self._prometheus.query(text) for text in asked)
        for samples in answers:
            for sample in samples:
                sample.labels["dst"] = sample.labels.get("dst", "").partition(":")[0]
                sample.labels["rt_route"] = sample.labels.get("rt_route") or DEFAULT_ROUTE
        table = TrafficTable(plan.key)
        table.add_requests(answers[0])
        table.add_latency(answers[1])
        if with_actual:
            table.add_requests(answers[2], actual=True)
        return dict(table.rows)  # type: ignore[arg-type]

    # authz

    async def authz(self, request: pb.AuthzRequest) -> list[Row]:
        target = translate.target_from(request.resource.resource)
        await self.check_window(request.time_window)
        plan = queries.authz_plan(target)
        table = TrafficTable(plan.group)
        await self._fill(table, plan, request.time_window, tcp=False)
        rows = []
        for _, traffic in sorted(table.rows.items()):
            row = Row(time_window=request.time_window)
            row.resource.CopyFrom(request.resource.resource)
            if traffic.requests is not None:
                row.stats.CopyFrom(translate.basic_stats(traffic.requests))
            row.srv_stats.CopyFrom(translate.server_stats(traffic.authorized, traffic.labels))
            rows.append(row)
        return rows


async def _nothing() -> list[Key]:
    return []


def _row(kind: Kind, key: Key, window: str, traffic: Traffic | None) -> Row:
    row = Row(resource=translate.resource(kind, *key), time_window=window)
    if traffic is None:
        return row
    if traffic.requests is not None:
        row.stats.CopyFrom(translate.basic_stats(traffic.requests))
    if traffic.tcp is not None:
        row.tcp_stats.CopyFrom(translate.tcp_stats(traffic.tcp))
    if traffic.authorized is not None:
        row.srv_stats.CopyFrom(translate.server_stats(traffic.authorized, traffic.labels))
    return row


def _route_rows(keys: list[Key], traffic: TrafficTable, window: str) -> list[Row]:
    """A route may hang at several Servers: a row for each; one without for a route that nobody called."""
    rows = []
    for namespace, name in keys:
        of_route = [one for key, one in sorted(traffic.rows.items()) if key[:2] == (namespace, name)]
        rows += [_row(kinds.HTTP_ROUTE, (namespace, name), window, one) for one in of_route or [None]]
    return rows


def _set_leaf(row: Row, leaf: Leaf) -> None:
    row.ts_stats.apex, row.ts_stats.leaf, row.ts_stats.weight = leaf.apex, leaf.name, leaf.weight


def _profile_rows(profiles: list[Profile], traffic: dict[Key, Traffic], window: str) -> list[pb.RouteTable.Row]:
    rows = []
    for profile in profiles:
        for route in (*profile.routes, DEFAULT_ROUTE):
            row = pb.RouteTable.Row(route=route, time_window=window, authority=profile.service)
            one = traffic.get((profile.name, route))
            if one is not None and one.requests is not None:
                row.stats.CopyFrom(translate.basic_stats(one.requests))
            rows.append(row)
    return rows
