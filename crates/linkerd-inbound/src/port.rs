//! What is kept for each port that clients connect to.

use crate::{Inbound, app::App, labels, rate_limit::Limiter};
use linkerd_metrics::Labels;
use linkerd_policy::ServerPolicy;
use parking_lot::Mutex;
use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// One address of the application.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) addr: SocketAddr,
    pub(crate) policy: watch::Receiver<Arc<ServerPolicy>>,
    pub(crate) app: App,
    pub(crate) target: Labels,
    pub(crate) limiter: Limiter,
}

/// All ports in use, and those used lately.
#[derive(Debug)]
pub(crate) struct Ports {
    idle_timeout: Duration,
    known: Mutex<HashMap<SocketAddr, Known>>,
}

#[derive(Debug)]
struct Known {
    port: Arc<Port>,
    used: Instant,
}

impl Ports {
    pub(crate) fn new(idle_timeout: Duration) -> Self {
        Self {
            idle_timeout,
            known: Mutex::default(),
        }
    }

    pub(crate) fn of(&self, inbound: &Inbound, addr: SocketAddr) -> Arc<Port> {
        let now = Instant::now();
        let mut known = self.known.lock();
        if let Some(entry) = known.get_mut(&addr) {
            entry.used = now;
            return entry.port.clone();
        }
        // Unused ports are forgotten when a new one appears: there are as many as the pod has, seldom more.
        known.retain(|_, k| Arc::strong_count(&k.port) > 1 || now - k.used < self.idle_timeout);
        let port = Arc::new(Port::new(inbound, addr));
        known.insert(
            addr,
            Known {
                port: port.clone(),
                used: now,
            },
        );
        port
    }
}

impl Port {
    fn new(inbound: &Inbound, addr: SocketAddr) -> Self {
        let config = &inbound.config;
        let target = labels::target(addr);
        let peer = Labels::new()
            .with("direction", "inbound")
            .with("peer", "dst")
            .join(&target)
            .with("tls", "no_identity")
            .with("no_tls_reason", "loopback");
        let app = App::new(
            addr,
            config.connect,
            inbound.metrics.tcp.series(peer),
            config.pool,
            config.http2_client.clone(),
        );
        Self {
            addr,
            policy: inbound.discover.inbound_policy(addr.port()),
            app,
            target,
            limiter: Limiter::default(),
        }
    }

    pub(crate) fn policy(&self) -> Arc<ServerPolicy> {
        self.policy.borrow().clone()
    }
}
