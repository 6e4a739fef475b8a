//! The families that the inbound proxy counts in.

use linkerd_metrics::{
    Bounded, ByProtocol, Counter, Family, HttpFamilies, Registry, StreamFamilies, TcpFamilies, inbound_routes,
};

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) http: HttpFamilies,
    pub(crate) route: HttpFamilies,
    pub(crate) streams: ByProtocol<StreamFamilies>,
    pub(crate) tcp: TcpFamilies,
    pub(crate) http_allow: Family<Counter>,
    pub(crate) http_deny: Family<Counter>,
    pub(crate) http_no_route: Family<Counter>,
    pub(crate) http_rate_limit: Family<Counter>,
    pub(crate) http_errors: Family<Counter>,
    pub(crate) tcp_allow: Family<Counter>,
    pub(crate) tcp_deny: Family<Counter>,
    pub(crate) tcp_terminate: Family<Counter>,
    pub(crate) tcp_errors: Family<Counter>,
    /// Identities that clients prove.
    pub(crate) client_ids: Bounded,
    /// Hosts that clients name; absent unless the label is wanted.
    pub(crate) authorities: Option<Bounded>,
    /// Server names that clients ask for: anybody can make them up.
    pub(crate) snis: Bounded,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, authorities: bool) -> Self {
        Self {
            http: HttpFamilies::endpoint(registry),
            route: HttpFamilies::route(registry),
            streams: inbound_routes(registry),
            tcp: TcpFamilies::new(registry),
            http_allow: registry.counter(
                "inbound_http_authz_allow_total",
                "The total number of inbound HTTP requests that were authorized.",
            ),
            http_deny: registry.counter(
                "inbound_http_authz_deny_total",
                "The total number of inbound HTTP requests that were denied.",
            ),
            http_no_route: registry.counter(
                "inbound_http_route_not_found_total",
                "The total number of inbound HTTP requests that matched no route.",
            ),
            http_rate_limit: registry.counter(
                "inbound_http_local_ratelimit_total",
                "The total number of inbound HTTP requests refused by a rate limit.",
            ),
            http_errors: registry.counter(
                "inbound_http_errors_total",
                "The total number of inbound HTTP requests that could not be processed due to a proxy error.",
            ),
            tcp_allow: registry.counter(
                "inbound_tcp_authz_allow_total",
                "The total number of inbound TCP connections that were authorized.",
            ),
            tcp_deny: registry.counter(
                "inbound_tcp_authz_deny_total",
                "The total number of inbound TCP connections that were denied.",
            ),
            tcp_terminate: registry.counter(
                "inbound_tcp_authz_terminate_total",
                "The total number of inbound TCP connections that were ended by a change of authorization.",
            ),
            tcp_errors: registry.counter(
                "inbound_tcp_errors_total",
                "The total number of inbound TCP connections that could not be processed due to a proxy error.",
            ),
            authorities: authorities.then(|| registry.bounded("authority", MAX_NAMES)),
            client_ids: registry.bounded("client_id", MAX_NAMES),
            snis: registry.bounded("sni", MAX_NAMES),
        }
    }
}

const MAX_NAMES: usize = 2_000;
