use super::*;
use linkerd_policy::{
    Authentication, Endpoint, Id,
    client::{self, Dispatch, Distribution, Queue, Trip},
    endpoint::ProtocolHint,
    filter::HttpFilter,
    profile::LookupTarget,
    server,
};
use linkerd_proto::{destination as dst, http_route, http_types, inbound, net, outbound};
use proptest::prelude::*;
use prost_types::Duration as ProtoDuration;
use std::collections::HashMap;
use std::net::SocketAddr;

const TIMEOUT: Duration = Duration::from_secs(10);

fn seconds(seconds: i64) -> Option<ProtoDuration> {
    Some(ProtoDuration { seconds, nanos: 0 })
}

fn named(name: &str) -> Option<meta::Metadata> {
    Some(meta::Metadata {
        kind: Some(meta::metadata::Kind::Default(name.into())),
    })
}

fn weighted(addr: &str) -> dst::WeightedAddr {
    dst::WeightedAddr {
        addr: Some(tcp_address(addr.parse().unwrap())),
        weight: 10_000,
        ..Default::default()
    }
}

fn one(addr: dst::WeightedAddr) -> Endpoint {
    let set = dst::WeightedAddrSet {
        addrs: vec![addr],
        metric_labels: HashMap::new(),
    };
    endpoints(set).pop().unwrap()
}

#[test]
fn addresses_survive_the_wire() {
    for addr in ["10.0.0.1:80", "[fd00::1:2]:443"] {
        let addr: SocketAddr = addr.parse().unwrap();
        assert_eq!(socket_addr(tcp_address(addr)), Ok(addr));
    }
    let v4 = tcp_address("10.0.0.1:80".parse().unwrap());
    assert_eq!(v4.ip.unwrap().ip, Some(net::ip_address::Ip::Ipv4(0x0A00_0001)));
    assert!(socket_addr(net::TcpAddress { port: 70_000, ..v4 }).is_err());
}

#[test]
fn labels_of_an_endpoint_override_those_of_its_set() {
    let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let addr = dst::WeightedAddr {
        metric_labels: labels(&[("pod", "a"), ("zone", "x")]),
        ..weighted("10.0.0.1:80")
    };
    let set = dst::WeightedAddrSet {
        addrs: vec![addr],
        metric_labels: labels(&[("zone", "y"), ("namespace", "n")]),
    };
    let endpoint = endpoints(set).pop().unwrap();
    let expected = [("namespace", "n"), ("pod", "a"), ("zone", "x")];
    assert!(
        endpoint
            .labels
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .eq(expected)
    );
}

#[test]
fn identities_become_server_names() {
    use dst::tls_identity::{DnsLikeIdentity, Strategy, UriLikeIdentity};
    let tls = |strategy, name: Option<&str>| {
        let server_name = name.map(|name| DnsLikeIdentity { name: name.into() });
        let tls_identity = Some(dst::TlsIdentity {
            strategy: Some(strategy),
            server_name,
        });
        one(dst::WeightedAddr {
            tls_identity,
            ..weighted("10.0.0.1:80")
        })
        .tls
        .map(|tls| tls.server_name)
    };
    let dns = || Strategy::DnsLikeIdentity(DnsLikeIdentity { name: "a.b".into() });
    let uri = || {
        Strategy::UriLikeIdentity(UriLikeIdentity {
            uri: "spiffe://td/a".into(),
        })
    };
    assert_eq!(tls(dns(), None).as_deref(), Some("a.b"));
    assert_eq!(tls(uri(), Some("c.d")).as_deref(), Some("c.d"));
    assert_eq!(tls(uri(), None), None);
    assert_eq!(
        tls(
            Strategy::DnsLikeIdentity(DnsLikeIdentity { name: "..".into() }),
            None
        ),
        None
    );
}

#[test]
fn only_valid_ports_take_transport_headers() {
    use dst::protocol_hint::{H2, OpaqueTransport, Protocol};
    let hint = |inbound_port| {
        let protocol_hint = Some(dst::ProtocolHint {
            protocol: Some(Protocol::H2(H2 {})),
            opaque_transport: Some(OpaqueTransport { inbound_port }),
        });
        one(dst::WeightedAddr {
            protocol_hint,
            ..weighted("10.0.0.1:80")
        })
    };
    assert_eq!(
        (hint(4143).opaque_port, hint(4143).hint),
        (Some(4143), ProtocolHint::Http2)
    );
    assert_eq!([0, 65_535, 70_000].map(|port| hint(port).opaque_port), [None; 3]);
}

#[test]
fn profiles_keep_what_can_be_read() {
    let route = |regex: &str| dst::Route {
        condition: Some(dst::RequestMatch {
            r#match: Some(dst::request_match::Match::Path(dst::PathMatch {
                regex: regex.into(),
            })),
        }),
        timeout: seconds(1),
        ..Default::default()
    };
    let target = |authority: &str, weight| dst::WeightedDst {
        authority: authority.into(),
        weight,
        backend_ref: None,
    };
    let message = dst::DestinationProfile {
        fully_qualified_name: "web.ns.svc.cluster.local".into(),
        routes: vec![route("/a"), route("("), dst::Route::default()],
        retry_budget: Some(dst::RetryBudget {
            retry_ratio: 0.2,
            min_retries_per_second: 10,
            ttl: seconds(90),
        }),
        dst_overrides: vec![target("a:80", 1), target("b:80", 0)],
        ..Default::default()
    };
    let profile = profile(
        message,
        port_of(&LookupTarget::Addr("10.0.0.1:8080".parse().unwrap())),
    );
    assert_eq!(profile.logical.as_deref(), Some("web.ns.svc.cluster.local:8080"));
    assert_eq!((profile.routes.len(), profile.targets.len()), (1, 1));
    assert_eq!(profile.routes[0].timeout, Some(Duration::from_secs(1)));
    assert_eq!(profile.retry_budget, None, "a TTL above a minute is no budget");
}

#[test]
fn conditions_are_not_followed_for_ever() {
    let mut condition = dst::RequestMatch { r#match: None };
    for _ in 0..200 {
        condition = dst::RequestMatch {
            r#match: Some(dst::request_match::Match::Not(Box::new(condition))),
        };
    }
    let route = dst::Route {
        condition: Some(condition),
        ..Default::default()
    };
    let message = dst::DestinationProfile {
        routes: vec![route],
        ..Default::default()
    };
    assert!(profile(message, 80).routes.is_empty());
}

fn authz(networks: Vec<inbound::Network>, permit: Option<inbound::authn::Permit>) -> inbound::Authz {
    inbound::Authz {
        networks,
        authentication: Some(inbound::Authn { permit }),
        metadata: named("authz"),
        ..Default::default()
    }
}

fn everywhere() -> Vec<inbound::Network> {
    let ip = tcp_address("0.0.0.0:0".parse().unwrap()).ip;
    vec![inbound::Network {
        net: Some(net::IpNetwork { ip, prefix_len: 0 }),
        except: vec![],
    }]
}

fn server_with(authorizations: Vec<inbound::Authz>) -> Result<linkerd_policy::ServerPolicy, Invalid> {
    let detect = inbound::proxy_protocol::Detect {
        timeout: seconds(3),
        ..Default::default()
    };
    server_policy(inbound::Server {
        protocol: Some(inbound::ProxyProtocol {
            kind: Some(inbound::proxy_protocol::Kind::Detect(detect)),
        }),
        authorizations,
        labels: [
            ("kind".to_string(), "default".to_string()),
            ("name".into(), "deny".into()),
        ]
        .into(),
        ..Default::default()
    })
}

#[test]
fn inbound_policies_say_who_and_how() {
    use inbound::authn::{Permit, PermitMeshTls, permit_mesh_tls};
    let clients = permit_mesh_tls::PermitClientIdentities {
        identities: vec![inbound::Identity { name: "a.b".into() }],
        suffixes: vec![inbound::IdentitySuffix {
            parts: vec!["ns".into()],
        }],
    };
    let clients = Some(permit_mesh_tls::Clients::Identities(clients));
    let policy = server_with(vec![authz(
        everywhere(),
        Some(Permit::MeshTls(PermitMeshTls { clients })),
    )])
    .unwrap();
    assert!(
        matches!(policy.protocol, server::Protocol::Detect { timeout, .. } if timeout == Duration::from_secs(3))
    );
    assert_eq!(policy.meta.to_string(), "default.deny");
    let Authentication::TlsAuthenticated { identities, suffixes } = &policy.authorizations[0].authentication
    else {
        panic!("{policy:?}")
    };
    assert_eq!(identities, &[Id::dns("a.b").unwrap()]);
    assert!(suffixes[0].matches(&Id::dns("x.ns").unwrap()));
}

#[test]
fn an_authorization_with_a_hole_makes_the_policy_invalid() {
    let unauthenticated = || {
        Some(inbound::authn::Permit::Unauthenticated(
            inbound::authn::PermitUnauthenticated {},
        ))
    };
    let nowhere = vec![inbound::Network {
        net: None,
        except: vec![],
    }];
    assert!(server_with(vec![authz(everywhere(), unauthenticated())]).is_ok());
    for broken in [
        authz(vec![], unauthenticated()),
        authz(nowhere, unauthenticated()),
        authz(everywhere(), None),
    ] {
        assert!(server_with(vec![broken]).is_err());
    }
}

fn forward() -> outbound::Backend {
    outbound::Backend {
        metadata: named("forward"),
        kind: Some(outbound::backend::Kind::Forward(weighted("10.0.0.1:80"))),
        queue: None,
    }
}

fn http_policy(
    rule: outbound::http_route::Rule,
    accrual: Option<outbound::FailureAccrual>,
) -> Result<client::Http, Invalid> {
    let routes = vec![outbound::HttpRoute {
        metadata: named("route"),
        hosts: vec![],
        rules: vec![rule],
    }];
    let http1 = outbound::proxy_protocol::Http1 {
        routes,
        failure_accrual: accrual,
    };
    let policy = client_policy(
        outbound::OutboundPolicy {
            metadata: named("parent"),
            protocol: Some(outbound::ProxyProtocol {
                kind: Some(outbound::proxy_protocol::Kind::Http1(http1)),
            }),
        },
        TIMEOUT,
    )?;
    match policy.protocol {
        client::Protocol::Http1(http) => Ok((*http).clone()),
        other => panic!("{other:?}"),
    }
}

fn rule() -> outbound::http_route::Rule {
    rule_to(forward())
}

fn rule_to(backend: outbound::Backend) -> outbound::http_route::Rule {
    use outbound::http_route::{Distribution, RouteBackend, distribution};
    let backends = vec![RouteBackend {
        backend: Some(backend),
        ..Default::default()
    }];
    let first = distribution::Kind::FirstAvailable(distribution::FirstAvailable { backends });
    outbound::http_route::Rule {
        backends: Some(Distribution { kind: Some(first) }),
        ..Default::default()
    }
}

#[test]
fn outbound_rules_carry_filters_retries_and_timeouts() {
    use outbound::http_route::{Filter, Retry, filter, retry};
    let redirect = http_route::RequestRedirect {
        host: "b".into(),
        ..Default::default()
    };
    let range = retry::conditions::StatusRange { start: 500, end: 599 };
    let message = outbound::http_route::Rule {
        filters: vec![
            Filter {
                kind: Some(filter::Kind::Redirect(redirect)),
            },
            Filter { kind: None },
        ],
        timeouts: Some(http_route::Timeouts {
            request: seconds(2),
            response: seconds(0),
            idle: None,
        }),
        retry: Some(Retry {
            max_retries: 3,
            max_request_bytes: 1024,
            conditions: Some(retry::Conditions {
                status_ranges: vec![range],
            }),
            ..Default::default()
        }),
        ..rule()
    };
    let http = http_policy(message, None).unwrap();
    let rule = &http.routes[0].rules[0].value;
    assert!(
        matches!(&rule.filters[0], HttpFilter::Redirect(r) if r.status == http::StatusCode::MOVED_PERMANENTLY)
    );
    assert_eq!(rule.filters[1], HttpFilter::Unknown);
    assert_eq!(
        (rule.timeouts.request, rule.timeouts.response),
        (Some(Duration::from_secs(2)), None)
    );
    let retry = rule.retry.as_ref().unwrap();
    assert!(retry.conditions.contains(http::StatusCode::BAD_GATEWAY) && retry.max_retries == 3);
    let Distribution::FirstAvailable(backends) = &rule.backends else {
        panic!("{rule:?}")
    };
    assert!(matches!(backends[0].backend.dispatch, Dispatch::Forward(_)));
}

#[test]
fn failure_accrual_needs_a_sound_backoff() {
    let accrual = |backoff| {
        let consecutive = outbound::failure_accrual::ConsecutiveFailures {
            max_failures: 7,
            backoff,
        };
        let kind = Some(outbound::failure_accrual::Kind::ConsecutiveFailures(consecutive));
        http_policy(rule(), Some(outbound::FailureAccrual { kind, ejection: None }))
            .map(|http| http.failure_accrual.trip)
    };
    let backoff = outbound::ExponentialBackoff {
        min_backoff: seconds(1),
        max_backoff: seconds(60),
        ..Default::default()
    };
    let swapped = outbound::ExponentialBackoff {
        min_backoff: seconds(60),
        max_backoff: seconds(1),
        ..Default::default()
    };
    assert!(matches!(
        accrual(Some(backoff)),
        Ok(Trip::ConsecutiveFailures { max_failures: 7, .. })
    ));
    assert!(accrual(None).is_err() && accrual(Some(swapped)).is_err());
}

#[test]
fn the_last_endpoint_is_kept_unless_the_policy_says_otherwise() {
    let min_ready = |ejection| {
        let accrual = outbound::FailureAccrual { kind: None, ejection };
        let http = http_policy(rule(), Some(accrual)).unwrap();
        http.failure_accrual.min_ready
    };
    let ejection = |min_ready_endpoints| Some(outbound::EjectionConfig { min_ready_endpoints });
    assert_eq!([None, ejection(0), ejection(3)].map(min_ready), [1, 0, 3]);
}

#[test]
fn a_backend_may_have_a_queue_of_its_own() {
    let of = |queue| {
        let http = http_policy(rule_to(outbound::Backend { queue, ..forward() }), None)?;
        let Distribution::FirstAvailable(backends) = &http.routes[0].rules[0].value.backends else {
            panic!("not what was sent")
        };
        Ok::<_, Invalid>(backends[0].backend.queue)
    };
    let queue = outbound::Queue {
        capacity: 100,
        failfast_timeout: seconds(3),
    };
    let read = Queue {
        capacity: 100,
        failfast: Duration::from_secs(3),
    };
    assert_eq!(of(Some(queue)), Ok(Some(read)));
    assert_eq!(of(None), Ok(None));
    assert!(of(Some(outbound::Queue::default())).is_err());
}

#[test]
fn what_detection_needs_must_be_there() {
    let kind = Some(outbound::proxy_protocol::Kind::Detect(
        outbound::proxy_protocol::Detect::default(),
    ));
    let message = outbound::OutboundPolicy {
        metadata: named("x"),
        protocol: Some(outbound::ProxyProtocol { kind }),
    };
    assert!(client_policy(message, TIMEOUT).is_err());
    assert!(client_policy(outbound::OutboundPolicy::default(), TIMEOUT).is_err());
}

#[test]
fn methods_may_be_unregistered() {
    let of = |kind| matching::method(http_types::HttpMethod { r#type: Some(kind) });
    use http_types::http_method::Type;
    assert_eq!(of(Type::Registered(4)), Ok(http::Method::PATCH));
    assert_eq!(of(Type::Unregistered("PURGE".into())).unwrap().as_str(), "PURGE");
    assert!(of(Type::Registered(99)).is_err() && of(Type::Unregistered("a b".into())).is_err());
}

proptest! {
    /// Whatever the wire can say is either a value or an error.
    #[test]
    fn no_message_breaks_the_conversion(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        use prost::Message as _;
        if let Ok(message) = inbound::Server::decode(&*bytes) {
            let _ = server_policy(message);
        }
        if let Ok(message) = outbound::OutboundPolicy::decode(&*bytes) {
            let _ = client_policy(message, TIMEOUT);
        }
        if let Ok(message) = dst::DestinationProfile::decode(&*bytes) {
            profile(message, 80);
        }
        if let Ok(message) = dst::WeightedAddrSet::decode(&*bytes) {
            endpoints(message);
        }
    }
}
