//! Wire messages as tests want them.

use linkerd_proto::{
    destination::{self as dst, protocol_hint},
    http_route, inbound, meta, net, outbound,
};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

#[must_use]
pub fn tcp_address(addr: SocketAddr) -> net::TcpAddress {
    net::TcpAddress {
        ip: Some(ip_address(addr.ip())),
        port: addr.port().into(),
    }
}

#[must_use]
pub fn ip_address(ip: IpAddr) -> net::IpAddress {
    let ip = match ip {
        IpAddr::V4(v4) => net::ip_address::Ip::Ipv4(v4.to_bits()),
        IpAddr::V6(v6) => {
            let [first, last] = [0, 8].map(|at| {
                let octets = v6.octets();
                u64::from_be_bytes(octets[at..at + 8].try_into().unwrap())
            });
            net::ip_address::Ip::Ipv6(net::IPv6 { first, last })
        }
    };
    net::IpAddress { ip: Some(ip) }
}

/// Of an IPv4 address; tests of IPv6 make their own.
#[must_use]
pub fn socket_addr(addr: net::TcpAddress) -> SocketAddr {
    let Some(net::ip_address::Ip::Ipv4(bits)) = addr.ip.and_then(|ip| ip.ip) else {
        return SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    };
    SocketAddr::from((Ipv4Addr::from_bits(bits), u16::try_from(addr.port).unwrap()))
}

/// A plain endpoint without a proxy.
#[must_use]
pub fn endpoint(addr: SocketAddr) -> dst::WeightedAddr {
    dst::WeightedAddr {
        addr: Some(tcp_address(addr)),
        weight: 10_000,
        ..dst::WeightedAddr::default()
    }
}

/// An endpoint whose proxy has `identity`, takes HTTP/2 and listens on `inbound_port`.
#[must_use]
pub fn meshed_endpoint(addr: SocketAddr, identity: &str, inbound_port: u16) -> dst::WeightedAddr {
    let name = dst::tls_identity::DnsLikeIdentity {
        name: identity.into(),
    };
    dst::WeightedAddr {
        tls_identity: Some(dst::TlsIdentity {
            strategy: Some(dst::tls_identity::Strategy::DnsLikeIdentity(name)),
            server_name: None,
        }),
        protocol_hint: Some(dst::ProtocolHint {
            protocol: Some(protocol_hint::Protocol::H2(protocol_hint::H2 {})),
            opaque_transport: Some(protocol_hint::OpaqueTransport {
                inbound_port: inbound_port.into(),
            }),
        }),
        ..endpoint(addr)
    }
}

#[must_use]
pub fn add(addrs: Vec<dst::WeightedAddr>) -> dst::Update {
    let set = dst::WeightedAddrSet {
        addrs,
        metric_labels: HashMap::new(),
    };
    dst::Update {
        update: Some(dst::update::Update::Add(set)),
    }
}

#[must_use]
pub fn remove(addrs: &[SocketAddr]) -> dst::Update {
    let addrs = addrs.iter().copied().map(tcp_address).collect();
    dst::Update {
        update: Some(dst::update::Update::Remove(dst::AddrSet { addrs })),
    }
}

#[must_use]
pub fn no_endpoints(exists: bool) -> dst::Update {
    dst::Update {
        update: Some(dst::update::Update::NoEndpoints(dst::NoEndpoints { exists })),
    }
}

/// A profile that says only what the service is called.
#[must_use]
pub fn profile(name: &str) -> dst::DestinationProfile {
    dst::DestinationProfile {
        fully_qualified_name: name.into(),
        ..dst::DestinationProfile::default()
    }
}

#[must_use]
pub fn default_meta(name: &str) -> meta::Metadata {
    meta::Metadata {
        kind: Some(meta::metadata::Kind::Default(name.into())),
    }
}

#[must_use]
pub fn service_meta(namespace: &str, name: &str, port: u16) -> meta::Metadata {
    let resource = meta::Resource {
        group: "core".into(),
        kind: "Service".into(),
        name: name.into(),
        namespace: namespace.into(),
        section: String::new(),
        port: port.into(),
    };
    meta::Metadata {
        kind: Some(meta::metadata::Kind::Resource(resource)),
    }
}

/// Everybody, without TLS.
#[must_use]
pub fn all_unauthenticated() -> inbound::Authz {
    let permit = inbound::authn::Permit::Unauthenticated(inbound::authn::PermitUnauthenticated {});
    authz(permit, "all-unauthenticated")
}

/// Clients with these identities.
#[must_use]
pub fn identities(names: &[&str]) -> inbound::Authz {
    use inbound::authn::{Permit, PermitMeshTls, permit_mesh_tls};
    let identities = names
        .iter()
        .map(|name| inbound::Identity { name: (*name).into() })
        .collect();
    let clients = permit_mesh_tls::PermitClientIdentities {
        identities,
        suffixes: Vec::new(),
    };
    let clients = Some(permit_mesh_tls::Clients::Identities(clients));
    authz(Permit::MeshTls(PermitMeshTls { clients }), "identities")
}

fn authz(permit: inbound::authn::Permit, name: &str) -> inbound::Authz {
    let everywhere = net::IpNetwork {
        ip: Some(ip_address(Ipv4Addr::UNSPECIFIED.into())),
        prefix_len: 0,
    };
    inbound::Authz {
        networks: vec![inbound::Network {
            net: Some(everywhere),
            except: Vec::new(),
        }],
        authentication: Some(inbound::Authn { permit: Some(permit) }),
        labels: HashMap::new(),
        metadata: Some(default_meta(name)),
    }
}

/// A server with a default route.
#[must_use]
pub fn server(kind: inbound::proxy_protocol::Kind, authorizations: Vec<inbound::Authz>) -> inbound::Server {
    let labels = [
        ("group", "policy.linkerd.io"),
        ("kind", "server"),
        ("name", "test"),
    ];
    inbound::Server {
        protocol: Some(inbound::ProxyProtocol { kind: Some(kind) }),
        server_ips: Vec::new(),
        authorizations,
        labels: labels
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
    }
}

#[must_use]
pub fn inbound_detect() -> inbound::proxy_protocol::Kind {
    inbound::proxy_protocol::Kind::Detect(inbound::proxy_protocol::Detect {
        timeout: Some(prost_types::Duration {
            seconds: 10,
            nanos: 0,
        }),
        http_routes: vec![inbound_route()],
        http_local_rate_limit: None,
    })
}

#[must_use]
pub fn inbound_route() -> inbound::HttpRoute {
    inbound::HttpRoute {
        metadata: Some(default_meta("default")),
        hosts: Vec::new(),
        authorizations: Vec::new(),
        rules: vec![inbound::http_route::Rule {
            matches: vec![prefix("/")],
            ..inbound::http_route::Rule::default()
        }],
    }
}

#[must_use]
pub fn prefix(path: &str) -> http_route::HttpRouteMatch {
    let kind = Some(http_route::path_match::Kind::Prefix(path.into()));
    http_route::HttpRouteMatch {
        path: Some(http_route::PathMatch { kind }),
        ..http_route::HttpRouteMatch::default()
    }
}

/// A service whose requests are balanced over the endpoints of `authority`.
#[must_use]
pub fn balanced(authority: &str) -> outbound::OutboundPolicy {
    policy(&balancer(authority))
}

/// A service whose requests all go to one place.
#[must_use]
pub fn forwarded(endpoint: dst::WeightedAddr) -> outbound::OutboundPolicy {
    policy(&outbound::Backend {
        metadata: Some(default_meta("forward")),
        kind: Some(outbound::backend::Kind::Forward(endpoint)),
        queue: None,
    })
}

#[must_use]
pub fn balancer(authority: &str) -> outbound::Backend {
    use outbound::backend::{BalanceP2c, EndpointDiscovery, Kind, balance_p2c, endpoint_discovery};
    let dst = endpoint_discovery::DestinationGet {
        path: authority.into(),
    };
    let ewma = balance_p2c::PeakEwma {
        default_rtt: Some(Duration::from_millis(30).try_into().unwrap()),
        decay: Some(Duration::from_secs(10).try_into().unwrap()),
    };
    let balancer = BalanceP2c {
        discovery: Some(EndpointDiscovery {
            kind: Some(endpoint_discovery::Kind::Dst(dst)),
        }),
        load: Some(balance_p2c::Load::PeakEwma(ewma)),
    };
    let (name, port) = authority.rsplit_once(':').unwrap();
    let mut labels = name.split('.');
    let (service, namespace) = (labels.next().unwrap(), labels.next().unwrap_or("default"));
    outbound::Backend {
        metadata: Some(service_meta(namespace, service, port.parse().unwrap())),
        kind: Some(Kind::Balancer(balancer)),
        queue: None,
    }
}

/// With another breaker for its HTTP endpoints.
#[must_use]
pub fn breaking(
    mut policy: outbound::OutboundPolicy,
    accrual: outbound::FailureAccrual,
) -> outbound::OutboundPolicy {
    if let Some(outbound::proxy_protocol::Kind::Detect(detect)) =
        policy.protocol.as_mut().and_then(|p| p.kind.as_mut())
    {
        detect
            .http1
            .iter_mut()
            .for_each(|h| h.failure_accrual = Some(accrual));
        detect
            .http2
            .iter_mut()
            .for_each(|h| h.failure_accrual = Some(accrual));
    }
    policy
}

/// So many failures in a row leave an endpoint out, for a minute at least.
#[must_use]
pub fn consecutive_failures(max_failures: u32) -> outbound::FailureAccrual {
    use outbound::failure_accrual::{ConsecutiveFailures, Kind};
    let backoff = outbound::ExponentialBackoff {
        min_backoff: Some(Duration::from_secs(60).try_into().unwrap()),
        max_backoff: Some(Duration::from_secs(600).try_into().unwrap()),
        jitter_ratio: 0.0,
        respect_retry_after_hint: false,
    };
    let consecutive = ConsecutiveFailures {
        max_failures,
        backoff: Some(backoff),
    };
    outbound::FailureAccrual {
        ejection: None,
        kind: Some(Kind::ConsecutiveFailures(consecutive)),
    }
}

/// Changes the rules of a policy's HTTP routes.
#[must_use]
pub fn with_rules(
    mut policy: outbound::OutboundPolicy,
    change: impl Fn(&mut outbound::http_route::Rule),
) -> outbound::OutboundPolicy {
    if let Some(outbound::proxy_protocol::Kind::Detect(detect)) =
        policy.protocol.as_mut().and_then(|p| p.kind.as_mut())
    {
        let http1 = detect.http1.iter_mut().flat_map(|http| &mut http.routes);
        let http2 = detect.http2.iter_mut().flat_map(|http| &mut http.routes);
        http1
            .chain(http2)
            .flat_map(|route| &mut route.rules)
            .for_each(change);
    }
    policy
}

fn policy(backend: &outbound::Backend) -> outbound::OutboundPolicy {
    let http_routes = || vec![outbound_route(backend.clone())];
    let detect = outbound::proxy_protocol::Detect {
        timeout: None,
        opaque: Some(outbound::proxy_protocol::Opaque {
            routes: vec![opaque_route(backend.clone())],
        }),
        http1: Some(outbound::proxy_protocol::Http1 {
            routes: http_routes(),
            failure_accrual: None,
        }),
        http2: Some(outbound::proxy_protocol::Http2 {
            routes: http_routes(),
            failure_accrual: None,
        }),
    };
    outbound::OutboundPolicy {
        metadata: backend.metadata.clone(),
        protocol: Some(outbound::ProxyProtocol {
            kind: Some(outbound::proxy_protocol::Kind::Detect(detect)),
        }),
    }
}

/// One rule for all requests.
#[must_use]
pub fn outbound_route(backend: outbound::Backend) -> outbound::HttpRoute {
    use outbound::http_route::{Distribution, RouteBackend, Rule, distribution};
    let backend = RouteBackend {
        backend: Some(backend),
        ..RouteBackend::default()
    };
    let kind = distribution::Kind::FirstAvailable(distribution_first(backend));
    let rule = Rule {
        matches: vec![prefix("/")],
        backends: Some(Distribution { kind: Some(kind) }),
        ..Rule::default()
    };
    outbound::HttpRoute {
        metadata: Some(default_meta("http")),
        hosts: Vec::new(),
        rules: vec![rule],
    }
}

fn distribution_first(
    backend: outbound::http_route::RouteBackend,
) -> outbound::http_route::distribution::FirstAvailable {
    outbound::http_route::distribution::FirstAvailable {
        backends: vec![backend],
    }
}

#[must_use]
pub fn opaque_route(backend: outbound::Backend) -> outbound::OpaqueRoute {
    use outbound::opaque_route::{Distribution, RouteBackend, Rule, distribution};
    let backends = vec![RouteBackend {
        backend: Some(backend),
        filters: Vec::new(),
    }];
    let kind = distribution::Kind::FirstAvailable(distribution::FirstAvailable { backends });
    let rule = Rule {
        backends: Some(Distribution { kind: Some(kind) }),
        filters: Vec::new(),
    };
    outbound::OpaqueRoute {
        metadata: Some(default_meta("opaque")),
        rules: vec![rule],
    }
}
