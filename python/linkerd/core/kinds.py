"""The kinds of things a command line or a request speaks of: `deploy`, `pods`, `svc/web`.

Names and shorthands are Linkerd's, matched exactly. What a kind is called in Prometheus' labels belongs to it too,
since the same word appears in tap's labels, in metrics and in the destination's endpoint labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class UnknownKind(ValueError):
    """No kind has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"cannot find Kubernetes canonical name from friendly name [{name}]")


class TargetError(ValueError):
    """The arguments do not name resources."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource. `short` is the prefix in tables of several kinds; `label` its name in metrics and tap."""

    name: str
    short: str
    plural: str
    label: str = ""
    pods: bool = False
    """Whether its objects own or are pods, and so can be meshed."""
    aliases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


CRON_JOB = Kind("cronjob", "cj", "cronjobs", "cronjob", pods=True)
DAEMON_SET = Kind("daemonset", "ds", "daemonsets", "daemonset", pods=True)
DEPLOYMENT = Kind("deployment", "deploy", "deployments", "deployment", pods=True)
JOB = Kind("job", "job", "jobs", "k8s_job", pods=True)
NAMESPACE = Kind("namespace", "ns", "namespaces", "namespace", pods=True)
POD = Kind("pod", "po", "pods", "pod", pods=True)
REPLICATION_CONTROLLER = Kind("replicationcontroller", "rc", "replicationcontrollers", "replicationcontroller", True)
REPLICA_SET = Kind("replicaset", "rs", "replicasets", "replicaset", pods=True)
STATEFUL_SET = Kind("statefulset", "sts", "statefulsets", "statefulset", pods=True)
SERVICE = Kind("service", "svc", "services", "service")
SERVICE_PROFILE = Kind("serviceprofile", "sp", "serviceprofiles")
TRAFFIC_SPLIT = Kind("trafficsplit", "ts", "trafficsplits")
SERVER = Kind("server", "srv", "servers", "srv_name")
SERVER_AUTHORIZATION = Kind(
    "serverauthorization", "saz", "serverauthorizations", "authz_name", aliases=("serverauthz", "srvauthz")
)
AUTHORIZATION_POLICY = Kind(
    "authorizationpolicy", "ap", "authorizationpolicies", "authz_name", aliases=("authzpolicy",)
)
HTTP_ROUTE = Kind("httproute", "", "httproutes", "route_name")
MESH_TLS_AUTHENTICATION = Kind("meshtlsauthentication", "meshtlsauthn", "meshtlsauthentications")
NETWORK_AUTHENTICATION = Kind("networkauthentication", "netauthn", "networkauthentications", aliases=("networkauthn",))
LINK = Kind("link", "ln", "links")
ALL = Kind("all", "", "all")

KINDS = (
    CRON_JOB, DAEMON_SET, DEPLOYMENT, JOB, NAMESPACE, POD, REPLICATION_CONTROLLER, REPLICA_SET, STATEFUL_SET, SERVICE,
    SERVICE_PROFILE, TRAFFIC_SPLIT, SERVER, SERVER_AUTHORIZATION, AUTHORIZATION_POLICY, HTTP_ROUTE,
    MESH_TLS_AUTHENTICATION, NETWORK_AUTHENTICATION, LINK, ALL,
)  # fmt: skip

POLICY_KINDS = (SERVER, SERVER_AUTHORIZATION, AUTHORIZATION_POLICY, HTTP_ROUTE)

ALL_MEANS = (
    DAEMON_SET, STATEFUL_SET, JOB, DEPLOYMENT, REPLICATION_CONTROLLER, POD, SERVICE, TRAFFIC_SPLIT, CRON_JOB,
    REPLICA_SET,
)  # fmt: skip
"""What `stat all` asks for: everything with traffic of its own."""

TAP_KINDS = (
    CRON_JOB, DAEMON_SET, DEPLOYMENT, JOB, NAMESPACE, POD, REPLICA_SET, REPLICATION_CONTROLLER, STATEFUL_SET,
)  # fmt: skip

_BY_NAME = {name: kind for kind in KINDS for name in (kind.name, kind.short, kind.plural, *kind.aliases) if name}


def parse_kind(text: str) -> Kind:
    """Raises UnknownKind."""
    kind = _BY_NAME.get(text)
    if kind is None:
        raise UnknownKind(text)
    return kind


@dataclass(frozen=True, slots=True)
class Target:
    """A resource, or all resources of a kind when `name` is empty. `namespace` is empty for all namespaces."""

    kind: Kind
    name: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind.name}/{self.name}" if self.name else self.kind.name


def parse_target(text: str, namespace: str = "") -> Target:
    """`TYPE` or `TYPE/NAME`. Raises UnknownKind and TargetError."""
    kind, *names = text.split("/")
    if len(names) > 1:
        raise TargetError(f"Invalid resource string: {text}")
    return target_of(parse_kind(kind), names[0] if names else "", namespace)


def target_of(kind: Kind, name: str, namespace: str) -> Target:
    """A namespace lies in no namespace."""
    return Target(kind, name, "" if kind is NAMESPACE else namespace)


def parse_targets(arguments: Sequence[str], namespace: str = "") -> list[Target]:
    """`deploy web api` as well as `deploy/web svc/api`. Raises UnknownKind and TargetError."""
    if not arguments:
        raise TargetError("No resource arguments provided")
    first = _BY_NAME.get(arguments[0])
    if len(arguments) > 1 and first is not None and first is not ALL:
        targets = [target_of(first, name, namespace) for name in arguments[1:]]
    else:
        targets = [parse_target(argument, namespace) for argument in arguments]
    _check_distinct(targets)
    return targets


def _check_distinct(targets: Iterable[Target]) -> None:
    found = list(targets)
    if len(set(found)) != len(found):
        raise TargetError("cannot supply duplicate resources")
    if len(found) > 1 and any(target.kind is ALL for target in found):
        raise TargetError("'all' can't be supplied alongside other resources")
