//! The control plane as the data path sees it.

use crate::{
    Config, StreamLimits,
    cache::Cache,
    channel::{Channel, Security},
    config::Config as Settings,
    convert, identity,
    identity::IdentityStatus,
    metrics::ControlMetrics,
    streams::{Endpoints, Heard, InboundPolicies, OutboundPolicies, Profiles},
    subscription::subscribe,
};
use linkerd_metrics::Registry;
use linkerd_policy::{ClientPolicy, EndpointSet, Profile, ServerPolicy, profile::LookupTarget};
use linkerd_proto::{
    destination::{GetDestination, destination_client::DestinationClient},
    inbound::{PortSpec, inbound_server_policies_client::InboundServerPoliciesClient},
    outbound::{TrafficSpec, outbound_policies_client::OutboundPoliciesClient, traffic_spec},
};
use linkerd_tls::CredentialsStore;
use std::{sync::Arc, time::Duration};
use tokio::{runtime::Handle, sync::watch};

pub use linkerd_policy::profile::LookupTarget as Target;

/// What the control plane says about reaching a destination.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicyAnswer {
    Policy(Arc<ClientPolicy>),
    /// It has none: an address that is no service.
    NotFound,
}

/// Looks things up in the control plane. Clones share everything.
///
/// All methods return at once. What nobody looks at for a while is forgotten, streams and all.
#[derive(Clone, Debug)]
pub struct Control(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Settings,
    destination: Channel,
    policy: Channel,
    profiles: Cache<LookupTarget, Option<Arc<Profile>>>,
    endpoints: Cache<Arc<str>, Option<Arc<EndpointSet>>>,
    outbound: Cache<LookupTarget, Option<PolicyAnswer>>,
    inbound: Cache<u16, Arc<ServerPolicy>>,
    heard: Arc<Heard>,
    identity: Arc<IdentityStatus>,
    no_profile: watch::Sender<Option<Arc<Profile>>>,
}

impl Control {
    /// Runs its streams on `runtime`, and keeps `store` supplied with certificates.
    #[must_use]
    pub fn spawn(config: Config, store: CredentialsStore, runtime: &Handle, registry: &Registry) -> Self {
        let store = Arc::new(store);
        let mutual = Security::Mutual(store.credentials());
        let metrics = ControlMetrics::new(registry);
        let channel = |client: &str, service: &crate::ServiceAddr| {
            let metrics = metrics.of(client, service);
            Channel::new(service.clone(), mutual.clone(), config.connect_timeout, metrics)
        };
        let identity = Arc::<IdentityStatus>::default();
        let destination = channel("destination", &config.destination);
        let policy = channel("policy", &config.policy);
        let inner = Inner {
            profiles: Cache::new(config.outbound_idle, destination.connected(), runtime.clone()),
            endpoints: Cache::new(config.outbound_idle, destination.connected(), runtime.clone()),
            outbound: Cache::new(config.outbound_idle, policy.connected(), runtime.clone()),
            inbound: Cache::new(INBOUND_IDLE, policy.connected(), runtime.clone()),
            destination,
            policy,
            heard: Arc::default(),
            identity: identity.clone(),
            no_profile: watch::Sender::new(Some(Arc::default())),
            config,
        };
        runtime.spawn(identity::maintain(
            inner.config.identity.clone(),
            inner.config.connect_timeout,
            store,
            identity,
            metrics.of("identity", &inner.config.identity.service),
        ));
        Self(Arc::new(inner))
    }

    /// What a service profile says of an address or name; `None` until the first answer. Without a profile, and where
    /// profiles are not looked up, it is the empty one.
    #[must_use]
    pub fn profile(&self, target: LookupTarget) -> watch::Receiver<Option<Arc<Profile>>> {
        if !self.has_profile(&target) {
            return self.0.no_profile.subscribe();
        }
        let this = self.clone();
        self.0.profiles.get(
            target.clone(),
            || None,
            move |watch, link| async move {
                let request = this.lookup(target.to_string());
                let client = DestinationClient::with_origin(
                    this.0.destination.clone(),
                    this.0.destination.service().origin(),
                );
                let open = || {
                    let (mut client, request) = (client.clone(), request.clone());
                    async move { client.get_profile(request).await.map(tonic::Response::into_inner) }
                };
                let mut subscriber = Profiles {
                    port: convert::port_of(&target),
                    watch,
                };
                let name = format!("profile of {target}");
                subscribe(
                    &name,
                    this.limits(&this.0.destination),
                    this.0.config.backoff,
                    open,
                    &link,
                    &mut subscriber,
                )
                .await;
            },
        )
    }

    /// The endpoints of `host:port`, removals applied; `None` until the first answer.
    #[must_use]
    pub fn endpoints(&self, authority: &Arc<str>) -> watch::Receiver<Option<Arc<EndpointSet>>> {
        let (this, authority) = (self.clone(), authority.clone());
        self.0.endpoints.get(
            authority.clone(),
            || None,
            move |watch, link| async move {
                let request = this.lookup(authority.to_string());
                let client = DestinationClient::with_origin(
                    this.0.destination.clone(),
                    this.0.destination.service().origin(),
                );
                let open = || {
                    let (mut client, request) = (client.clone(), request.clone());
                    async move { client.get(request).await.map(tonic::Response::into_inner) }
                };
                let name = format!("endpoints of {authority}");
                let mut subscriber = Endpoints {
                    authority,
                    watch,
                    fresh: true,
                };
                subscribe(
                    &name,
                    this.limits(&this.0.destination),
                    this.0.config.backoff,
                    open,
                    &link,
                    &mut subscriber,
                )
                .await;
            },
        )
    }

    /// The policy for reaching an address or name; `None` until the first answer.
    #[must_use]
    pub fn outbound_policy(&self, target: LookupTarget) -> watch::Receiver<Option<PolicyAnswer>> {
        let this = self.clone();
        self.0.outbound.get(
            target.clone(),
            || None,
            move |watch, link| async move {
                let spec = this.traffic_spec(&target);
                let client = OutboundPoliciesClient::with_origin(
                    this.0.policy.clone(),
                    this.0.policy.service().origin(),
                );
                let open = || {
                    let (mut client, spec) = (client.clone(), spec.clone());
                    async move { client.watch(spec).await.map(tonic::Response::into_inner) }
                };
                let name = format!("outbound policy of {target}");
                let detect_timeout = this.0.config.outbound_detect_timeout;
                let mut subscriber = OutboundPolicies {
                    detect_timeout,
                    watch,
                };
                subscribe(
                    &name,
                    this.limits(&this.0.policy),
                    this.0.config.backoff,
                    open,
                    &link,
                    &mut subscriber,
                )
                .await;
            },
        )
    }

    /// The policy of a port of this pod: the default one until the control plane has answered.
    #[must_use]
    pub fn inbound_policy(&self, port: u16) -> watch::Receiver<Arc<ServerPolicy>> {
        let this = self.clone();
        self.0.inbound.get(
            port,
            || self.default_policy(port),
            move |watch, link| async move {
                let spec = PortSpec {
                    workload: this.0.config.policy_workload.clone(),
                    port: port.into(),
                };
                let origin = this.0.policy.service().origin();
                let client = InboundServerPoliciesClient::with_origin(this.0.policy.clone(), origin);
                let open = || {
                    let (mut client, spec) = (client.clone(), spec.clone());
                    async move { client.watch_port(spec).await.map(tonic::Response::into_inner) }
                };
                let name = format!("inbound policy of port {port}");
                let heard = this.0.heard.clone();
                let mut subscriber = InboundPolicies { port, watch, heard };
                subscribe(
                    &name,
                    this.limits(&this.0.policy),
                    this.0.config.backoff,
                    open,
                    &link,
                    &mut subscriber,
                )
                .await;
            },
        )
    }

    #[must_use]
    pub fn identity(&self) -> &IdentityStatus {
        &self.0.identity
    }

    /// Every profile that is kept now, for people to look at; likewise the next three.
    #[must_use]
    pub fn known_profiles(&self) -> Vec<(String, Option<Arc<Profile>>)> {
        self.0
            .profiles
            .snapshot(|target, profile| (target.to_string(), profile.clone()))
    }

    #[must_use]
    pub fn known_endpoints(&self) -> Vec<(Arc<str>, Option<Arc<EndpointSet>>)> {
        self.0
            .endpoints
            .snapshot(|authority, set| (authority.clone(), set.clone()))
    }

    #[must_use]
    pub fn known_outbound_policies(&self) -> Vec<(String, Option<PolicyAnswer>)> {
        self.0
            .outbound
            .snapshot(|target, answer| (target.to_string(), answer.clone()))
    }

    /// With the time since the control plane's last word on each; absent: it is the default policy.
    #[must_use]
    pub fn known_inbound_policies(&self) -> Vec<(u16, Arc<ServerPolicy>, Option<Duration>)> {
        let heard = &self.0.heard;
        self.0
            .inbound
            .snapshot(|port, policy| (*port, policy.clone(), heard.ago(*port)))
    }

    /// What a port accepts before the control plane has answered.
    #[must_use]
    pub fn default_policy(&self, port: u16) -> Arc<ServerPolicy> {
        let config = &self.0.config;
        let opaque = config.inbound_opaque_ports.contains(&port);
        let policy = match config.inbound_identity_ports.contains(&port) {
            true => config.inbound_default.authenticated(),
            false => config.inbound_default,
        };
        Arc::new(policy.server(&config.cluster_networks, opaque, config.inbound_detect_timeout))
    }

    fn has_profile(&self, target: &LookupTarget) -> bool {
        match target {
            LookupTarget::Addr(addr) => self
                .0
                .config
                .profile_networks
                .iter()
                .any(|net| net.contains(&addr.ip())),
            LookupTarget::Name(name) => has_suffix(name, &self.0.config.profile_suffixes),
        }
    }

    fn lookup(&self, path: String) -> GetDestination {
        GetDestination {
            scheme: String::new(),
            path,
            context_token: self.0.config.destination_context.clone(),
        }
    }

    fn traffic_spec(&self, target: &LookupTarget) -> TrafficSpec {
        let target = match target {
            LookupTarget::Addr(addr) => traffic_spec::Target::Addr(convert::tcp_address(*addr)),
            LookupTarget::Name(name) => traffic_spec::Target::Authority(name.to_string()),
        };
        TrafficSpec {
            source_workload: self.0.config.policy_workload.clone(),
            target: Some(target),
        }
    }

    fn limits(&self, channel: &Channel) -> StreamLimits {
        if channel.service().is_loopback() {
            StreamLimits::default()
        } else {
            self.0.config.limits
        }
    }
}

/// The inbound proxy itself keeps the ports that are in use or were lately.
const INBOUND_IDLE: Duration = Duration::from_secs(1);

/// Whether `name:port` lies below one of the suffixes; whole labels count.
fn has_suffix(authority: &str, suffixes: &[String]) -> bool {
    let name = authority
        .rsplit_once(':')
        .map_or(authority, |(name, _)| name)
        .trim_end_matches('.');
    suffixes
        .iter()
        .map(|suffix| suffix.trim_matches('.'))
        .any(|suffix| {
            suffix.is_empty()
                || name
                    .len()
                    .checked_sub(suffix.len())
                    .and_then(|at| name.split_at_checked(at))
                    .is_some_and(|(before, end)| {
                        end.eq_ignore_ascii_case(suffix) && (before.is_empty() || before.ends_with('.'))
                    })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_are_whole_labels() {
        let suffixes = ["svc.cluster.local.".to_string()];
        assert!(has_suffix("web.ns.svc.cluster.local:80", &suffixes));
        assert!(has_suffix("Web.NS.SVC.cluster.local.:80", &suffixes));
        assert!(!has_suffix("badsvc.cluster.local:80", &suffixes));
        assert!(!has_suffix("example.com:443", &suffixes));
        assert!(has_suffix("example.com:443", &[".".to_string()]));
    }
}
