//! Settings, as linkerd-app reads them from the environment.

use crate::ServiceAddr;
use ipnet::IpNet;
use linkerd_policy::{DefaultPolicy, client::Backoff};
use linkerd_tls::TrustAnchors;
use std::{collections::BTreeSet, path::PathBuf, time::Duration};

#[derive(Clone, Debug)]
pub struct Config {
    pub identity: IdentityConfig,
    pub destination: ServiceAddr,
    /// Sent with every destination lookup; the control plane's own business.
    pub destination_context: String,
    pub policy: ServiceAddr,
    /// Who this proxy is, for policies; the control plane's own business.
    pub policy_workload: String,
    /// Profiles are looked up for addresses in these networks only.
    pub profile_networks: Vec<IpNet>,
    /// Profiles are looked up for names with one of these suffixes only; `.` is every name.
    pub profile_suffixes: Vec<String>,
    pub limits: StreamLimits,
    /// How long what nobody uses is kept.
    pub outbound_idle: Duration,
    pub inbound_default: DefaultPolicy,
    /// Ports whose default policy admits clients with an identity only.
    pub inbound_identity_ports: BTreeSet<u16>,
    /// Ports that are opaque until the control plane says otherwise.
    pub inbound_opaque_ports: BTreeSet<u16>,
    pub inbound_detect_timeout: Duration,
    /// Linkerd's proxy ignores the policy's detect timeout outbound; so does this one.
    pub outbound_detect_timeout: Duration,
    pub cluster_networks: Vec<IpNet>,
    pub connect_timeout: Duration,
    pub backoff: Backoff,
}

#[derive(Clone, Debug)]
pub struct IdentityConfig {
    pub service: ServiceAddr,
    /// Read again for each certificate: tokens are short-lived.
    pub token_file: PathBuf,
    /// Where `certificate.crt` is written.
    pub directory: PathBuf,
    pub anchors: TrustAnchors,
    pub min_refresh: Duration,
    pub max_refresh: Duration,
}

/// When a stream that says nothing is opened again; absent: never. Not applied to a service on loopback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamLimits {
    /// Until the first message.
    pub initial: Option<Duration>,
    /// Between messages.
    pub idle: Option<Duration>,
    /// In all.
    pub lifetime: Option<Duration>,
}
