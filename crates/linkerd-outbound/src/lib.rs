//! The path of a request from the application to the network.
//!
//! A connection is accepted for its original destination. What discovery says about that becomes a
//! [`plan`](crate::plan): routes whose backends are balancers over [`endpoint`](crate::endpoint)s. HTTP goes through a
//! [`session`](crate::session) that routes each request, everything else is [forwarded](crate::forward) as bytes.

mod accept;
mod backend;
mod budget;
mod destination;
mod dispatch;
mod endpoint;
mod forward;
pub mod inspect;
mod limits;
mod metrics;
mod overrides;
mod plan;
mod retry;
mod session;
#[cfg(test)]
mod testing;
mod verdict;

use self::{backend::Backends, destination::Destinations, metrics::Metrics};
use linkerd_control::PolicyAnswer;
use linkerd_http::{h1, h2};
use linkerd_metrics::Registry;
use linkerd_policy::{EndpointSet, Profile, profile::LookupTarget};
use linkerd_stack::drain;
use linkerd_tls::Credentials;
use linkerd_transport::{Accepted, ConnectParams};
use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};
use tokio::sync::watch;

/// What the environment says about the outbound proxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// The proxy's own inbound port: an endpoint there is this proxy itself.
    pub inbound_port: u16,
    /// The pod's own addresses; connections to them do not use TLS.
    pub inbound_ips: HashSet<IpAddr>,
    pub connect: ConnectParams,
    /// Between attempts to connect to an unreachable endpoint.
    pub reconnect: linkerd_policy::client::Backoff,
    pub pool: h1::PoolParams,
    pub http1_server: h1::ServerParams,
    pub http2_server: h2::ServerParams,
    pub http2_client: h2::ClientParams,
    /// How many requests may be under way before further ones are refused.
    pub max_in_flight: usize,
    /// How many requests may wait for an endpoint of one backend.
    pub queue: usize,
    /// How long no endpoint may be available before requests fail.
    pub failfast: Duration,
    /// How long an unused destination is kept.
    pub discovery_idle_timeout: Duration,
    /// Whether applications learn the proxy's reasons in headers.
    pub informational_headers: bool,
    /// Whether requests say themselves where they go, because the application chooses the endpoints of others.
    pub ingress: bool,
    /// Whether routes are counted by the hosts that applications name.
    pub hostname_labels: bool,
}

/// Where the outbound proxy learns about destinations. A receiver holds `None` until the first answer.
pub trait Discover: Send + Sync + 'static {
    fn profile(&self, target: LookupTarget) -> watch::Receiver<Option<Arc<Profile>>>;

    fn outbound_policy(&self, target: LookupTarget) -> watch::Receiver<Option<PolicyAnswer>>;

    fn endpoints(&self, authority: &Arc<str>) -> watch::Receiver<Option<Arc<EndpointSet>>>;
}

/// What the outbound proxy shares with the rest of the process.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "a trait object has none")]
pub struct Deps {
    pub discover: Arc<dyn Discover>,
    pub credentials: Credentials,
    pub metrics: Registry,
    pub tap: linkerd_tap::Registry,
    /// Absent: no request is traced.
    pub tracer: Option<linkerd_trace::Tracer>,
}

/// The outbound proxy.
pub struct Outbound {
    config: Config,
    discover: Arc<dyn Discover>,
    credentials: Credentials,
    metrics: Metrics,
    tap: linkerd_tap::Registry,
    tracer: Option<linkerd_trace::Tracer>,
    destinations: Destinations,
    backends: Backends,
    in_flight: Arc<AtomicUsize>,
}

impl Outbound {
    #[must_use]
    pub fn new(config: Config, deps: Deps) -> Arc<Self> {
        Arc::new(Self {
            destinations: Destinations::new(config.discovery_idle_timeout),
            backends: Backends::default(),
            metrics: Metrics::new(&deps.metrics, config.hostname_labels),
            discover: deps.discover,
            credentials: deps.credentials,
            tap: deps.tap,
            tracer: deps.tracer,
            in_flight: Arc::default(),
            config,
        })
    }

    /// Serves one accepted connection to its end.
    pub async fn serve(self: Arc<Self>, accepted: Accepted, drain: drain::Watch) {
        accept::serve(&self, accepted, drain).await;
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
