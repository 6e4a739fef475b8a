//! The families that the outbound proxy counts in, and its labels (Linkerd's names).

mod route;

pub(crate) use self::route::{BackendSeries, RouteSeries};

use self::route::RouteFamilies;
use linkerd_metrics::{Counter, Family, HttpFamilies, Labels, Registry, TcpFamilies};
use linkerd_policy::Labels as LabelMap;
use linkerd_tls::ClientTls;
use std::net::SocketAddr;

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) http: HttpFamilies,
    pub(crate) route: HttpFamilies,
    pub(crate) route_actual: HttpFamilies,
    pub(crate) route_retryable: Family<Counter>,
    pub(crate) routes: RouteFamilies,
    pub(crate) tcp: TcpFamilies,
    pub(crate) http_errors: Family<Counter>,
    pub(crate) tcp_errors: Family<Counter>,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, hostnames: bool) -> Self {
        Self {
            http: HttpFamilies::endpoint(registry),
            route: HttpFamilies::route(registry),
            route_actual: HttpFamilies::route_actual(registry),
            route_retryable: registry
                .counter("route_retryable_total", "Total count of a route's retryable failures."),
            routes: RouteFamilies::new(registry, hostnames),
            tcp: TcpFamilies::new(registry),
            http_errors: registry.counter(
                "outbound_http_errors_total",
                "The total number of outbound HTTP requests that could not be processed due to a proxy error.",
            ),
            tcp_errors: registry.counter(
                "outbound_tcp_errors_total",
                "The total number of outbound TCP connections that could not be processed due to a proxy error.",
            ),
        }
    }
}

pub(crate) fn target(addr: SocketAddr) -> Labels {
    Labels::new()
        .with_display("target_addr", addr)
        .with_display("target_ip", addr.ip())
        .with_display("target_port", addr.port())
}

pub(crate) fn tls(tls: &ClientTls) -> Labels {
    match tls {
        ClientTls::Established { server_id } => Labels::new()
            .with("tls", "true")
            .with("server_id", server_id.as_str()),
        ClientTls::None(reason) => Labels::new()
            .with("tls", "no_identity")
            .with("no_tls_reason", reason.as_str()),
    }
}

/// `dst_<label>` for each label of an endpoint.
pub(crate) fn dst(endpoint: &LabelMap) -> Labels {
    let mut labels = Labels::new();
    for (key, value) in endpoint {
        labels.push(&format!("dst_{key}"), value);
    }
    labels
}
