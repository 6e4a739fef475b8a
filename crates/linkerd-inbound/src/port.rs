//! What is kept for each port that clients connect to.
//!
//! Anybody who reaches the pod can name a port, so what is kept must not follow from the naming: a port that is not
//! declared is kept only while something listens on it, and only so many of those. A scan of all ports leaves
//! nothing behind, neither streams to the control plane nor series.

use crate::{
    Inbound,
    app::{self, App, Way},
    labels,
    rate_limit::Limiter,
};
use linkerd_metrics::Labels;
use linkerd_policy::ServerPolicy;
use linkerd_stack::{Cause, Error};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

/// One address of the application.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) addr: SocketAddr,
    pub(crate) policy: watch::Receiver<Arc<ServerPolicy>>,
    pub(crate) app: App,
    pub(crate) target: Labels,
    pub(crate) limiter: Limiter,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// By the pod's specification.
    Declared,
    /// Found to be listened on.
    Found,
    /// Nobody listened when it was asked for. Whoever got it must look again before sending anything: by then there
    /// may be an application, and a policy that was never asked for.
    Closed,
}

/// All ports in use, and those used lately.
#[derive(Debug)]
pub(crate) struct Ports {
    idle_timeout: Duration,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    entries: HashMap<SocketAddr, Entry>,
    /// Whether somebody is at it to forget the idle ones.
    swept: bool,
}

#[derive(Debug)]
struct Entry {
    port: Arc<Port>,
    used: Instant,
}

/// A port in use, for people to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InUse {
    pub(crate) port: u16,
    pub(crate) connections: usize,
    pub(crate) used: Duration,
}

impl Ports {
    pub(crate) fn new(idle_timeout: Duration) -> Self {
        Self {
            idle_timeout,
            known: Mutex::default(),
        }
    }

    /// The port at `addr`; one that nobody listens on is not kept.
    ///
    /// # Errors
    /// When as many undeclared ports as may be are in use.
    pub(crate) async fn of(&self, inbound: &Arc<Inbound>, addr: SocketAddr) -> Result<Arc<Port>, Error> {
        if let Some(port) = self.find(addr) {
            return Ok(port);
        }
        if inbound.config.ports.contains(&addr.port()) {
            return self.keep(inbound, addr, Kind::Declared, Way::Dial);
        }
        match app::dial(addr, &inbound.config.connect).await {
            Ok(io) => self.keep(inbound, addr, Kind::Found, Way::connected(io)),
            Err(_) => Ok(Arc::new(Port::new(inbound, addr, Kind::Closed, Way::Closed))),
        }
    }

    pub(crate) fn find(&self, addr: SocketAddr) -> Option<Arc<Port>> {
        let mut known = self.known.lock();
        let entry = known.entries.get_mut(&addr)?;
        entry.used = Instant::now();
        Some(entry.port.clone())
    }

    fn keep(
        &self,
        inbound: &Arc<Inbound>,
        addr: SocketAddr,
        kind: Kind,
        way: Way,
    ) -> Result<Arc<Port>, Error> {
        let mut known = self.known.lock();
        // Somebody else may have been faster.
        if let Some(entry) = known.entries.get(&addr) {
            return Ok(entry.port.clone());
        }
        if kind == Kind::Found && !known.make_room() {
            return Err(Error::new(
                Cause::LoadShed,
                format!("{MAX_FOUND} undeclared ports are in use"),
            ));
        }
        let port = Arc::new(Port::new(inbound, addr, kind, way));
        known.entries.insert(
            addr,
            Entry {
                port: port.clone(),
                used: Instant::now(),
            },
        );
        if !known.swept {
            known.swept = true;
            tokio::spawn(sweep(Arc::downgrade(inbound), self.idle_timeout));
        }
        Ok(port)
    }

    pub(crate) fn in_use(&self) -> Vec<InUse> {
        let (known, now) = (self.known.lock(), Instant::now());
        known
            .entries
            .values()
            .map(|entry| InUse {
                port: entry.port.addr.port(),
                connections: entry.holders(),
                used: now.saturating_duration_since(entry.used),
            })
            .collect()
    }
}

/// Forgets ports that have been idle for long enough, until none is left.
async fn sweep(inbound: Weak<Inbound>, idle_timeout: Duration) {
    loop {
        time::sleep(idle_timeout).await;
        let Some(inbound) = inbound.upgrade() else { return };
        let mut known = inbound.ports.known.lock();
        known
            .entries
            .retain(|_, entry| entry.holders() > 0 || entry.used.elapsed() < idle_timeout);
        if known.entries.is_empty() {
            known.swept = false;
            return;
        }
    }
}

impl Known {
    /// Whether another undeclared port may be kept; the one that was not used for longest makes room for it.
    fn make_room(&mut self) -> bool {
        let found = |entry: &&Entry| entry.port.kind == Kind::Found;
        if self.entries.values().filter(found).count() < MAX_FOUND {
            return true;
        }
        let idle = self
            .entries
            .values()
            .filter(found)
            .filter(|entry| entry.holders() == 0);
        let Some(oldest) = idle.min_by_key(|entry| entry.used).map(|entry| entry.port.addr) else {
            return false;
        };
        self.entries.remove(&oldest);
        true
    }
}

impl Entry {
    /// Connections hold the port as long as they are open.
    fn holders(&self) -> usize {
        Arc::strong_count(&self.port) - 1
    }
}

impl Port {
    fn new(inbound: &Inbound, addr: SocketAddr, kind: Kind, way: Way) -> Self {
        let config = &inbound.config;
        let target = match kind {
            Kind::Declared | Kind::Found => labels::target(addr),
            Kind::Closed => labels::other_target(),
        };
        let peer = Labels::new()
            .with("direction", "inbound")
            .with("peer", "dst")
            .join(&target)
            .with("tls", "no_identity")
            .with("no_tls_reason", "loopback");
        let policy = match kind {
            Kind::Declared | Kind::Found => inbound.discover.inbound_policy(addr.port()),
            // Nothing is protected by it, because nothing is there.
            Kind::Closed => watch::channel(inbound.discover.default_policy(addr.port())).1,
        };
        let app = App::new(
            addr,
            config.connect,
            inbound.metrics.tcp.series(peer),
            config.pool,
            config.http2_client.clone(),
            way,
        );
        Self {
            addr,
            policy,
            app,
            target,
            limiter: Limiter::default(),
            kind,
        }
    }

    pub(crate) fn policy(&self) -> Arc<ServerPolicy> {
        self.policy.borrow().clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.kind == Kind::Closed
    }

    /// `srv_*`: the policy that the port has.
    pub(crate) fn server_labels(&self, policy: &ServerPolicy) -> Labels {
        let srv = labels::resource("srv", &policy.meta);
        if self.is_closed() {
            srv.with("srv_port", labels::OTHER)
        } else {
            srv.with_display("srv_port", self.addr.port())
        }
    }
}

/// Servers of applications that do not declare their ports, with some for protocols that open a port for each
/// transfer.
const MAX_FOUND: usize = 512;

#[cfg(test)]
mod tests;
