//! An outbound proxy whose discovery says what a test wants.

use crate::{Config, Deps, Discover, Outbound};
use linkerd_control::PolicyAnswer;
use linkerd_http::{h1, h2};
use linkerd_policy::{ClientPolicy, EndpointSet, Id, Profile, client::Backoff, profile::LookupTarget};
use linkerd_tls::CredentialsStore;
use linkerd_transport::ConnectParams;
use parking_lot::Mutex;
use std::{collections::HashMap, collections::HashSet, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Clones share the answers.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Answers>);

struct Answers {
    profile: watch::Sender<Option<Arc<Profile>>>,
    policy: watch::Sender<Option<PolicyAnswer>>,
    endpoints: Mutex<HashMap<String, watch::Sender<Option<Arc<EndpointSet>>>>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self(Arc::new(Answers {
            profile: watch::Sender::new(Some(Arc::default())),
            policy: watch::Sender::new(None),
            endpoints: Mutex::default(),
        }))
    }
}

impl Fake {
    pub(crate) fn policy(&self, policy: ClientPolicy) {
        self.0
            .policy
            .send_replace(Some(PolicyAnswer::Policy(Arc::new(policy))));
    }

    pub(crate) fn endpoints(&self, authority: &str, set: EndpointSet) {
        self.of(authority).send_replace(Some(Arc::new(set)));
    }

    fn of(&self, authority: &str) -> watch::Sender<Option<Arc<EndpointSet>>> {
        let mut all = self.0.endpoints.lock();
        all.entry(authority.to_owned())
            .or_insert_with(|| watch::Sender::new(None))
            .clone()
    }

    /// How many look at the endpoints of `authority`.
    pub(crate) fn watchers(&self, authority: &str) -> usize {
        self.of(authority).receiver_count()
    }

    pub(crate) fn outbound(&self) -> Arc<Outbound> {
        let store = CredentialsStore::new(Id::dns("client.test").unwrap(), "client.test".into());
        let metrics = linkerd_metrics::Registry::new(Duration::from_secs(60));
        let deps = Deps {
            discover: Arc::new(self.clone()),
            credentials: store.credentials(),
            tap: linkerd_tap::Registry::new(&metrics),
            metrics,
            tracer: None,
        };
        Outbound::new(config(), deps)
    }

    /// Waits until `holds`.
    pub(crate) async fn settled(&self, holds: impl Fn() -> bool) {
        let all = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), all).await.unwrap();
    }
}

fn config() -> Config {
    Config {
        inbound_port: 4143,
        inbound_ips: HashSet::new(),
        connect: ConnectParams {
            timeout: Duration::from_secs(1),
            keepalive: None,
            user_timeout: None,
        },
        reconnect: Backoff::new(Duration::from_millis(100), Duration::from_secs(10), 0.0).unwrap(),
        pool: h1::PoolParams {
            max_idle: 10,
            idle_timeout: Duration::from_secs(3),
        },
        http1_server: h1::ServerParams::default(),
        http2_server: h2::ServerParams::default(),
        http2_client: h2::ClientParams::default(),
        max_in_flight: 100,
        queue: 100,
        failfast: Duration::from_secs(3),
        discovery_idle_timeout: Duration::from_secs(5),
        informational_headers: true,
        ingress: false,
        hostname_labels: false,
    }
}

impl Discover for Fake {
    fn profile(&self, _: LookupTarget) -> watch::Receiver<Option<Arc<Profile>>> {
        self.0.profile.subscribe()
    }

    fn outbound_policy(&self, _: LookupTarget) -> watch::Receiver<Option<PolicyAnswer>> {
        self.0.policy.subscribe()
    }

    fn endpoints(&self, authority: &Arc<str>) -> watch::Receiver<Option<Arc<EndpointSet>>> {
        self.of(authority).subscribe()
    }
}
