"""What the cluster looks like for those who want to send: Kubernetes' objects in, endpoints and profiles out. Pure.

Every change says which *sources* it touches; every answer says which sources it was computed from. Who keeps answers
(`service.py`) thus knows which ones to compute again.

An EndpointSlice says which pods belong to a Service, but it follows the pods' own state with a delay. So an endpoint is
there only when both agree: the slice calls it ready, and its Pod exists, is ready and is not on its way out. A pod that
is deleted leaves its balancers with the event of its deletion, and one whose Pod has not been seen yet is not there:
its identity would be unknown, and traffic to it in plain text.

An ExternalWorkload is an endpoint of the Services that select it, whether or not somebody writes EndpointSlices for it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from linkerd.core.authorities import AddressAuthority, ServiceAuthority
from linkerd.core.identities import TrustDomain
from linkerd.core.labels import OPAQUE_PORTS, POD_TEMPLATE_HASH, SKIP_INBOUND_PORTS, Selector, parse_selector
from linkerd.core.ports import PortSet, parse_port_set_leniently
from linkerd.core.services import EndpointSlice, Service, SliceEndpoint
from linkerd.core.workloads import ExternalWorkload, Key, Namespace, Node, Object, Pod
from linkerd.destination.profiles import Override, ServiceProfile, TrafficSplit

Source = tuple[str, ...]
Address = tuple[str, int]

_PROXY_PORTS = (4190, 4191)  # control and admin of the proxy: reached directly, never through its transport


@dataclass(frozen=True, slots=True)
class ServerPort:
    """A policy Server, of which discovery only asks whether the port speaks no protocol that we know."""

    namespace: str
    name: str
    selector: Selector
    port: int | str
    opaque: bool = True
    external: bool = False  # it is for external workloads

    @property
    def key(self) -> Key:
        return self.namespace, self.name


def parse_server_port(obj: Object) -> ServerPort:
    metadata, spec = obj["metadata"], obj["spec"]
    external = spec.get("podSelector") is None
    selector = parse_selector(spec.get("externalWorkloadSelector" if external else "podSelector") or {})
    opaque = spec.get("proxyProtocol") == "opaque"
    return ServerPort(metadata["namespace"], metadata["name"], selector, spec["port"], opaque, external)


Workload = Pod | ExternalWorkload
Value = Pod | ExternalWorkload | Node | Namespace | Service | EndpointSlice | ServiceProfile | TrafficSplit | ServerPort


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect, and what is known about who answers there."""

    ip: str
    port: int
    labels: Mapping[str, str] = field(default_factory=dict)
    pod: Key | None = None
    zone: str = ""
    identity: str = ""  # empty: plain text; else DNS-like, or `spiffe://…`
    server_name: str = ""  # empty: the identity
    meshed: bool = False
    h2: bool = False
    opaque: bool = False
    inbound_port: int = 0  # where its proxy takes transport headers; 0: nowhere

    @property
    def address(self) -> Address:
        return self.ip, self.port


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint with what decides which clients see it."""

    endpoint: Endpoint
    node: str = ""
    zones: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """All endpoints of one port of one Service, for clients everywhere."""

    exists: bool
    external: bool = False
    local_only: bool = False
    candidates: tuple[Candidate, ...] = ()

    def view(self, zone: str, node: str) -> dict[Address, Endpoint]:
        """What a client in this zone, on this node, may use."""
        found = [c for c in self.candidates if not self.local_only or c.node == node]
        # Hints hold only if every endpoint has one, and never leave a client without any endpoint.
        if zone and not self.local_only and all(c.zones for c in found):
            found = [c for c in found if zone in c.zones] or found
        return {c.endpoint.address: c.endpoint for c in found}


@dataclass(frozen=True, slots=True)
class LogicalProfile:
    """A Service as clients should treat it."""

    namespace: str
    service: str
    port: int
    opaque: bool = False
    profile: ServiceProfile | None = None
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointProfile:
    """One known place, of no Service."""

    endpoint: Endpoint
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class UndeclaredPort:
    """A Service that has no such port."""


Profile = LogicalProfile | EndpointProfile | UndeclaredPort


class Ambiguous(ValueError):
    """Two Services claim one address."""


@dataclass(frozen=True, slots=True)
class Settings:
    cluster_domain: str = "cluster.local"
    trust_domain: TrustDomain = field(default_factory=TrustDomain)
    opaque_ports: PortSet = field(default_factory=PortSet)
    h2_upgrade: bool = True
    ipv6: bool = False


class Index:
    """The state of the cluster as far as discovery needs it. The order in which objects come does not matter."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pods: dict[Key, Pod] = {}
        self._pods_by_ip: dict[str, set[Key]] = {}
        self._pods_by_host_port: dict[Address, set[Key]] = {}
        self._services: dict[Key, Service] = {}
        self._services_by_ip: dict[str, set[Key]] = {}
        self._services_by_pod: dict[Key, set[Key]] = {}
        self._externals: dict[str, dict[str, ExternalWorkload]] = {}
        self._externals_by_ip: dict[str, set[Key]] = {}
        self._slices: dict[Key, dict[str, EndpointSlice]] = {}
        self._slice_services: dict[Key, Key] = {}
        self._nodes: dict[str, Node] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._profiles: dict[Key, ServiceProfile] = {}
        self._splits: dict[Key, dict[str, TrafficSplit]] = {}
        self._split_services: dict[Key, Key] = {}
        self._servers: dict[str, dict[str, ServerPort]] = {}

    # Events in

    def apply(self, value: Value) -> set[Source]:
        """The value is new or different. Gives the sources that this touches."""
        match value:
            case Pod():
                return self._set_pod(value.key, value)
            case ExternalWorkload():
                return self._set_external(value, value)
            case Service():
                return self._set_service(value.key, value)
            case EndpointSlice():
                return self._set_slice(value, value)
            case ServiceProfile():
                self._profiles[value.key] = value
                return {("profile", *value.key)}
            case TrafficSplit():
                return self._set_split(value, value)
            case ServerPort():
                self._servers.setdefault(value.namespace, {})[value.name] = value
                return {("servers", value.namespace)}
            case Node():
                self._nodes[value.name] = value
                return {("node", value.name)}
            case Namespace():
                self._namespaces[value.name] = value
                return {("namespace", value.name)}

    def remove(self, value: Value) -> set[Source]:
        """The value is gone."""
        match value:
            case Pod():
                return self._set_pod(value.key, None)
            case ExternalWorkload():
                return self._set_external(value, None)
            case Service():
                return self._set_service(value.key, None)
            case EndpointSlice():
                return self._set_slice(value, None)
            case ServiceProfile():
                self._profiles.pop(value.key, None)
                return {("profile", *value.key)}
            case TrafficSplit():
                return self._set_split(value, None)
            case ServerPort():
                self._servers.get(value.namespace, {}).pop(value.name, None)
                return {("servers", value.namespace)}
            case Node():
                self._nodes.pop(value.name, None)
                return {("node", value.name)}
            case Namespace():
                self._namespaces.pop(value.name, None)
                return {("namespace", value.name)}

    def _set_pod(self, key: Key, pod: Pod | None) -> set[Source]:
        before = self._pods.pop(key, None)
        if pod is not None:
            self._pods[key] = pod
        if pod == before:
            return set()
        touched = {("service", *service) for service in self._services_by_pod.get(key, ())}
        for known, change in ((before, _discard), (pod, _add)):
            if known is None:
                continue
            for ip in _own_ips(known):
                change(self._pods_by_ip, ip, key)
                touched.add(("ip", ip))
            for address in _host_ports(known):
                change(self._pods_by_host_port, address, key)
                touched.add(("ip", address[0]))
        return touched

    def _set_external(self, value: ExternalWorkload, now: ExternalWorkload | None) -> set[Source]:
        known = self._externals.setdefault(value.namespace, {})
        before = known.pop(value.name, None)
        if now is not None:
            known[now.name] = now
        if not known:
            del self._externals[value.namespace]
        touched: set[Source] = {("externals", value.namespace)}
        for workload, change in ((before, _discard), (now, _add)):
            for ip in workload.ips if workload else ():
                change(self._externals_by_ip, ip, value.key)
                touched.add(("ip", ip))
        return touched

    def _set_service(self, key: Key, service: Service | None) -> set[Source]:
        before = self._services.pop(key, None)
        if service is not None:
            self._services[key] = service
        if service == before:
            return set()
        touched: set[Source] = {("service", *key)}
        for known, change in ((before, _discard), (service, _add)):
            for ip in known.cluster_ips if known else ():
                change(self._services_by_ip, ip, key)
                touched.add(("ip", ip))
        return touched

    def _set_slice(self, value: EndpointSlice, now: EndpointSlice | None) -> set[Source]:
        key = value.namespace, value.name
        touched: set[Source] = set()
        old = self._slice_services.pop(key, None)
        if old is not None:
            before = self._slices[old].pop(value.name)
            if before == now:
                self._slices[old][value.name] = before
                self._slice_services[key] = old
                return set()
            touched.add(("service", *old))
            self._link_pods(old, before, link=False)
            if not self._slices[old]:
                del self._slices[old]
        if now is not None and now.service:
            service = now.namespace, now.service
            self._slices.setdefault(service, {})[now.name] = now
            self._slice_services[key] = service
            self._link_pods(service, now, link=True)
            touched.add(("service", *service))
        return touched

    def _link_pods(self, service: Key, changed: EndpointSlice, *, link: bool) -> None:
        others = self._slices.get(service, {}).values()
        kept = set() if link else {e.target for s in others for e in s.endpoints}
        for endpoint in changed.endpoints:
            if endpoint.target_kind != "Pod":
                continue
            if link:
                _add(self._services_by_pod, endpoint.target, service)
            elif endpoint.target not in kept:
                _discard(self._services_by_pod, endpoint.target, service)

    def _set_split(self, value: TrafficSplit, now: TrafficSplit | None) -> set[Source]:
        touched: set[Source] = set()
        old = self._split_services.pop(value.key, None)
        if old is not None:
            self._splits[old].pop(value.name, None)
            touched.add(("split", *old))
        if now is not None:
            service = now.namespace, now.service
            self._splits.setdefault(service, {})[now.name] = now
            self._split_services[now.key] = service
            touched.add(("split", *service))
        return touched

    # Answers out

    def zone(self, node: str) -> str:
        """Empty when nothing is known about it."""
        found = self._nodes.get(node)
        return found.zone if found else ""

    def table(self, authority: ServiceAuthority) -> tuple[Table, set[Source]]:
        """The endpoints of a Service's port; with `hostname`, that pod's only."""
        key = authority.namespace, authority.service
        sources: set[Source] = {("service", *key), ("servers", key[0]), ("namespace", key[0]), ("externals", key[0])}
        service = self._services.get(key)
        if service is None:
            return Table(exists=False), sources
        if service.type == "ExternalName":
            return Table(exists=True, external=True), sources
        candidates = (*self._candidates(service, authority), *self._external_candidates(service, authority))
        sources |= {("node", c.node) for c in candidates}
        return Table(True, local_only=service.local_only, candidates=candidates), sources

    def profile(self, target: AddressAuthority | ServiceAuthority, client_ns: str) -> tuple[Profile, set[Source]]:
        """How to treat what was looked up. Raises Ambiguous."""
        if isinstance(target, AddressAuthority):
            return self._profile_of_address(str(target.ip), target.port, client_ns)
        if target.hostname:
            return self._profile_of_hostname(target)
        return self._profile_of_service(target, client_ns)

    def _candidates(self, service: Service, authority: ServiceAuthority) -> Iterator[Candidate]:
        declared = service.port(authority.port)
        for known in self._slices.get(service.key, {}).values():
            if known.address_type == "FQDN" or (known.address_type == "IPv6" and not self._settings.ipv6):
                continue
            # A port that the Service does not declare is taken as the pods' own, as Linkerd does.
            port = known.port(declared.name) if declared else authority.port
            if port is None:
                continue
            for endpoint in known.endpoints:
                if authority.hostname and endpoint.hostname != authority.hostname:
                    continue
                yield from self._candidates_of(service, endpoint, port)

    def _candidates_of(self, service: Service, endpoint: SliceEndpoint, port: int) -> Iterator[Candidate]:
        zone = endpoint.zone or self.zone(endpoint.node)
        if endpoint.target_kind == "ExternalWorkload":
            return  # known from itself
        if endpoint.target_kind == "Pod":
            pod = self._pods.get(endpoint.target)
            if pod is None or not _takes_traffic(pod, endpoint, service):
                return
            make = partial(self._pod_endpoint, pod, port, zone=zone)
        elif endpoint.ready and not endpoint.terminating:
            make = partial(Endpoint, port=port, zone=zone)
        else:
            return
        for ip in endpoint.addresses:
            yield Candidate(make(ip=ip), endpoint.node, endpoint.zones)

    def _external_candidates(self, service: Service, authority: ServiceAuthority) -> Iterator[Candidate]:
        if authority.hostname:
            return
        declared = service.port(authority.port)
        for workload in self._externals.get(service.namespace, {}).values():
            if not workload.ready or not service.selects(workload.labels):
                continue
            port = _target_port(declared.target, workload) if declared else authority.port
            for ip in workload.ips if port is not None else ():
                if self._settings.ipv6 or ":" not in ip:
                    yield Candidate(self._external_endpoint(workload, port, ip))

    def _pod_endpoint(self, pod: Pod, port: int, *, ip: str, zone: str) -> Endpoint:
        labels = _labels(pod, zone)
        if not pod.control_plane_ns or port in _skipped(pod):
            return Endpoint(ip, port, labels, pod.key, zone)
        trust = self._settings.trust_domain
        same_mesh = pod.control_plane_ns == trust.control_plane_namespace
        identity = trust.service_account(pod.namespace, pod.service_account) if same_mesh else ""
        return self._meshed(Endpoint(ip, port, labels, pod.key, zone, identity), pod)

    def _external_endpoint(self, workload: ExternalWorkload, port: int, ip: str) -> Endpoint:
        labels = {"external_workload": workload.name}
        plain = Endpoint(ip, port, labels, identity=workload.identity, server_name=workload.server_name)
        return self._meshed(plain, workload)

    def _meshed(self, endpoint: Endpoint, workload: Workload) -> Endpoint:
        opaque = self._is_opaque(workload, endpoint.port)
        return replace(
            endpoint,
            meshed=True,
            h2=self._settings.h2_upgrade and not opaque,
            opaque=opaque,
            inbound_port=workload.inbound_port if endpoint.port not in _PROXY_PORTS else 0,
        )

    def _is_opaque(self, workload: Workload, port: int) -> bool:
        names = workload.port_names()
        if port in self._annotated(workload.annotations, workload.namespace, names):
            return True
        external = isinstance(workload, ExternalWorkload)
        return any(
            server.opaque
            and server.external == external
            and server.selector.matches(workload.labels)
            and port in (server.port, names.get(str(server.port)))
            for server in self._servers.get(workload.namespace, {}).values()
        )

    def _annotated(self, annotations: Mapping[str, str], namespace: str, names: Mapping[str, int]) -> PortSet:
        """The opaque ports by annotation; else of the namespace; else the cluster's."""
        found = annotations.get(OPAQUE_PORTS)
        if found is None and namespace in self._namespaces:
            found = self._namespaces[namespace].annotations.get(OPAQUE_PORTS)
        if found is None:
            return self._settings.opaque_ports
        return parse_port_set_leniently(found, names)[0]

    def _profile_of_address(self, ip: str, port: int, client_ns: str) -> tuple[Profile, set[Source]]:
        sources: set[Source] = {("ip", ip)}
        services = self._services_by_ip.get(ip, set())
        if len(services) > 1:
            names = ", ".join(sorted("/".join(key) for key in services))
            raise Ambiguous(f"{ip} is the address of several Services: {names}")
        if services:
            namespace, name = next(iter(services))
            profile, more = self._profile_of_service(ServiceAuthority(namespace, name, port), client_ns)
            return profile, sources | more
        pod, pod_port = self._pod_at(ip, port)
        if pod is None:
            external = self._external_at(ip)
            if external is None:
                return EndpointProfile(Endpoint(ip, port)), sources
            sources |= {("servers", external.namespace), ("namespace", external.namespace)}
            return EndpointProfile(self._external_endpoint(external, port, ip), external.namespace), sources
        sources |= {("servers", pod.namespace), ("namespace", pod.namespace), ("node", pod.node)}
        own = ip if ip in pod.ips else pod.ips[0]
        return self._profile_of_pod(pod, own, pod_port), sources

    def _profile_of_pod(self, pod: Pod, ip: str, port: int) -> EndpointProfile:
        return EndpointProfile(self._pod_endpoint(pod, port, ip=ip, zone=self.zone(pod.node)), pod.namespace)

    def _pod_at(self, ip: str, port: int) -> tuple[Pod | None, int]:
        found = [self._pods[key] for key in sorted(self._pods_by_ip.get(ip, ()))]
        if found:
            # An address may have been handed on while the pod that had it is still on its way out.
            return max(found, key=lambda pod: (pod.serves, pod.ready)), port
        for key in sorted(self._pods_by_host_port.get((ip, port), ())):
            pod = self._pods[key]
            if pod.ips:
                return pod, next(p.port for p in pod.ports if port in (p.host_port, p.port))
        return None, port

    def _external_at(self, ip: str) -> ExternalWorkload | None:
        """Of several with one address, the oldest."""
        found = [self._externals[namespace][name] for namespace, name in self._externals_by_ip.get(ip, ())]
        return min(found, key=lambda workload: (workload.created, workload.key), default=None)

    def _profile_of_service(self, target: ServiceAuthority, client_ns: str) -> tuple[Profile, set[Source]]:
        key = target.namespace, target.service
        fqn = f"{target.service}.{target.namespace}.svc.{self._settings.cluster_domain}"
        candidates = dict.fromkeys(n for n in (client_ns, target.namespace) if n)
        sources: set[Source] = {("service", *key), ("split", *key), ("namespace", key[0])}
        sources |= {("profile", namespace, fqn) for namespace in candidates}
        service = self._services.get(key)
        if service is not None and service.port(target.port) is None and service.cluster_ips:
            return UndeclaredPort(), sources
        annotations = service.annotations if service else {}
        found = (self._profiles.get((namespace, fqn)) for namespace in candidates)
        profile = next((p for p in found if p is not None), None)
        overrides = profile.overrides if profile and profile.overrides else self._split(key, target.port)
        logical = LogicalProfile(
            *key,
            target.port,
            opaque=target.port in self._annotated(annotations, key[0], _service_port_names(service)),
            profile=profile,
            overrides=overrides,
        )
        return logical, sources

    def _split(self, service: Key, port: int) -> tuple[Override, ...]:
        """The oldest TrafficSplit of a Service, as overrides."""
        splits = sorted(self._splits.get(service, {}).values(), key=lambda s: (s.created, s.name))
        if not splits:
            return ()
        domain = f"{service[0]}.svc.{self._settings.cluster_domain}"
        return tuple(Override(f"{name}.{domain}:{port}", weight) for name, weight in splits[0].backends)

    def _profile_of_hostname(self, target: ServiceAuthority) -> tuple[Profile, set[Source]]:
        table, sources = self.table(target)
        for candidate in table.candidates:
            return EndpointProfile(candidate.endpoint, target.namespace), sources
        return UndeclaredPort(), sources


def _add(index: dict, key: Hashable, value: Hashable) -> None:
    index.setdefault(key, set()).add(value)


def _discard(index: dict, key: Hashable, value: Hashable) -> None:
    found = index.get(key)
    if found is not None:
        found.discard(value)
        if not found:
            del index[key]


def _own_ips(pod: Pod) -> Iterable[str]:
    """Addresses that are the pod's alone and not given back yet."""
    return () if pod.host_network or pod.finished else pod.ips


def _host_ports(pod: Pod) -> Iterator[Address]:
    if pod.finished or not pod.host_ip:
        return
    for port in pod.ports:
        if port.protocol == "TCP" and (port.host_port or pod.host_network):
            yield pod.host_ip, port.host_port or port.port


def _takes_traffic(pod: Pod, endpoint: SliceEndpoint, service: Service) -> bool:
    if service.publish_not_ready:
        return pod.serves
    return endpoint.ready and not endpoint.terminating and pod.serves and pod.ready


def _target_port(target: int | str, workload: ExternalWorkload) -> int | None:
    return target if isinstance(target, int) else workload.port_names().get(target)


def _skipped(pod: Pod) -> PortSet:
    return parse_port_set_leniently(pod.annotations.get(SKIP_INBOUND_PORTS, ""), pod.port_names())[0]


def _labels(pod: Pod, zone: str) -> dict[str, str]:
    labels = {"pod": pod.name, "serviceaccount": pod.service_account}
    if pod.owner_kind and pod.owner_kind != "pod":
        labels[pod.owner_kind] = pod.owner_name
    if pod.control_plane_ns:
        labels["control_plane_ns"] = pod.control_plane_ns
    if POD_TEMPLATE_HASH in pod.labels:
        labels["pod_template_hash"] = pod.labels[POD_TEMPLATE_HASH]
    if zone:
        labels["zone"] = zone
    return labels


def _service_port_names(service: Service | None) -> dict[str, int]:
    return {port.name: port.port for port in service.ports if port.name} if service else {}
