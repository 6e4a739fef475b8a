//! The environment, read once into values that cannot be wrong.

mod env;
mod parse;
mod secrets;
mod trace;

pub use self::env::ConfigError;
use self::env::Env;
use ipnet::IpNet;
use linkerd_control::{IdentityConfig, ServiceAddr, StreamLimits, TraceConfig};
use linkerd_http::h2;
use linkerd_inbound::AccessLogFormat;
use linkerd_policy::{DefaultPolicy, Id, client::Backoff};
use linkerd_tls::TrustAnchors;
use linkerd_transport::{ConnectParams, Keepalive, ListenParams, OrigDstSource};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// All of it. Fields are public, so that tests can make proxies which no environment describes.
#[derive(Clone, Debug)]
pub struct Config {
    pub admin: AdminConfig,
    pub inbound: ProxyConfig,
    pub outbound: ProxyConfig,
    /// Both addresses when IPv6 is on.
    pub outbound_listen: Vec<SocketAddr>,
    /// The pod's own addresses; empty: any.
    pub inbound_ips: BTreeSet<IpAddr>,
    /// How long an inbound request waits for its profile.
    pub inbound_profile_timeout: Duration,
    /// Requests say themselves where they go.
    pub ingress: bool,
    /// Applications do not learn the proxy's reasons in headers.
    pub hide_informational_headers: bool,
    pub tap: TapConfig,
    pub control: linkerd_control::Config,
    pub local_id: Id,
    pub server_name: Arc<str>,
    pub metrics_retain_idle: Duration,
    /// The `authority` label of inbound metrics; clients choose what it says.
    pub inbound_authority_labels: bool,
    /// The `hostname` label of outbound routes; the application chooses what it says.
    pub outbound_hostname_labels: bool,
    /// Of inbound HTTP requests, to standard error.
    pub access_log: Option<AccessLogFormat>,
    pub trace: Option<TraceConfig>,
    pub shutdown_grace: Duration,
    pub workers: usize,
    /// Ports whose policies are watched from the start.
    pub inbound_ports: BTreeSet<u16>,
    /// Variables of Linkerd's proxy that are set here and have no effect.
    pub without_effect: Vec<&'static str>,
}

#[derive(Clone, Debug)]
pub struct AdminConfig {
    pub listen: SocketAddr,
    pub shutdown_enabled: bool,
    /// Shown by `/env.json`.
    pub environment: Arc<BTreeMap<String, String>>,
}

#[derive(Clone, Debug)]
pub struct TapConfig {
    pub listen: SocketAddr,
    /// Who may tap; absent: nobody.
    pub client: Option<Id>,
}

/// What both directions have.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    pub listen: SocketAddr,
    pub accept: ListenParams,
    pub connect: ConnectParams,
    pub connect_backoff: Backoff,
    pub detect_timeout: Duration,
    /// How many requests may wait for an endpoint.
    pub queue: usize,
    pub failfast_timeout: Duration,
    pub max_in_flight: usize,
    pub pool_max_idle: usize,
    pub pool_idle_timeout: Duration,
    pub discovery_idle: Duration,
    pub http2_server: h2::ServerParams,
    pub http2_client: h2::ClientParams,
}

/// Everything that is wrong, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Config {
    /// # Errors
    /// Each variable that is missing or malformed.
    pub fn from_env(vars: BTreeMap<String, String>) -> Result<Self, ConfigErrors> {
        let env = Env::new(&vars);
        let parts = Parts::read(&env);
        let errors = env.into_errors();
        match parts {
            Some(parts) if errors.is_empty() => Ok(parts.into_config(vars)),
            _ => Err(ConfigErrors(errors)),
        }
    }
}

/// What has been read, before the environment is moved into the configuration.
struct Parts(Box<Config>);

impl Parts {
    fn into_config(self, vars: BTreeMap<String, String>) -> Config {
        let mut config = *self.0;
        config.admin.environment = Arc::new(secrets::redacted(vars));
        config
    }

    /// `None` only when a required variable is missing, which has then been noted.
    fn read(env: &Env<'_>) -> Option<Self> {
        let inbound = inbound(env);
        let outbound = outbound(env);
        let names = names(env);
        let control = control(env, &inbound, &outbound);
        if env.text("IDENTITY_DISABLED").is_some() {
            env.error(
                "IDENTITY_DISABLED",
                "is not supported: a proxy without identity cannot be run",
            );
        }
        let ingress = env.get("INGRESS_MODE", parse::boolean).unwrap_or(false);
        let config = Config {
            admin: AdminConfig {
                listen: env
                    .get("ADMIN_LISTEN_ADDR", parse::socket_addr)
                    .unwrap_or(DEFAULT_ADMIN),
                shutdown_enabled: env
                    .get("SHUTDOWN_ENDPOINT_ENABLED", parse::boolean)
                    .unwrap_or(false),
                environment: Arc::default(),
            },
            outbound_listen: outbound_listen(env),
            inbound_ips: env
                .get("INBOUND_IPS", parse::ips)
                .unwrap_or_default()
                .into_iter()
                .collect(),
            inbound_profile_timeout: env
                .get("DESTINATION_PROFILE_INITIAL_TIMEOUT", parse::duration)
                .unwrap_or(Duration::from_millis(500)),
            ingress,
            hide_informational_headers: env
                .get("OUTBOUND_DISABLE_INFORMATIONAL_HEADERS", parse::boolean)
                .unwrap_or(ingress),
            without_effect: without_effect(env),
            tap: TapConfig {
                listen: env
                    .get("CONTROL_LISTEN_ADDR", parse::socket_addr)
                    .unwrap_or(DEFAULT_TAP),
                client: env.get("TAP_SVC_NAME", parse::identity),
            },
            metrics_retain_idle: env
                .get("METRICS_RETAIN_IDLE", parse::duration)
                .unwrap_or(Duration::from_secs(600)),
            inbound_authority_labels: env.get("INBOUND_METRICS_AUTHORITY_LABELS", unsafe_only).is_some(),
            outbound_hostname_labels: env
                .get("OUTBOUND_METRICS_HOSTNAME_LABELS", parse::boolean)
                .unwrap_or(false),
            access_log: env.text("ACCESS_LOG").and_then(access_log),
            trace: trace::read(env),
            shutdown_grace: env
                .get("SHUTDOWN_GRACE_PERIOD", parse::duration)
                .unwrap_or(Duration::from_secs(120)),
            workers: workers(env),
            inbound_ports: env.get("INBOUND_PORTS", parse::ports).unwrap_or_default(),
            inbound,
            outbound,
            local_id: names.clone()?.0,
            server_name: names?.1,
            control: control?,
        };
        Some(Self(Box::new(config)))
    }
}

/// The own identity and the name by which peers ask for it; they differ only with SPIFFE identities.
fn names(env: &Env<'_>) -> Option<(Id, Arc<str>)> {
    if let Some(id) = env.get("IDENTITY_LOCAL_NAME", parse::identity) {
        let name = id.as_str().into();
        return Some((id, name));
    }
    if env.text("IDENTITY_SERVER_ID").is_none() {
        env.error("IDENTITY_LOCAL_NAME", "has to be set");
        return None;
    }
    let id = env.get("IDENTITY_SERVER_ID", parse::identity)?;
    let name = env.required("IDENTITY_SERVER_NAME", parse::identity)?;
    match (&id, &name) {
        (_, Id::Uri(_)) => env.error("IDENTITY_SERVER_NAME", "has to be a DNS name"),
        (Id::Dns(_), name) if *name != id => {
            env.error("IDENTITY_SERVER_NAME", "has to be IDENTITY_SERVER_ID");
        }
        _ => {}
    }
    Some((id, name.as_str().into()))
}

fn control(env: &Env<'_>, inbound: &ProxyConfig, outbound: &ProxyConfig) -> Option<linkerd_control::Config> {
    let identity = identity(env);
    let destination = service(env, "DESTINATION");
    let policy = service(env, "POLICY");
    let workload = env.required("POLICY_WORKLOAD", |text| Ok(text.to_string()));
    let cluster_networks = env
        .get("POLICY_CLUSTER_NETWORKS", parse::networks)
        .unwrap_or_else(private_networks);
    Some(linkerd_control::Config {
        limits: stream_limits(env),
        destination_context: env.text("DESTINATION_CONTEXT").unwrap_or_default().to_string(),
        profile_networks: env
            .get("DESTINATION_PROFILE_NETWORKS", parse::networks)
            .unwrap_or_default(),
        profile_suffixes: env
            .get("DESTINATION_PROFILE_SUFFIXES", parse::suffixes)
            .unwrap_or_else(|| vec![DEFAULT_SUFFIX.into()]),
        outbound_idle: outbound.discovery_idle,
        inbound_default: default_policy(env),
        inbound_identity_ports: env
            .get("INBOUND_PORTS_REQUIRE_IDENTITY", parse::ports)
            .unwrap_or_default(),
        inbound_opaque_ports: env
            .get("INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", parse::ports)
            .unwrap_or_default(),
        inbound_detect_timeout: inbound.detect_timeout,
        outbound_detect_timeout: outbound.detect_timeout,
        cluster_networks,
        connect_timeout: outbound.connect.timeout,
        // The outbound maximum of a minute would leave a proxy without news for that long after an outage.
        backoff: inbound.connect_backoff,
        identity: identity?,
        destination: destination?,
        policy: policy?,
        policy_workload: workload?,
    })
}

fn identity(env: &Env<'_>) -> Option<IdentityConfig> {
    let service = service(env, "IDENTITY");
    let anchors = env.required("IDENTITY_TRUST_ANCHORS", |pem| {
        TrustAnchors::from_pem(pem).map_err(|error| error.to_string())
    });
    let directory = env.required("IDENTITY_DIR", |path| Ok(path.into()));
    let token_file = env.required("IDENTITY_TOKEN_FILE", |path| Ok(path.into()));
    let min_refresh = env
        .get("IDENTITY_MIN_REFRESH", parse::duration)
        .unwrap_or(Duration::from_secs(10));
    let max_refresh = env
        .get("IDENTITY_MAX_REFRESH", parse::duration)
        .unwrap_or(Duration::from_secs(24 * 3600));
    if min_refresh > max_refresh {
        env.error("IDENTITY_MIN_REFRESH", "has to be at most IDENTITY_MAX_REFRESH");
    }
    Some(IdentityConfig {
        service: service?,
        anchors: anchors?,
        directory: directory?,
        token_file: token_file?,
        min_refresh,
        max_refresh,
    })
}

/// A service on loopback is spoken to in plain text, any other needs an identity to verify.
fn service(env: &Env<'_>, which: &str) -> Option<ServiceAddr> {
    let (addr, name) = (format!("{which}_SVC_ADDR"), format!("{which}_SVC_NAME"));
    let (host, port) = env.required(&addr, parse::host_port)?;
    let mut service = ServiceAddr {
        host: host.into(),
        port,
        id: None,
    };
    if !service.is_loopback() {
        service.id = Some(env.required(&name, parse::identity)?);
    }
    Some(service)
}

fn stream_limits(env: &Env<'_>) -> StreamLimits {
    let limits = StreamLimits {
        initial: env.get("CONTROL_STREAM_INITIAL_TIMEOUT", parse::duration),
        idle: env.get("CONTROL_STREAM_IDLE_TIMEOUT", parse::duration),
        lifetime: env.get("CONTROL_STREAM_LIFETIME", parse::duration),
    };
    let ordered: Vec<_> = [limits.initial, limits.idle, limits.lifetime]
        .into_iter()
        .flatten()
        .collect();
    if !ordered.is_sorted() {
        env.error(
            "CONTROL_STREAM_INITIAL_TIMEOUT",
            "initial ≤ idle ≤ lifetime has to hold for CONTROL_STREAM_*",
        );
    }
    limits
}

fn default_policy(env: &Env<'_>) -> DefaultPolicy {
    let parse = |text: &str| {
        text.trim()
            .parse()
            .map_err(|error: linkerd_policy::default_policy::UnknownPolicy| error.to_string())
    };
    env.get("INBOUND_DEFAULT_POLICY", parse).unwrap_or_default()
}

/// What the control plane takes for the cluster's networks too, unless it is told others.
fn private_networks() -> Vec<IpNet> {
    PRIVATE_NETWORKS
        .iter()
        .filter_map(|net| net.parse().ok())
        .collect()
}

fn inbound(env: &Env<'_>) -> ProxyConfig {
    let listen = env
        .get("INBOUND_LISTEN_ADDR", parse::socket_addr)
        .unwrap_or(DEFAULT_INBOUND);
    let defaults = Defaults {
        connect_timeout: Duration::from_millis(300),
        backoff_max: Duration::from_secs(10),
        failfast: Duration::from_secs(1),
        discovery_idle: Duration::from_secs(90),
        max_idle: "MAX_IDLE_CONNS_PER_ENDPOINT",
    };
    proxy(env, "INBOUND", listen, &defaults)
}

fn outbound(env: &Env<'_>) -> ProxyConfig {
    let listen = outbound_listen(env).first().copied().unwrap_or(DEFAULT_OUTBOUND);
    let defaults = Defaults {
        connect_timeout: Duration::from_secs(1),
        backoff_max: Duration::from_secs(60),
        failfast: Duration::from_secs(3),
        discovery_idle: Duration::from_secs(5),
        max_idle: "OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT",
    };
    proxy(env, "OUTBOUND", listen, &defaults)
}

fn outbound_listen(env: &Env<'_>) -> Vec<SocketAddr> {
    env.get("OUTBOUND_LISTEN_ADDRS", parse::socket_addrs)
        .filter(|addrs| !addrs.is_empty())
        .or_else(|| {
            env.get("OUTBOUND_LISTEN_ADDR", parse::socket_addr)
                .map(|addr| vec![addr])
        })
        .unwrap_or_else(|| vec![DEFAULT_OUTBOUND])
}

/// Where the directions differ.
struct Defaults {
    connect_timeout: Duration,
    backoff_max: Duration,
    failfast: Duration,
    discovery_idle: Duration,
    max_idle: &'static str,
}

fn proxy(env: &Env<'_>, direction: &str, listen: SocketAddr, defaults: &Defaults) -> ProxyConfig {
    let duration = |name: &str| env.get(&format!("{direction}_{name}"), parse::duration);
    ProxyConfig {
        listen,
        accept: ListenParams {
            backlog: env.get(&format!("{direction}_TCP_LISTEN_BACKLOG"), parse::number),
            keepalive: duration("ACCEPT_KEEPALIVE").map(Keepalive),
            user_timeout: duration("ACCEPT_USER_TIMEOUT"),
            orig_dst: OrigDstSource::Kernel,
        },
        connect: ConnectParams {
            timeout: duration("CONNECT_TIMEOUT").unwrap_or(defaults.connect_timeout),
            keepalive: duration("CONNECT_KEEPALIVE").map(Keepalive),
            user_timeout: duration("CONNECT_USER_TIMEOUT"),
        },
        connect_backoff: backoff(env, direction, defaults.backoff_max),
        detect_timeout: duration("DETECT_TIMEOUT").unwrap_or(Duration::from_secs(10)),
        queue: env
            .get(&format!("{direction}_HTTP_QUEUE_CAPACITY"), parse::number)
            .unwrap_or(10_000),
        failfast_timeout: duration("HTTP_FAILFAST_TIMEOUT").unwrap_or(defaults.failfast),
        max_in_flight: env
            .get(&format!("{direction}_MAX_IN_FLIGHT"), parse::number)
            .unwrap_or(100_000),
        pool_max_idle: env.get(defaults.max_idle, parse::number).unwrap_or(10_000),
        pool_idle_timeout: duration("HTTP1_CONNECTION_POOL_IDLE_TIMEOUT").unwrap_or(Duration::from_secs(3)),
        discovery_idle: duration("DISCOVERY_IDLE_TIMEOUT").unwrap_or(defaults.discovery_idle),
        http2_server: http2_server(env, direction),
        http2_client: http2_client(env),
    }
}

/// Minimum and maximum are set together or not at all; the jitter then is 0 unless it is set too.
fn backoff(env: &Env<'_>, direction: &str, default_max: Duration) -> Backoff {
    let name = |end: &str| format!("{direction}_CONNECT_EXP_BACKOFF_{end}");
    let min = env.get(&name("MIN"), parse::duration);
    let max = env.get(&name("MAX"), parse::duration);
    let jitter = env.get(&name("JITTER"), parse::number::<f32>);
    let (min, max, jitter) = match (min, max) {
        (Some(min), Some(max)) => (min, max, jitter.unwrap_or_default()),
        (None, None) => (Duration::from_millis(100), default_max, jitter.unwrap_or(0.1)),
        _ => {
            env.error(&name("MIN"), "has to be set together with its maximum");
            (Duration::from_millis(100), default_max, 0.1)
        }
    };
    Backoff::new(min, max, jitter).unwrap_or_else(|error| {
        env.error(&name("MIN"), error.to_string());
        default_backoff()
    })
}

#[expect(clippy::expect_used, reason = "the values are constants, and valid")]
fn default_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(10), 0.1).expect("valid backoff")
}

fn http2_server(env: &Env<'_>, direction: &str) -> h2::ServerParams {
    let name = |end: &str| format!("{direction}_SERVER_HTTP2_{end}");
    let defaults = h2::ServerParams::default();
    let stream = env.get(&name("INITIAL_STREAM_WINDOW_SIZE"), parse::number);
    let connection = env.get(&name("INITIAL_CONNECTION_WINDOW_SIZE"), parse::number);
    let interval = env.get(&name("KEEP_ALIVE_INTERVAL"), parse::duration);
    let timeout = env.get(&name("KEEP_ALIVE_TIMEOUT"), parse::duration);
    let (stream_window, connection_window) = stream
        .zip(connection)
        .unwrap_or((defaults.stream_window, defaults.connection_window));
    h2::ServerParams {
        stream_window,
        connection_window,
        max_concurrent_streams: env
            .get(&name("MAX_CONCURRENT_STREAMS"), parse::number)
            .unwrap_or(defaults.max_concurrent_streams),
        max_frame_size: env.get(&name("MAX_FRAME_SIZE"), parse::number),
        max_header_list_size: env
            .get(&name("MAX_HEADER_LIST_SIZE"), parse::number)
            .unwrap_or(defaults.max_header_list_size),
        max_pending_accept_reset_streams: env.get(&name("MAX_PENDING_ACCEPT_RESET_STREAMS"), parse::number),
        keep_alive: interval
            .zip(timeout)
            .map(|(interval, timeout)| h2::KeepAlive { interval, timeout }),
    }
}

fn http2_client(env: &Env<'_>) -> h2::ClientParams {
    let defaults = h2::ClientParams::default();
    h2::ClientParams {
        stream_window: env
            .get("HTTP2_INITIAL_STREAM_WINDOW_SIZE", parse::number)
            .unwrap_or(defaults.stream_window),
        connection_window: env
            .get("HTTP2_INITIAL_CONNECTION_WINDOW_SIZE", parse::number)
            .unwrap_or(defaults.connection_window),
        ..defaults
    }
}

/// Worker threads: `CORES_MAX`, else a share of the machine, else one; at least the minimum, at most the machine.
fn workers(env: &Env<'_>) -> usize {
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let min = env
        .get("CORES_MIN", parse::number)
        .or_else(|| env.get("CORES", parse::number))
        .unwrap_or(1);
    let max = env.get("CORES_MAX", parse::number).or_else(|| {
        env.get("CORES_MAX_RATIO", ratio)
            .map(|ratio| share(available, ratio))
    });
    max.unwrap_or(1_usize).max(min).clamp(1, available)
}

fn ratio(text: &str) -> parse::Parsed<f64> {
    let ratio = parse::number::<f64>(text)?;
    if ratio > 0.0 && ratio <= 1.0 {
        Ok(ratio)
    } else {
        Err(format!("not within 0 and 1: {text}"))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a machine has fewer cores than a float can tell apart, and the ratio is positive"
)]
fn share(available: usize, ratio: f64) -> usize {
    (available as f64 * ratio).round() as usize
}

/// A person who set one of these expects something that this proxy does not do, and is told so at the start.
fn without_effect(env: &Env<'_>) -> Vec<&'static str> {
    let is_on = |name: &&str| env.text(name).is_some_and(|value| value.trim() != "false");
    let unknown_log = env
        .text("ACCESS_LOG")
        .is_some_and(|format| access_log(format).is_none());
    let unknown_log = unknown_log.then_some("ACCESS_LOG");
    WITHOUT_EFFECT
        .into_iter()
        .filter(is_on)
        .chain(unknown_log)
        .collect()
}

fn access_log(format: &str) -> Option<AccessLogFormat> {
    match format.trim() {
        "apache" => Some(AccessLogFormat::Apache),
        "json" => Some(AccessLogFormat::Json),
        _ => None,
    }
}

/// The only value, so that nobody sets it without having read what it means.
fn unsafe_only(text: &str) -> parse::Parsed<()> {
    match text.trim() {
        "unsafe" => Ok(()),
        other => Err(format!("has to be `unsafe` or unset, not {other:?}")),
    }
}

const WITHOUT_EFFECT: [&str; 5] = [
    "INBOUND_HTTP_FAILFAST_TIMEOUT",
    "INBOUND_HTTP_QUEUE_CAPACITY",
    "INBOUND_PORTS_REQUIRE_TLS",
    "INBOUND_GATEWAY_SUFFIXES",
    "IDENTITY_SPIRE_WORKLOAD_API_ADDRESS",
];
const PRIVATE_NETWORKS: [&str; 5] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fd00::/8",
];
const DEFAULT_SUFFIX: &str = "svc.cluster.local";
const DEFAULT_ADMIN: SocketAddr = loopback(4191);
const DEFAULT_OUTBOUND: SocketAddr = loopback(4140);
const DEFAULT_INBOUND: SocketAddr = everywhere(4143);
const DEFAULT_TAP: SocketAddr = everywhere(4190);

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

const fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), port)
}

#[cfg(test)]
mod tests;
