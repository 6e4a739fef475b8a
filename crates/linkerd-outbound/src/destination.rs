//! Discovery of each address that the application connects to.

use crate::{Outbound, plan::Plan};
use linkerd_policy::profile::LookupTarget;
use linkerd_stack::{Cause, Error};
use parking_lot::Mutex;
use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// One original destination. Its plan follows discovery as long as somebody holds this.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) addr: SocketAddr,
    plan: watch::Receiver<Option<Arc<Plan>>>,
}

/// The destinations in use, and those used lately.
#[derive(Debug)]
pub(crate) struct Destinations {
    idle_timeout: Duration,
    known: Mutex<HashMap<SocketAddr, Known>>,
}

#[derive(Debug)]
struct Known {
    destination: Arc<Destination>,
    used: Instant,
}

impl Destination {
    /// The current plan, or the first one when it comes within `limit`.
    pub(crate) async fn plan(&self, limit: Duration) -> Result<Arc<Plan>, Error> {
        if let Some(plan) = self.current() {
            return Ok(plan);
        }
        let mut updates = self.plan.clone();
        let answer = match timeout(limit, updates.wait_for(Option::is_some)).await {
            Ok(Ok(plan)) => plan.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        answer.ok_or_else(|| {
            Error::new(
                Cause::FailFast,
                format!("destination {}: discovery did not answer", self.addr),
            )
        })
    }

    pub(crate) fn current(&self) -> Option<Arc<Plan>> {
        self.plan.borrow().clone()
    }
}

impl Destinations {
    pub(crate) fn new(idle_timeout: Duration) -> Self {
        Self {
            idle_timeout,
            known: Mutex::default(),
        }
    }

    pub(crate) fn of(&self, outbound: &Arc<Outbound>, addr: SocketAddr) -> Arc<Destination> {
        let mut known = self.known.lock();
        if let Some(entry) = known.get_mut(&addr) {
            entry.used = Instant::now();
            return entry.destination.clone();
        }
        let (sender, plan) = watch::channel(None);
        tokio::spawn(follow(outbound.clone(), addr, sender));
        let destination = Arc::new(Destination { addr, plan });
        if known.is_empty() {
            tokio::spawn(sweep(outbound.clone()));
        }
        known.insert(
            addr,
            Known {
                destination: destination.clone(),
                used: Instant::now(),
            },
        );
        destination
    }
}

/// Forgets unused destinations; ends when none is left.
async fn sweep(outbound: Arc<Outbound>) {
    let destinations = &outbound.destinations;
    loop {
        sleep(destinations.idle_timeout.max(Duration::from_millis(100))).await;
        let now = Instant::now();
        let mut known = destinations.known.lock();
        known.retain(|_, k| {
            if Arc::strong_count(&k.destination) > 1 {
                k.used = now;
            }
            now - k.used < destinations.idle_timeout
        });
        if known.is_empty() {
            return;
        }
    }
}

/// Makes a new plan whenever discovery says something new.
async fn follow(outbound: Arc<Outbound>, addr: SocketAddr, sender: watch::Sender<Option<Arc<Plan>>>) {
    let mut profile = outbound.discover.profile(LookupTarget::Addr(addr));
    let mut policy = outbound.discover.outbound_policy(LookupTarget::Addr(addr));
    loop {
        let known = (
            profile.borrow_and_update().clone(),
            policy.borrow_and_update().clone(),
        );
        if let (Some(profile), Some(policy)) = known {
            sender.send_replace(Some(Arc::new(Plan::new(&outbound, addr, &profile, &policy))));
        }
        let changed = tokio::select! {
            changed = profile.changed() => changed,
            changed = policy.changed() => changed,
            () = sender.closed() => return,
        };
        if changed.is_err() {
            // The control client is ending; what is known stays.
            sender.closed().await;
            return;
        }
    }
}
