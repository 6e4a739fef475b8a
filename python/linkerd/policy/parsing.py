"""Policy resources from the API's objects. A ValueError says which field cannot be used, its value and what can be.

Used twice: by the watches, where such an object counts as absent, and by admission, where it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from linkerd.core.identities import TrustDomain
from linkerd.core.labels import parse_selector
from linkerd.core.networks import parse_network
from linkerd.core.patterns import check_pattern
from linkerd.core.workloads import linkerd_annotations
from linkerd.kit.durations import parse_duration
from linkerd.policy.values import (
    GATEWAY_GROUP,
    POLICY_GROUP,
    AnyTls,
    Authentication,
    AuthorizationPolicy,
    BackendRef,
    EgressNetwork,
    Filter,
    GrpcMatch,
    HeaderModifier,
    HttpMatch,
    Identities,
    MeshTLSAuthentication,
    NetworkAuthentication,
    ParentRef,
    PathMatch,
    RateLimit,
    RateLimitOverride,
    Redirect,
    Ref,
    Reported,
    Route,
    Rule,
    Server,
    ServerAuthorization,
    Text,
    Unauthenticated,
)

Object = Mapping[str, Any]
T = TypeVar("T")

PROTOCOLS = ("unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS")
DEFAULT_POLICIES = (
    "all-authenticated",
    "all-unauthenticated",
    "cluster-authenticated",
    "cluster-unauthenticated",
    "deny",
    "audit",
)


def parse_server(obj: Object) -> Server:
    metadata, spec = obj["metadata"], obj["spec"]
    protocol, access = spec.get("proxyProtocol") or "unknown", spec.get("accessPolicy") or "deny"
    _one_of("spec.proxyProtocol", protocol, PROTOCOLS)
    _one_of("spec.accessPolicy", access, DEFAULT_POLICIES)
    pods, external = spec.get("podSelector"), spec.get("externalWorkloadSelector")
    if (pods is None) == (external is None):
        raise ValueError("spec: exactly one of podSelector and externalWorkloadSelector must be given")
    return Server(
        *_name(metadata),
        created=_created(metadata),
        labels=metadata.get("labels") or {},
        selector=parse_selector(pods) if pods is not None else None,
        external_selector=parse_selector(external) if external is not None else None,
        port=_port("spec.port", spec["port"]),
        protocol=protocol,
        access=access,
    )


def parse_server_authorization(obj: Object, trust: TrustDomain) -> ServerAuthorization:
    metadata, spec = obj["metadata"], obj["spec"]
    server, client = spec["server"], spec["client"]
    if bool(server.get("name")) == (server.get("selector") is not None):
        raise ValueError("spec.server: exactly one of name and selector must be given")
    return ServerAuthorization(
        *_name(metadata),
        server_name=server.get("name") or "",
        server_selector=None if server.get("name") else parse_selector(server["selector"]),
        networks=_in("spec.client.networks", lambda: tuple(parse_network(n) for n in client.get("networks") or [])),
        authentication=_client(client, metadata["namespace"], trust),
    )


def parse_authorization_policy(obj: Object) -> AuthorizationPolicy:
    metadata, spec = obj["metadata"], obj["spec"]
    namespace = metadata["namespace"]
    target = _ref(spec["targetRef"], namespace)
    if target.kind == "Namespace" and target.name != namespace:
        raise ValueError(f"spec.targetRef.name: `{target.name}`: only the policy's own namespace `{namespace}` can be")
    allowed = [
        (POLICY_GROUP, "Server"),
        ("", "Namespace"),
        (POLICY_GROUP, "HTTPRoute"),
        (GATEWAY_GROUP, "HTTPRoute"),
        (GATEWAY_GROUP, "GRPCRoute"),
    ]
    _check_kind("spec.targetRef", target, allowed)
    authentications = tuple(_ref(r, namespace) for r in spec.get("requiredAuthenticationRefs") or [])
    _check_authentications(authentications)
    return AuthorizationPolicy(*_name(metadata), target, authentications)


def parse_mesh_tls_authentication(obj: Object, trust: TrustDomain) -> MeshTLSAuthentication:
    metadata, spec = obj["metadata"], obj["spec"]
    namespace = metadata["namespace"]
    if spec.get("identities"):
        return MeshTLSAuthentication(*_name(metadata), parse_identities("spec.identities", spec["identities"]))
    names: list[str] = []
    suffixes: list[tuple[str, ...]] = []
    for position, raw in enumerate(spec.get("identityRefs") or []):
        ref = _ref({"name": "", **raw}, namespace)
        if ref.kind == "ServiceAccount" and ref.name:
            names.append(trust.service_account(ref.namespace, ref.name))
        elif ref.kind == "Namespace":
            suffixes.append(tuple(trust.namespace_suffix(ref.name or namespace).split(".")))
        else:
            raise ValueError(f"spec.identityRefs[{position}].kind: `{ref.kind}`: ServiceAccount or Namespace can be")
    if not names and not suffixes:
        raise ValueError("spec: one of identities and identityRefs must be given")
    return MeshTLSAuthentication(*_name(metadata), Identities(tuple(names), tuple(suffixes)))


def parse_network_authentication(obj: Object) -> NetworkAuthentication:
    networks = _in("spec.networks", lambda: tuple(parse_network(n) for n in obj["spec"].get("networks") or []))
    if not networks:
        raise ValueError("spec.networks: at least one network must be given")
    return NetworkAuthentication(*_name(obj["metadata"]), networks)


def parse_rate_limit(obj: Object) -> RateLimit:
    metadata, spec = obj["metadata"], obj["spec"]
    namespace = metadata["namespace"]
    target = _ref(spec["targetRef"], namespace)
    _check_kind("spec.targetRef", target, [(POLICY_GROUP, "Server")])
    total, identity = _per_second("spec.total", spec.get("total")), _per_second("spec.identity", spec.get("identity"))
    overrides = tuple(_override(i, o, namespace) for i, o in enumerate(spec.get("overrides") or []))
    if total is None and identity is None and not overrides:
        raise ValueError("spec: one of total, identity and overrides must be given")
    for field, value in [
        ("spec.identity", identity),
        *((f"spec.overrides[{i}]", o.per_second) for i, o in enumerate(overrides)),
    ]:
        if total is not None and value is not None and value > total:
            raise ValueError(f"{field}.requestsPerSecond: `{value}` must not be larger than the total, {total}")
    return RateLimit(*_name(metadata), _created(metadata), target, total, identity, overrides, _reported(obj))


def parse_egress_network(obj: Object) -> EgressNetwork:
    metadata, spec = obj["metadata"], obj["spec"]
    _one_of("spec.trafficPolicy", spec["trafficPolicy"], ("Allow", "Deny"))
    return EgressNetwork(
        *_name(metadata),
        created=_created(metadata),
        networks=_in("spec.networks", lambda: tuple(parse_network(n) for n in spec.get("networks") or [])),
        allow=spec["trafficPolicy"] == "Allow",
        annotations=linkerd_annotations(metadata),
        reported=_reported(obj),
    )


def parse_route(obj: Object) -> Route:
    """HTTPRoute of either group, GRPCRoute, TLSRoute, TCPRoute. What cannot be served is kept with its problem."""
    metadata, spec = obj["metadata"], obj.get("spec") or {}
    group, _, version = obj["apiVersion"].partition("/")
    kind = obj["kind"]
    namespace = metadata["namespace"]
    try:
        rules = _rules(spec.get("rules") or [], kind, namespace)
        _check_hostnames(spec.get("hostnames") or [])
        problem = ""
    except ValueError as error:
        rules, problem = (), str(error)
    return Route(
        group,
        kind,
        *_name(metadata),
        created=_created(metadata),
        parents=tuple(_parent(p, group, namespace) for p in spec.get("parentRefs") or []),
        hostnames=tuple(h.lower() for h in spec.get("hostnames") or []),
        rules=rules,
        annotations=linkerd_annotations(metadata),
        problem=problem,
        version=version,
        reported=_reported(obj),
    )


def parse_identities(field: str, identities: list[str]) -> Identities:
    """`*`, `*.suffix`, exact names, SPIFFE ids. Raises ValueError."""
    names: list[str] = []
    suffixes: list[tuple[str, ...]] = []
    for position, text in enumerate(identities):
        if text == "*":
            suffixes.append(())
        elif text.startswith("*."):
            suffixes.append(tuple(text[2:].split(".")))
        elif "*" in text or not text:
            raise ValueError(f"{field}[{position}]: `{text}`: a name, `*.suffix` or `*` can be")
        else:
            names.append(text)
    return Identities(tuple(names), tuple(suffixes))


def _client(client: Object, namespace: str, trust: TrustDomain) -> Authentication:
    tls = client.get("meshTLS")
    if bool(client.get("unauthenticated")) == (tls is not None):
        raise ValueError("spec.client: exactly one of unauthenticated and meshTLS must be given")
    if tls is None:
        return Unauthenticated()
    if tls.get("unauthenticatedTLS"):
        if tls.get("identities") or tls.get("serviceAccounts"):
            raise ValueError("spec.client.meshTLS: unauthenticatedTLS excludes identities and serviceAccounts")
        return AnyTls()
    named = parse_identities("spec.client.meshTLS.identities", tls.get("identities") or [])
    accounts = tuple(
        trust.service_account(a.get("namespace") or namespace, a["name"]) for a in tls.get("serviceAccounts") or []
    )
    if not named.names and not named.suffixes and not accounts:
        raise ValueError("spec.client.meshTLS: one of unauthenticatedTLS, identities, serviceAccounts must be given")
    return Identities(named.names + accounts, named.suffixes)


def _check_authentications(refs: tuple[Ref, ...]) -> None:
    allowed = [(POLICY_GROUP, "MeshTLSAuthentication"), (POLICY_GROUP, "NetworkAuthentication"), ("", "ServiceAccount")]
    for position, ref in enumerate(refs):
        _check_kind(f"spec.requiredAuthenticationRefs[{position}]", ref, allowed)
    if sum(ref.kind == "NetworkAuthentication" for ref in refs) > 1:
        raise ValueError("spec.requiredAuthenticationRefs: at most one NetworkAuthentication can be")
    if sum(ref.kind != "NetworkAuthentication" for ref in refs) > 1:
        raise ValueError("spec.requiredAuthenticationRefs: at most one MeshTLSAuthentication or ServiceAccount can be")


def _check_kind(field: str, ref: Ref, allowed: list[tuple[str, str]]) -> None:
    if (ref.group, ref.kind) not in allowed:
        names = ", ".join(f"{kind}.{group}" if group else kind for group, kind in allowed)
        shown = f"{ref.kind}.{ref.group}" if ref.group else ref.kind
        raise ValueError(f"{field}: `{shown}`: one of {names} can be")


def _override(position: int, override: Object, namespace: str) -> RateLimitOverride:
    field = f"spec.overrides[{position}]"
    clients = tuple(_ref(c, namespace) for c in override.get("clientRefs") or [])
    for number, client in enumerate(clients):
        _check_kind(f"{field}.clientRefs[{number}]", client, [("", "ServiceAccount")])
    per_second = _per_second(field, override)
    if per_second is None:
        raise ValueError(f"{field}.requestsPerSecond must be given")
    return RateLimitOverride(per_second, clients)


def _per_second(field: str, limit: Object | None) -> int | None:
    if limit is None:
        return None
    value = limit["requestsPerSecond"]
    if not 0 < value < 2**32:
        raise ValueError(f"{field}.requestsPerSecond: `{value}`: 1 to {2**32 - 1} can be")
    return int(value)


# Routes

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_REDIRECTS = (301, 302, 303, 307, 308)
_LARGEST_WEIGHT = 1_000_000
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_HOST = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.IGNORECASE)
_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){3}")


def _rules(rules: list[Object], kind: str, namespace: str) -> tuple[Rule, ...]:
    if kind in ("TLSRoute", "TCPRoute") and len(rules) > 1:
        raise ValueError(f"spec.rules: a {kind} can have one rule, not {len(rules)}: nothing tells connections apart")
    return tuple(_rule(f"spec.rules[{i}]", rule, kind, namespace) for i, rule in enumerate(rules))


def _check_hostnames(hostnames: list[str]) -> None:
    for position, name in enumerate(hostnames):
        if not _HOST.fullmatch(name) or _ADDRESS.fullmatch(name):
            raise ValueError(f"spec.hostnames[{position}]: `{name}`: a DNS name or `*.` and a DNS name can be")


def _rule(field: str, rule: Object, kind: str, namespace: str) -> Rule:
    match = {"HTTPRoute": _http_match, "GRPCRoute": _grpc_match}.get(kind)
    matches = tuple(match(f"{field}.matches[{i}]", m) for i, m in enumerate(rule.get("matches") or [])) if match else ()
    return Rule(
        matches=matches,
        filters=_filters(f"{field}.filters", rule.get("filters"), kind),
        backends=tuple(
            _backend(f"{field}.backendRefs[{i}]", b, kind, namespace)
            for i, b in enumerate(rule.get("backendRefs") or [])
        ),
        timeout=_timeout(field, rule.get("timeouts") or {}),
    )


def _timeout(field: str, timeouts: Object) -> float | None:
    seconds = {name: _timeout_seconds(f"{field}.timeouts.{name}", timeouts.get(name)) for name in _TIMEOUTS}
    whole, one = (seconds[name] for name in _TIMEOUTS)
    if whole and one and one > whole:
        shown = f"`{timeouts['backendRequest']}` must not be longer than request, `{timeouts['request']}`"
        raise ValueError(f"{field}.timeouts.backendRequest: {shown}")
    return whole or None


_TIMEOUTS = ("request", "backendRequest")


def _timeout_seconds(field: str, value: str | None) -> float:
    if value is None:
        return 0.0
    seconds = _in(field, lambda: parse_duration(value))
    if seconds < 0:
        raise ValueError(f"{field}: `{value}` is negative; 0s and above can be")
    return seconds


def _http_match(field: str, match: Object) -> HttpMatch:
    path, method = match.get("path"), match.get("method") or ""
    if method:
        _one_of(f"{field}.method", method, METHODS)
    return HttpMatch(
        path=_path(f"{field}.path", path) if path is not None else None,
        headers=_texts(f"{field}.headers", match.get("headers"), lower=True),
        params=_texts(f"{field}.queryParams", match.get("queryParams")),
        method=method,
    )


def _path(field: str, path: Object) -> PathMatch:
    kind, value = path.get("type") or "PathPrefix", path.get("value") or "/"
    _one_of(f"{field}.type", kind, ("Exact", "PathPrefix", "RegularExpression"))
    if kind == "RegularExpression":
        check_pattern(f"{field}.value", value)
    elif not value.startswith("/"):
        raise ValueError(f"{field}.value: `{value}`: it must begin with `/`")
    return PathMatch(kind, value)


def _grpc_match(field: str, match: Object) -> GrpcMatch:
    method = match.get("method") or {}
    if (method.get("type") or "Exact") != "Exact":
        raise ValueError(f"{field}.method.type: `{method['type']}`: only Exact can be")
    headers = _texts(f"{field}.headers", match.get("headers"), lower=True)
    return GrpcMatch(method.get("service") or "", method.get("method") or "", headers)


def _texts(field: str, entries: list[Object] | None, *, lower: bool = False) -> tuple[tuple[str, Text], ...]:
    found = []
    for position, entry in enumerate(entries or []):
        _one_of(f"{field}[{position}].type", entry.get("type") or "Exact", ("Exact", "RegularExpression"))
        regex = entry.get("type") == "RegularExpression"
        if lower:
            _check_header(f"{field}[{position}].name", entry["name"])
        if regex:
            check_pattern(f"{field}[{position}].value", entry["value"])
        found.append((entry["name"].lower() if lower else entry["name"], Text(entry["value"], regex)))
    return tuple(found)


def _filters(field: str, filters: list[Object] | None, kind: str) -> tuple[Filter, ...]:
    return tuple(_filter(f"{field}[{position}]", entry, kind) for position, entry in enumerate(filters or []))


def _filter(field: str, entry: Object, kind: str) -> Filter:
    match entry["type"]:
        case "RequestHeaderModifier":
            name = f"{field}.requestHeaderModifier"
            return _header_modifier(name, entry.get("requestHeaderModifier") or {}, response=False)
        case "ResponseHeaderModifier" if kind == "HTTPRoute":
            name = f"{field}.responseHeaderModifier"
            return _header_modifier(name, entry.get("responseHeaderModifier") or {}, response=True)
        case "RequestRedirect" if kind == "HTTPRoute":
            return _redirect(f"{field}.requestRedirect", entry.get("requestRedirect") or {})
        case other:
            raise ValueError(f"{field}.type: `{other}` is not supported")


def _header_modifier(field: str, modifier: Object, *, response: bool) -> HeaderModifier:
    pairs = {name: tuple((h["name"], h["value"]) for h in modifier.get(name) or []) for name in ("add", "set")}
    removed = tuple(modifier.get("remove") or ())
    for action, names in (("add", _firsts(pairs["add"])), ("set", _firsts(pairs["set"])), ("remove", removed)):
        for position, name in enumerate(names):
            _check_header(f"{field}.{action}[{position}]", name)
    return HeaderModifier(response, pairs["add"], pairs["set"], removed)


def _firsts(pairs: tuple[tuple[str, str], ...]) -> list[str]:
    return [first for first, _ in pairs]


def _check_header(field: str, name: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{field}: `{name}` is not the name of a header: letters, digits and !#$%&'*+-.^_`|~ can be")


def _redirect(field: str, redirect: Object) -> Redirect:
    path, port = redirect.get("path") or {}, redirect.get("port")
    if redirect.get("scheme"):
        _one_of(f"{field}.scheme", redirect["scheme"], ("http", "https"))
    if redirect.get("statusCode") not in (None, *_REDIRECTS):
        shown = ", ".join(map(str, _REDIRECTS))
        raise ValueError(f"{field}.statusCode: `{redirect['statusCode']}`: one of {shown} can be")
    if port is not None:
        _check_port(f"{field}.port", port)
    return Redirect(
        scheme=redirect.get("scheme") or "",
        host=redirect.get("hostname") or "",
        port=redirect.get("port") or 0,
        status=redirect.get("statusCode") or 302,
        full_path=path.get("replaceFullPath") if path.get("type") == "ReplaceFullPath" else None,
        prefix=path.get("replacePrefixMatch") if path.get("type") == "ReplacePrefixMatch" else None,
    )


def _backend(field: str, backend: Object, kind: str, namespace: str) -> BackendRef:
    ref = _ref({"kind": "Service", **backend}, backend.get("namespace") or namespace)
    weight, port = backend.get("weight", 1), backend.get("port")
    if not 0 <= weight <= _LARGEST_WEIGHT:
        raise ValueError(f"{field}.weight: `{weight}`: 0 to {_LARGEST_WEIGHT} can be")
    if port is not None:
        _check_port(f"{field}.port", port)
    return BackendRef(ref, port, weight, _filters(f"{field}.filters", backend.get("filters"), kind))


def _parent(parent: Object, group: str, namespace: str) -> ParentRef:
    default = {"group": group, "kind": "Gateway"}
    # A group that is there but empty means the core group.
    ref = _ref({**default, **parent}, parent.get("namespace") or namespace)
    return ParentRef(ref, parent.get("port"), parent.get("sectionName") or "")


# Common parts


def _ref(raw: Object, namespace: str) -> Ref:
    group = raw.get("group") or ""
    return Ref("" if group == "core" else group, raw["kind"], raw.get("namespace") or namespace, raw["name"])


def _name(metadata: Object) -> tuple[str, str]:
    return metadata["namespace"], metadata["name"]


def _reported(obj: Object) -> Reported:
    return Reported(obj["metadata"].get("generation") or 0, obj.get("status") or {})


def _created(metadata: Object) -> str:
    return metadata.get("creationTimestamp") or ""


def _check_port(field: str, port: int) -> None:
    if not 0 < port < 65536:
        raise ValueError(f"{field}: `{port}`: 1 to 65535 can be")


def _port(field: str, port: int | str) -> int | str:
    if isinstance(port, int) and not 0 < port < 65536:
        raise ValueError(f"{field}: `{port}`: 1 to 65535 or the name of a container port can be")
    return port


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field}: `{value}`: one of {', '.join(allowed)} can be")


def _in(field: str, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None
