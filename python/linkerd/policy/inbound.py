"""Who may come to a port of a pod, and how its bytes are to be read. Pure: the index in, one value out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from linkerd.core.labels import DEFAULT_INBOUND_POLICY, OPAQUE_PORTS, REQUIRE_IDENTITY_PORTS
from linkerd.core.networks import EVERYWHERE, Network
from linkerd.core.ports import PortSet, parse_port_set_leniently
from linkerd.core.workloads import ExternalWorkload, Key, Pod
from linkerd.policy.index import AUTHENTICATIONS, Index, Source
from linkerd.policy.parsing import DEFAULT_POLICIES
from linkerd.policy.values import (
    GATEWAY_GROUP,
    POLICY_GROUP,
    Authentication,
    AuthorizationPolicy,
    HttpMatch,
    Identities,
    PathMatch,
    RateLimit,
    Ref,
    Route,
    Rule,
    Server,
    ServerAuthorization,
    Unauthenticated,
)

Workload = Pod | ExternalWorkload

_ANY_IDENTITY = Identities(suffixes=((),))


@dataclass(frozen=True, slots=True)
class Meta:
    """What a decision is put down to: a resource, or a default by name."""

    name: str
    kind: str = "default"
    group: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Authorization:
    meta: Meta
    networks: tuple[Network, ...]
    authentication: Authentication


@dataclass(frozen=True, slots=True)
class InboundRoute:
    meta: Meta
    rules: tuple[Rule, ...]
    hostnames: tuple[str, ...] = ()
    authorizations: tuple[Authorization, ...] = ()


@dataclass(frozen=True, slots=True)
class InboundPolicy:
    meta: Meta
    protocol: str  # as in a Server's proxyProtocol
    authorizations: tuple[Authorization, ...]
    http_routes: tuple[InboundRoute, ...]
    grpc_routes: tuple[InboundRoute, ...] = ()
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class WorkloadRef:
    """Whose port it is: `kind` is `pod` or `external`, as in the index's sources."""

    kind: str
    namespace: str
    name: str

    @property
    def key(self) -> Key:
        return self.namespace, self.name


def inbound_policy(index: Index, ref: WorkloadRef, port: int) -> tuple[InboundPolicy | None, set[Source]]:
    """None for a workload that is not there, or not meshed."""
    sources: set[Source] = {
        (ref.kind, *ref.key),
        ("namespace", ref.namespace),
        ("inbound", ref.namespace),
        AUTHENTICATIONS,
    }
    found = index.pods.get(ref.key) if ref.kind == "pod" else index.external_workloads.get(ref.key)
    if found is None:
        return None, sources
    server = server_of(index, found, port)
    probes = _probe_routes(index, found, port)
    return (_of_server(index, server, probes) if server else _by_default(index, found, port, probes)), sources


def server_of(index: Index, workload: Workload, port: int) -> Server | None:
    """The Server that is in force for a port: of several, the oldest."""
    matching = [server for server in index.servers(workload.namespace) if _applies(server, workload, port)]
    return min(matching, key=lambda server: (server.created, server.name), default=None)


def _applies(server: Server, workload: Workload, port: int) -> bool:
    selector = server.selector if isinstance(workload, Pod) else server.external_selector
    if selector is None or not selector.matches(workload.labels):
        return False
    return port in (server.port, workload.port_names().get(str(server.port)))


def default_authorizations(index: Index, policy: str) -> tuple[Authorization, ...]:
    """What a default policy by name lets in."""
    meta = Meta(policy)
    if policy == "deny":
        return ()
    if policy == "audit":
        return (Authorization(meta, EVERYWHERE, Unauthenticated()),)
    networks = EVERYWHERE if policy.startswith("all-") else index.settings.cluster_networks
    authenticated = policy.endswith("-authenticated")
    return (Authorization(meta, networks, _ANY_IDENTITY if authenticated else Unauthenticated()),)


def default_policy(index: Index, pod: Workload, port: int) -> str:
    """By annotation of the pod, else of its namespace, else the cluster's; stricter on ports that need an identity."""
    annotations = index.namespace_annotations(pod.namespace)
    asked = pod.annotations.get(DEFAULT_INBOUND_POLICY) or annotations.get(DEFAULT_INBOUND_POLICY)
    policy = asked if asked in DEFAULT_POLICIES else index.settings.default_policy
    if policy.endswith("-unauthenticated") and port in _ports(pod, REQUIRE_IDENTITY_PORTS):
        return policy.removesuffix("-unauthenticated") + "-authenticated"
    return policy


def _by_default(index: Index, pod: Workload, port: int, probes: tuple[InboundRoute, ...]) -> InboundPolicy:
    policy = default_policy(index, pod, port)
    return InboundPolicy(
        Meta(policy),
        "opaque" if port in _opaque_ports(index, pod) else "unknown",
        default_authorizations(index, policy),
        (_DEFAULT_ROUTE, *probes),
    )


def _of_server(index: Index, server: Server, probes: tuple[InboundRoute, ...]) -> InboundPolicy:
    attached = [route for route in routes_of_server(index, server) if not route.problem]
    http = tuple(_inbound_route(index, route) for route in attached if route.kind == "HTTPRoute")
    grpc = tuple(_inbound_route(index, route) for route in attached if route.kind == "GRPCRoute")
    return InboundPolicy(
        Meta(server.name, "server", POLICY_GROUP, server.namespace),
        server.protocol,
        tuple(_authorizations(index, server)),
        http or (_DEFAULT_ROUTE, *probes),
        grpc,
        _rate_limit(index, server),
    )


def routes_of_server(index: Index, server: Server) -> list[Route]:
    ref = Ref(POLICY_GROUP, "Server", server.namespace, server.name)
    return [route for route, _ in index.routes_of(ref) if route.namespace == server.namespace]


_DEFAULT_ROUTE = InboundRoute(Meta("default"), (Rule(matches=(HttpMatch(PathMatch("PathPrefix", "/")),)),))


def _probe_routes(index: Index, pod: Workload, port: int) -> tuple[InboundRoute, ...]:
    """The kubelet has no identity: what it asks for to probe the pod is let in from where kubelets are."""
    paths = [path for probed, path in pod.probes if probed == port]
    networks = index.settings.probe_networks
    if not paths or not networks:
        return ()
    matches = tuple(HttpMatch(PathMatch("Exact", path), method="GET") for path in paths)
    allowed = Authorization(Meta("probe"), networks, Unauthenticated())
    return (InboundRoute(Meta("probe"), (Rule(matches=matches),), authorizations=(allowed,)),)


def _authorizations(index: Index, server: Server) -> Iterable[Authorization]:
    for authorization in index.server_authorizations(server.namespace):
        if _is_meant(authorization, server):
            meta = Meta(authorization.name, "serverauthorization", POLICY_GROUP, server.namespace)
            networks = authorization.networks or index.settings.cluster_networks
            yield Authorization(meta, networks, authorization.authentication)
    server_ref = Ref(POLICY_GROUP, "Server", server.namespace, server.name)
    for policy in index.authorization_policies(server.namespace):
        if policy.target == server_ref or policy.target.kind == "Namespace":
            yield from _of_policy(index, policy)
    yield from default_authorizations(index, server.access)


def _is_meant(authorization: ServerAuthorization, server: Server) -> bool:
    if authorization.server_selector is not None:
        return authorization.server_selector.matches(server.labels)
    return authorization.server_name == server.name


def _of_policy(index: Index, policy: AuthorizationPolicy) -> Iterable[Authorization]:
    """Nothing when it refers to something that is not there: it fails closed."""
    authentication: Authentication = Unauthenticated()
    networks = EVERYWHERE
    for ref in policy.authentications:
        if ref.kind == "ServiceAccount":
            authentication = Identities((index.settings.trust_domain.service_account(*ref.key),))
        elif ref.kind == "MeshTLSAuthentication" and ref.key in index.mesh_authentications:
            authentication = index.mesh_authentications[ref.key].identities
        elif ref.kind == "NetworkAuthentication" and ref.key in index.network_authentications:
            networks = index.network_authentications[ref.key].networks
        else:
            return
    meta = Meta(policy.name, "authorizationpolicy", POLICY_GROUP, policy.namespace)
    yield Authorization(meta, networks, authentication)


def _inbound_route(index: Index, route: Route) -> InboundRoute:
    authorizations = [
        authorization
        for policy in index.authorization_policies(route.namespace)
        if policy.target == route.ref
        for authorization in _of_policy(index, policy)
    ]
    group = route.group if route.group in (POLICY_GROUP, GATEWAY_GROUP) else POLICY_GROUP
    meta = Meta(route.name, route.kind, group, route.namespace)
    return InboundRoute(meta, route.rules, route.hostnames, tuple(authorizations))


def _rate_limit(index: Index, server: Server) -> RateLimit | None:
    """Of several, the oldest."""
    meant = [limit for limit in index.rate_limits(server.namespace) if limit.target.name == server.name]
    return min(meant, key=lambda limit: (limit.created, limit.name), default=None)


def _opaque_ports(index: Index, pod: Workload) -> PortSet:
    """By annotation of the pod, else of its namespace. The cluster's list the injector has written to the pod."""
    if OPAQUE_PORTS in pod.annotations:
        return _ports(pod, OPAQUE_PORTS)
    text = index.namespace_annotations(pod.namespace).get(OPAQUE_PORTS)
    return parse_port_set_leniently(text or "", pod.port_names())[0]


def _ports(pod: Workload, annotation: str) -> PortSet:
    return parse_port_set_leniently(pod.annotations.get(annotation, ""), pod.port_names())[0]
