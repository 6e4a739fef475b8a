"""What is asked of Prometheus, as text: from a question about the mesh to PromQL. Pure.

Counts are exact, not extrapolated. PromQL's `increase` sees only differences between samples inside the window and
scales them up: a series that began with its first scrape (100 requests in a burst, then silence) counts as nothing, and
150 requests come out as 163.6. `gain` instead takes the last value of the window minus the last one before it. That
covers exactly one window's length, shifted by the age of the newest scrape. See its comment for the exceptions.

Percentiles come from the same gains, over the whole window. (Linkerd asks with `irate`, which looks at the last two
scrapes only, whatever the window; the guide promises that longer windows smooth.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from linkerd.core.kinds import (
    AUTHORIZATION_POLICY,
    HTTP_ROUTE,
    NAMESPACE,
    SERVER,
    SERVER_AUTHORIZATION,
    SERVICE,
    TRAFFIC_SPLIT,
    Kind,
    Target,
)

REQUESTS = "response_total"
LATENCY = "response_latency_ms_bucket"
ROUTE_REQUESTS = "route_response_total"
ROUTE_ACTUAL_REQUESTS = "route_actual_response_total"
ROUTE_LATENCY = "route_response_latency_ms_bucket"
TCP_CONNECTIONS = "tcp_open_connections"
TCP_READ = "tcp_read_bytes_total"
TCP_WRITE = "tcp_write_bytes_total"
AUTHZ_ALLOW = "inbound_http_authz_allow_total"
AUTHZ_DENY = "inbound_http_authz_deny_total"


@dataclass(frozen=True, slots=True)
class Matcher:
    """`name="value"`, or with another operator."""

    name: str
    value: str
    operator: str = "="

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.name}{self.operator}"{escaped}"'


Matchers = tuple[Matcher, ...]


def equal(labels: Mapping[str, str]) -> Matchers:
    """Matchers for the labels that have a value."""
    return tuple(Matcher(name, value) for name, value in labels.items() if value)


def selector(metric: str, matchers: Iterable[Matcher]) -> str:
    """Sorted, so that equal questions are equal texts."""
    inner = ", ".join(str(m) for m in sorted(set(matchers), key=lambda m: (m.name, m.operator, m.value)))
    return f"{metric}{{{inner}}}"


def gain(metric: str, matchers: Matchers, window: str) -> str:
    """How much each series of a counter grew in the window. In this order, the first that applies to a series:

    1. It was there before the window and was not reset: the difference.
    2. It was reset in the window (its proxy restarted): `increase`, which adds up the pieces.
    3. It is new, and its proxy was watched before the window or started within it: all that it counted. Without the
       condition a Prometheus that has just started would take the proxies' whole past for this minute's traffic.
    4. It is new to us, but was counting before: `increase`, what we saw of it.
    """
    series = selector(metric, matchers)
    last = f"last_over_time({series}[{window}])"
    started = "process_start_time_seconds"
    watched = (
        f'({started}{{pod!=""}} offset {window} or last_over_time({started}[{window}]) > time() - {_seconds(window)})'
    )
    return (
        f"(({last} - {series} offset {window}) >= 0 unless resets({series}[{window}]) > 0)"
        f" or (increase({series}[{window}]) and resets({series}[{window}]) > 0)"
        f" or ({last} and on (namespace, pod) {watched})"
        f" or increase({series}[{window}])"
    )


def sum_by(expression: str, labels: Iterable[str]) -> str:
    return f"sum({expression}) by ({', '.join(labels)})"


_PARTS = re.compile(r"(\d+)(ms|s|m|h|d|w|y)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def parse_window(text: str) -> float:
    """Seconds of a Prometheus duration (`30s`, `1h30m`). Raises ValueError."""
    parts = _PARTS.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'not a valid duration string: "{text}"')
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def _seconds(window: str) -> str:
    return f"{parse_window(window):g}"


_PROBES = (Matcher("route_kind", "default"), Matcher("route_name", "probe"))


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the traffic of one kind of row is found.

    `group` are the labels that make a row; `key` names the two of them that are its namespace and name.
    """

    matchers: Matchers
    group: tuple[str, ...]
    key: tuple[str, str]
    tcp_matchers: Matchers | None = None
    """None for rows without TCP."""
    authz_matchers: Matchers | None = None
    """For the counters of what was allowed and denied; only policy rows have them."""

    probes_apart: bool = False
    """Leave out what the node's probes ask: it is no traffic, and while an application starts it fails by design."""

    def requests(self, window: str, metric: str = REQUESTS) -> str:
        return sum_by(self._traffic(metric, window), (*self.group, "classification"))

    def latency(self, window: str, metric: str = LATENCY) -> str:
        return sum_by(self._traffic(metric, window), ("le", *self.group))

    def _traffic(self, metric: str, window: str) -> str:
        counted = gain(metric, self.matchers, window)
        if not self.probes_apart:
            return counted
        # Over the window, since series of pods that have gone by now are counted, too.
        return f"({counted}) unless last_over_time({selector(metric, (*self.matchers, *_PROBES))}[{window}])"

    def tcp_connections(self) -> str:
        return sum_by(selector(TCP_CONNECTIONS, self.tcp_matchers or ()), self.group)

    def tcp_bytes(self, metric: str, window: str) -> str:
        return sum_by(gain(metric, self.tcp_matchers or (), window), self.group)

    def authz(self, metric: str, window: str) -> str:
        return sum_by(gain(metric, self.authz_matchers or (), window), self.group)


@dataclass(frozen=True, slots=True)
class Question:
    """Rows of `selector`; with `to`, its traffic towards that; with `source`, what that one sends to the rows."""

    selector: Target
    to: Target | None = None
    source: Target | None = None

    @property
    def direct(self) -> bool:
        """Neither to nor from: a row for each object, with traffic or without."""
        return self.to is None and self.source is None


def plan(question: Question, cluster_domain: str = "cluster.local") -> Plan:
    kind = question.selector.kind
    if kind in (SERVICE, TRAFFIC_SPLIT):
        return _service_plan(question, cluster_domain)
    if kind in (SERVER, SERVER_AUTHORIZATION, AUTHORIZATION_POLICY, HTTP_ROUTE):
        return _policy_plan(question.selector)
    if question.to is not None:
        return _to_plan(question.selector, question.to)
    if question.source is not None:
        return _from_plan(question.selector, question.source)
    return _workload_plan(question.selector)


def _workload_plan(target: Target) -> Plan:
    labels = (*_direction("inbound"), *_labels(target), *_present(target.kind.label))
    return replace(_plan(labels, _group(target.kind), peer="src"), probes_apart=True)


def _to_plan(rows: Target, to: Target) -> Plan:
    labels = (*_direction("outbound"), *_labels(rows), *_labels(to, "dst_"), *_present(rows.kind.label))
    return _plan(labels, _group(rows.kind), peer="dst")


def _from_plan(rows: Target, source: Target) -> Plan:
    present = _present("dst_" + rows.kind.label)
    labels = (*_direction("outbound"), *_labels(source), *_labels(rows, "dst_"), *present)
    return _plan(labels, _group(rows.kind, "dst_"), peer="dst")


def _service_plan(question: Question, domain: str) -> Plan:
    rows = question.selector
    name = re.escape(rows.name) if rows.name else r"[^.]+"
    namespace = re.escape(rows.namespace) if rows.namespace else r"[^.]+"
    authority = Matcher("authority", rf"{name}\.{namespace}\.svc\.{re.escape(domain)}(:\d+)?", "=~")
    labels = (
        *_direction("outbound"),
        authority,
        *(_labels(question.to, "dst_") if question.to else ()),
        *(_labels(question.source) if question.source else ()),
        *_present("dst_service"),
    )
    return _plan(labels, ("dst_namespace", "dst_service"), peer="dst")


def _policy_plan(target: Target) -> Plan:
    kind = target.kind
    labels = equal({kind.label: target.name, "namespace": target.namespace})
    if kind is SERVER:
        labels = (*labels, Matcher("srv_kind", "server"))
        group: tuple[str, ...] = ("srv_kind", "namespace", "srv_name")
    elif kind is HTTP_ROUTE:
        group = ("srv_name", "srv_kind", "route_kind", "namespace", "route_name")
    else:
        labels = (*labels, Matcher("authz_kind", kind.name))
        group = ("namespace", "authz_name")
    labels = (*labels, *_present(kind.label))
    inbound = (*labels, *_direction("inbound"))
    return Plan(
        matchers=inbound,
        group=group,
        key=(group[-2], group[-1]),
        tcp_matchers=(*inbound, Matcher("peer", "src")) if kind is SERVER else None,
        authz_matchers=labels,
    )


def _plan(labels: Matchers, group: tuple[str, ...], *, peer: str) -> Plan:
    """`peer` is the far side of the proxy: its connections to the application would count everything twice."""
    with_peer = (*labels, Matcher("peer", peer))
    key = (group[-2], group[-1]) if len(group) > 1 else ("", group[0])
    return Plan(labels, group, key, tcp_matchers=with_peer)


def _direction(value: str) -> Matchers:
    return (Matcher("direction", value),)


def _present(label: str) -> Matchers:
    """Series of other kinds of workloads would come out as one row without a name."""
    return (Matcher(label, "", "!="),)


def _group(kind: Kind, prefix: str = "") -> tuple[str, ...]:
    if kind is NAMESPACE:
        return (f"{prefix}namespace",)
    return (f"{prefix}namespace", f"{prefix}{kind.label}")


def _labels(target: Target, prefix: str = "") -> Matchers:
    """The labels that say: this is the target, or in its namespace when it has no name."""
    if target.kind is NAMESPACE:
        return equal({f"{prefix}namespace": target.name})
    own = _present(prefix + target.kind.label) if not target.name else ()
    return (*equal({prefix + target.kind.label: target.name, f"{prefix}namespace": target.namespace}), *own)


# Routes, edges, authorizations, pods


def profile_matcher(profiles: Iterable[str]) -> Matcher:
    """The `dst` of the routes of these ServiceProfiles, with or without a port."""
    return Matcher("dst", f"({'|'.join(sorted(re.escape(name) for name in profiles))})(:\\d+)?", "=~")


def routes_plan(rows: Target, profiles: Iterable[str], to: Target | None = None) -> Plan:
    """Routes at the rows themselves, or as they are called by them when `to` is given."""
    direction = "outbound" if to is not None or rows.kind is SERVICE else "inbound"
    # The callers of a service may be anywhere: its own namespace says nothing about them.
    own = () if rows.kind is SERVICE else _labels(rows)
    group = ("dst", "rt_route")
    return Plan((*_direction(direction), *own, profile_matcher(profiles)), group, group)


def edges_query(kind: Kind) -> str:
    label = kind.label
    matchers = (*_direction("outbound"), Matcher(label, "", "!="), Matcher(f"dst_{label}", "", "!="))
    group = (label, f"dst_{label}", "pod", "server_id", "namespace", "dst_namespace", "no_tls_reason")
    return sum_by(selector(TCP_CONNECTIONS, matchers), dict.fromkeys(group))


def authz_plan(target: Target) -> Plan:
    """Per authorization, at one workload."""
    labels = _labels(target)
    group = ("route_kind", "route_name", "authz_kind", "authz_name", "srv_kind", "srv_name")
    return Plan((*labels, *_direction("inbound")), group, ("", ""), authz_matchers=labels)


def pods_query(namespace: str = "") -> str:
    """When each pod's proxy started, of the pods that are scraped."""
    matchers = (*equal({"namespace": namespace}), *_present("pod"))
    return f"max({selector('process_start_time_seconds', matchers)}) by (pod, namespace)"
