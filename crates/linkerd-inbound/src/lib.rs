//! The path of a request from the network to the application.
//!
//! A connection is accepted for its original destination. Its port's policy decides how its protocol is found
//! ([`accept`]), HTTP then goes through a [`session`](crate::session) that authorises each request, everything else
//! is [forwarded](crate::forward) as bytes. Each port of the application has one [`Port`](crate::port) with the
//! connections to it.

mod accept;
mod access_log;
mod app;
mod forward;
mod labels;
mod metrics;
mod port;
mod profiles;
mod rate_limit;
mod session;

pub use self::access_log::{AccessLog, AccessLogFormat};

use self::{metrics::Metrics, port::Ports, profiles::Profiles};
use linkerd_http::{h1, h2};
use linkerd_metrics::Registry;
use linkerd_policy::{Profile, ServerPolicy, profile::LookupTarget};
use linkerd_stack::drain;
use linkerd_tls::Credentials;
use linkerd_transport::{Accepted, ConnectParams};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};
use tokio::sync::watch;

/// What the environment says about the inbound proxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// The port that inbound traffic is redirected to; connections made to it directly carry a transport header.
    pub listen_port: u16,
    /// The pod's own addresses; others are refused. Empty: any.
    pub ips: HashSet<IpAddr>,
    /// Ports that the pod declares. Others are kept track of only while something listens there.
    pub ports: BTreeSet<u16>,
    pub detect_timeout: Duration,
    pub connect: ConnectParams,
    pub pool: h1::PoolParams,
    pub http1_server: h1::ServerParams,
    pub http2_server: h2::ServerParams,
    pub http2_client: h2::ClientParams,
    /// How many requests may be under way before further ones are refused.
    pub max_in_flight: usize,
    /// How long an unused port's policy and connections are kept.
    pub discovery_idle_timeout: Duration,
    /// Whether requests are counted by the hosts that clients name.
    pub authority_labels: bool,
    /// How long a request waits for the profile of its destination.
    pub profile_timeout: Duration,
    /// Names whose profiles are looked up end in one of these, without leading dot; `""` means every name.
    pub profile_suffixes: Vec<String>,
}

/// Where the inbound proxy learns what it has to do.
pub trait Discover: Send + Sync + 'static {
    fn inbound_policy(&self, port: u16) -> watch::Receiver<Arc<ServerPolicy>>;

    /// What [`Discover::inbound_policy`] begins with.
    fn default_policy(&self, port: u16) -> Arc<ServerPolicy>;

    /// All policies that are watched now.
    fn watched_policies(&self) -> Vec<WatchedPolicy>;

    fn profile(&self, target: LookupTarget) -> watch::Receiver<Option<Arc<Profile>>>;
}

/// The policy of a port as the control plane told it last.
#[derive(Clone, Debug)]
pub struct WatchedPolicy {
    pub port: u16,
    pub policy: Arc<ServerPolicy>,
    /// How long ago that was; absent: it has told nothing, and the default policy holds.
    pub heard: Option<Duration>,
}

/// What the inbound proxy knows of a port, for people to look at.
#[derive(Clone, Debug)]
pub struct PortView {
    pub watched: WatchedPolicy,
    /// Of clients, open now.
    pub connections: usize,
    /// Since the last one came; absent: none came lately.
    pub used: Option<Duration>,
}

/// What the inbound proxy shares with the rest of the process.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "a trait object has none")]
pub struct Deps {
    pub discover: Arc<dyn Discover>,
    pub credentials: Credentials,
    pub metrics: Registry,
    pub tap: linkerd_tap::Registry,
    /// Absent: no request is traced.
    pub tracer: Option<linkerd_trace::Tracer>,
    pub access_log: Option<AccessLog>,
}

/// The inbound proxy.
pub struct Inbound {
    config: Config,
    discover: Arc<dyn Discover>,
    credentials: Credentials,
    metrics: Metrics,
    tap: linkerd_tap::Registry,
    tracer: Option<linkerd_trace::Tracer>,
    access_log: Option<AccessLog>,
    ports: Ports,
    profiles: Profiles,
    in_flight: Arc<AtomicUsize>,
}

impl Inbound {
    #[must_use]
    pub fn new(config: Config, deps: Deps) -> Arc<Self> {
        Arc::new(Self {
            ports: Ports::new(config.discovery_idle_timeout),
            profiles: Profiles::new(&config, deps.discover.clone()),
            metrics: Metrics::new(&deps.metrics, config.authority_labels),
            discover: deps.discover,
            credentials: deps.credentials,
            tap: deps.tap,
            tracer: deps.tracer,
            access_log: deps.access_log,
            in_flight: Arc::default(),
            config,
        })
    }

    /// Serves one accepted connection to its end.
    pub async fn serve(self: Arc<Self>, accepted: Accepted, drain: drain::Watch) {
        accept::serve(&self, accepted, drain).await;
    }

    /// Every port whose policy is watched, in order.
    #[must_use]
    pub fn inspect(&self) -> Vec<PortView> {
        let mut views: BTreeMap<u16, PortView> = self
            .discover
            .watched_policies()
            .into_iter()
            .map(|watched| (watched.port, PortView::unused(watched)))
            .collect();
        for in_use in self.ports.in_use() {
            if let Some(view) = views.get_mut(&in_use.port) {
                view.connections += in_use.connections;
                view.used = view.used.into_iter().chain([in_use.used]).min();
            }
        }
        views.into_values().collect()
    }

    /// Whether requests are followed by more than metrics and taps.
    const fn follows(&self) -> bool {
        self.tracer.is_some() || self.access_log.is_some()
    }

    fn is_own_ip(&self, dst: SocketAddr) -> bool {
        self.config.ips.is_empty() || self.config.ips.contains(&dst.ip())
    }
}

impl PortView {
    fn unused(watched: WatchedPolicy) -> Self {
        Self {
            watched,
            connections: 0,
            used: None,
        }
    }
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
