"""The policy resources and what they are about, as they are now: events in, lookups out. Pure.

As in destination, each change says which *sources* it touches: `("pod", ns, name)`, `("external", ns, name)`,
`("namespace", ns)`,
`("inbound", ns)` for all that decides who may come to a namespace's pods, `("authentications",)` for what those may
refer to across namespaces, `("service", ns, name)`, `("ip", ip)`, `("routes", ns, name)` for the routes of a Service or
EgressNetwork, `("egress",)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from linkerd.core.identities import TrustDomain
from linkerd.core.networks import EVERYWHERE, Network
from linkerd.core.ports import PortSet
from linkerd.core.services import Service
from linkerd.core.workloads import ExternalWorkload, Key, Namespace, Pod
from linkerd.policy.values import (
    POLICY_GROUP,
    AuthorizationPolicy,
    EgressNetwork,
    MeshTLSAuthentication,
    NetworkAuthentication,
    RateLimit,
    Ref,
    Route,
    Server,
    ServerAuthorization,
)

Source = tuple[str, ...]
Value = (
    Pod
    | ExternalWorkload
    | Namespace
    | Service
    | Server
    | ServerAuthorization
    | AuthorizationPolicy
    | MeshTLSAuthentication
    | NetworkAuthentication
    | RateLimit
    | EgressNetwork
    | Route
)

AUTHENTICATIONS: Source = ("authentications",)
EGRESS: Source = ("egress",)


@dataclass(frozen=True, slots=True)
class Settings:
    cluster_domain: str = "cluster.local"
    trust_domain: TrustDomain = field(default_factory=TrustDomain)
    cluster_networks: tuple[Network, ...] = ()
    probe_networks: tuple[Network, ...] = EVERYWHERE
    default_policy: str = "all-unauthenticated"
    opaque_ports: PortSet = field(default_factory=PortSet)
    egress_namespace: str = "linkerd-egress"
    allow_l5d_request_headers: bool = False


class Index:
    """The order in which objects come does not matter."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pods: dict[Key, Pod] = {}
        self.external_workloads: dict[Key, ExternalWorkload] = {}
        self.namespaces: dict[str, Namespace] = {}
        self.services: dict[Key, Service] = {}
        self.mesh_authentications: dict[Key, MeshTLSAuthentication] = {}
        self.network_authentications: dict[Key, NetworkAuthentication] = {}
        self.egress_networks: dict[Key, EgressNetwork] = {}
        self.routes: dict[tuple[str, str, str, str], Route] = {}
        self._services_by_ip: dict[str, set[Key]] = {}
        self._in_namespace: dict[type, dict[str, dict[str, object]]] = {
            kind: {} for kind in (Server, ServerAuthorization, AuthorizationPolicy, RateLimit)
        }
        self._routes_by_parent: dict[tuple[str, str, str, str], set[tuple[str, str, str, str]]] = {}

    # Events in

    def apply(self, value: Value) -> set[Source]:
        """The value is new or different. Gives the sources that this touches."""
        return self._put(value, value)

    def remove(self, value: Value) -> set[Source]:
        return self._put(value, None)

    def _put(self, value: Value, now: Value | None) -> set[Source]:
        match value:
            case Pod():
                _set(self.pods, value.key, now)
                return {("pod", *value.key)}
            case ExternalWorkload():
                _set(self.external_workloads, value.key, now)
                return {("external", *value.key)}
            case Namespace():
                _set(self.namespaces, value.name, now)
                return {("namespace", value.name)}
            case Service():
                return self._put_service(value, now)  # type: ignore[arg-type]
            case MeshTLSAuthentication():
                _set(self.mesh_authentications, value.key, now)
                return {AUTHENTICATIONS}
            case NetworkAuthentication():
                _set(self.network_authentications, value.key, now)
                return {AUTHENTICATIONS}
            case EgressNetwork():
                _set(self.egress_networks, value.key, now)
                return {EGRESS, ("routes", *value.key)}
            case Route():
                return self._put_route(value, now)  # type: ignore[arg-type]
            case _:
                self._put_in_namespace(value, now)
                return {("inbound", value.namespace)}

    def _put_in_namespace(self, value: Value, now: Value | None) -> None:
        namespaces = self._in_namespace[type(value)]
        _set(namespaces.setdefault(value.namespace, {}), value.name, now)  # type: ignore[union-attr]
        if not namespaces[value.namespace]:  # type: ignore[union-attr]
            del namespaces[value.namespace]  # type: ignore[union-attr]

    def _put_service(self, value: Service, now: Service | None) -> set[Source]:
        touched: set[Source] = {("service", *value.key)}
        before = self.services.get(value.key)
        _set(self.services, value.key, now)
        for ip in before.cluster_ips if before else ():
            _discard(self._services_by_ip, ip, value.key)
            touched.add(("ip", ip))
        for ip in now.cluster_ips if now else ():
            self._services_by_ip.setdefault(ip, set()).add(value.key)
            touched.add(("ip", ip))
        return touched

    def _put_route(self, value: Route, now: Route | None) -> set[Source]:
        touched: set[Source] = set()
        before = self.routes.get(value.id)
        _set(self.routes, value.id, now)
        for parent in before.parents if before else ():
            _discard(self._routes_by_parent, _parent_id(parent.ref), value.id)
            touched.add(_touched_by(parent.ref))
        for parent in now.parents if now else ():
            self._routes_by_parent.setdefault(_parent_id(parent.ref), set()).add(value.id)
            touched.add(_touched_by(parent.ref))
        return touched

    # Lookups out

    def servers(self, namespace: str) -> list[Server]:
        return self._all(Server, namespace)

    def server_authorizations(self, namespace: str) -> list[ServerAuthorization]:
        return self._all(ServerAuthorization, namespace)

    def authorization_policies(self, namespace: str) -> list[AuthorizationPolicy]:
        return self._all(AuthorizationPolicy, namespace)

    def rate_limits(self, namespace: str) -> list[RateLimit]:
        return self._all(RateLimit, namespace)

    def all_rate_limits(self) -> Iterator[RateLimit]:
        for found in self._in_namespace[RateLimit].values():
            yield from found.values()  # type: ignore[misc]

    def service_at(self, ip: str) -> Service | None:
        """The Service with this ClusterIP; of several, the oldest."""
        found = [self.services[key] for key in self._services_by_ip.get(ip, ())]
        return min(found, key=lambda s: (s.created, s.key)) if found else None

    def routes_of(self, ref: Ref) -> list[tuple[Route, int | None]]:
        """The routes with this parent and the port they name, the older first."""
        return sorted(self._routes(ref), key=lambda found: found[0].age)

    def namespace_annotations(self, namespace: str) -> Mapping[str, str]:
        found = self.namespaces.get(namespace)
        return found.annotations if found else {}

    def _routes(self, ref: Ref) -> Iterator[tuple[Route, int | None]]:
        for identity in self._routes_by_parent.get(_parent_id(ref), ()):
            route = self.routes[identity]
            yield from ((route, parent.port) for parent in route.parents if parent.ref == ref)

    def _all(self, kind: type, namespace: str) -> list:
        return sorted(self._in_namespace[kind].get(namespace, {}).values(), key=lambda v: v.name)


def _set(values: dict, key: object, value: object | None) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value


def _discard(index: dict, key: object, value: object) -> None:
    found = index.get(key)
    if found is not None:
        found.discard(value)
        if not found:
            del index[key]


def _parent_id(ref: Ref) -> tuple[str, str, str, str]:
    return ref.group, ref.kind, ref.namespace, ref.name


def _touched_by(ref: Ref) -> Source:
    if ref.kind == "Server" and ref.group == POLICY_GROUP:
        return ("inbound", ref.namespace)
    return ("routes", ref.namespace, ref.name)
