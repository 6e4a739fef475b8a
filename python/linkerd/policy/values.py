"""The policy resources as values. Plain data; parsing is `parsing.py`, meaning is `inbound.py` and `outbound.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from linkerd.core.labels import Selector
from linkerd.core.networks import Network
from linkerd.core.workloads import Key

POLICY_GROUP = "policy.linkerd.io"
GATEWAY_GROUP = "gateway.networking.k8s.io"


@dataclass(frozen=True, slots=True)
class Ref:
    """One resource, named from another one."""

    group: str
    kind: str
    namespace: str
    name: str

    @property
    def key(self) -> Key:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Reported:
    """What is in a resource's status now, as the API gives it, and the generation of its spec."""

    generation: int = 0
    status: Mapping[str, Any] = field(default_factory=dict)


# Who may come


@dataclass(frozen=True, slots=True)
class Unauthenticated:
    """Anybody, also in plain text."""


@dataclass(frozen=True, slots=True)
class AnyTls:
    """Any mesh TLS, with or without a client certificate."""


@dataclass(frozen=True, slots=True)
class Identities:
    """Clients with one of these names, or a name ending in one of these suffixes (labels; none: any name)."""

    names: tuple[str, ...] = ()
    suffixes: tuple[tuple[str, ...], ...] = ()


Authentication = Unauthenticated | AnyTls | Identities


@dataclass(frozen=True, slots=True)
class Server:
    namespace: str
    name: str
    created: str
    labels: Mapping[str, str]
    selector: Selector | None  # None: it is for external workloads
    external_selector: Selector | None
    port: int | str
    protocol: str = "unknown"
    access: str = "deny"

    @property
    def key(self) -> Key:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class ServerAuthorization:
    namespace: str
    name: str
    server_name: str
    server_selector: Selector | None
    networks: tuple[Network, ...]  # empty: the cluster's
    authentication: Authentication

    @property
    def key(self) -> Key:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class AuthorizationPolicy:
    namespace: str
    name: str
    target: Ref
    authentications: tuple[Ref, ...]

    @property
    def key(self) -> Key:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class MeshTLSAuthentication:
    namespace: str
    name: str
    identities: Identities

    @property
    def key(self) -> Key:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class NetworkAuthentication:
    namespace: str
    name: str
    networks: tuple[Network, ...]

    @property
    def key(self) -> Key:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class RateLimitOverride:
    per_second: int
    clients: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class RateLimit:
    namespace: str
    name: str
    created: str
    target: Ref
    total: int | None
    identity: int | None
    overrides: tuple[RateLimitOverride, ...] = ()
    reported: Reported = field(default_factory=Reported)

    @property
    def key(self) -> Key:
        return self.namespace, self.name


@dataclass(frozen=True, slots=True)
class EgressNetwork:
    namespace: str
    name: str
    created: str
    networks: tuple[Network, ...]  # empty: everything outside of the cluster
    allow: bool
    annotations: Mapping[str, str] = field(default_factory=dict)
    reported: Reported = field(default_factory=Reported)

    @property
    def key(self) -> Key:
        return self.namespace, self.name


# Routes


@dataclass(frozen=True, slots=True)
class Text:
    """A value to compare with: as it is, or as a regular expression."""

    value: str
    regex: bool = False


@dataclass(frozen=True, slots=True)
class PathMatch:
    kind: str  # Exact, PathPrefix, RegularExpression
    value: str


@dataclass(frozen=True, slots=True)
class HttpMatch:
    path: PathMatch | None = None
    headers: tuple[tuple[str, Text], ...] = ()
    params: tuple[tuple[str, Text], ...] = ()
    method: str = ""


@dataclass(frozen=True, slots=True)
class GrpcMatch:
    service: str = ""
    method: str = ""
    headers: tuple[tuple[str, Text], ...] = ()


@dataclass(frozen=True, slots=True)
class HeaderModifier:
    response: bool
    add: tuple[tuple[str, str], ...] = ()
    set: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Redirect:
    scheme: str = ""
    host: str = ""
    port: int = 0
    status: int = 302
    full_path: str | None = None
    prefix: str | None = None


@dataclass(frozen=True, slots=True)
class InjectedFailure:
    """Answers itself: an HTTP status, or for gRPC a code."""

    status: int
    message: str


Filter = HeaderModifier | Redirect | InjectedFailure


@dataclass(frozen=True, slots=True)
class ParentRef:
    ref: Ref
    port: int | None = None
    section: str = ""


@dataclass(frozen=True, slots=True)
class BackendRef:
    ref: Ref
    port: int | None
    weight: int = 1
    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    matches: tuple[HttpMatch | GrpcMatch, ...] = ()
    filters: tuple[Filter, ...] = ()
    backends: tuple[BackendRef, ...] = ()
    timeout: float | None = None  # seconds, of the whole request


@dataclass(frozen=True, slots=True)
class Route:
    """An HTTPRoute, GRPCRoute, TLSRoute or TCPRoute."""

    group: str
    kind: str
    namespace: str
    name: str
    created: str
    parents: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""  # why it cannot be served at all
    version: str = "v1"  # of the API through which it was read
    reported: Reported = field(default_factory=Reported)

    @property
    def id(self) -> tuple[str, str, str, str]:
        return self.group, self.kind, self.namespace, self.name

    @property
    def ref(self) -> Ref:
        return Ref(self.group, self.kind, self.namespace, self.name)

    @property
    def age(self) -> tuple[str, str, str]:
        """The older first, then by name: the order of precedence in the Gateway API."""
        return self.created, self.namespace, self.name
