//! Discovery of each destination that the application asks for.

use crate::{Outbound, plan::Plan};
use linkerd_policy::profile::LookupTarget;
use linkerd_stack::{Cause, Error};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// An original destination, or a name that a request gives. Its plan follows discovery as long as somebody holds this.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) target: LookupTarget,
    plan: watch::Receiver<Option<Arc<Plan>>>,
}

/// The destinations in use, and those used lately.
#[derive(Debug)]
pub(crate) struct Destinations {
    idle_timeout: Duration,
    known: Mutex<HashMap<LookupTarget, Known>>,
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
                format!("destination {}: discovery did not answer", self.target),
            )
        })
    }

    pub(crate) fn current(&self) -> Option<Arc<Plan>> {
        self.plan.borrow().clone()
    }
}

impl Destinations {
    /// What `show` makes of each destination, and whether it is in use.
    pub(crate) fn each<T>(&self, show: impl Fn(&Destination, bool) -> T) -> Vec<T> {
        let known = self.known.lock();
        let each = known.values().map(|k| {
            let in_use = Arc::strong_count(&k.destination) > 1;
            show(&k.destination, in_use)
        });
        each.collect()
    }

    pub(crate) fn new(idle_timeout: Duration) -> Self {
        Self {
            idle_timeout,
            known: Mutex::default(),
        }
    }

    pub(crate) fn of(&self, outbound: &Arc<Outbound>, target: &LookupTarget) -> Arc<Destination> {
        let mut known = self.known.lock();
        if let Some(entry) = known.get_mut(target) {
            entry.used = Instant::now();
            return entry.destination.clone();
        }
        let (sender, plan) = watch::channel(None);
        tokio::spawn(follow(outbound.clone(), target.clone(), sender));
        let destination = Arc::new(Destination {
            target: target.clone(),
            plan,
        });
        if known.is_empty() {
            tokio::spawn(sweep(outbound.clone()));
        }
        if known.len() >= MAX_KNOWN && !make_room(&mut known) {
            return destination;
        }
        known.insert(
            target.clone(),
            Known {
                destination: destination.clone(),
                used: Instant::now(),
            },
        );
        destination
    }
}

/// Forgets the destination that has been unused for the longest time, if any is unused.
fn make_room(known: &mut HashMap<LookupTarget, Known>) -> bool {
    let unused = known
        .iter()
        .filter(|(_, k)| Arc::strong_count(&k.destination) == 1)
        .min_by_key(|(_, k)| k.used)
        .map(|(target, _)| target.clone());
    unused.is_some_and(|target| known.remove(&target).is_some())
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
async fn follow(outbound: Arc<Outbound>, target: LookupTarget, sender: watch::Sender<Option<Arc<Plan>>>) {
    let mut profile = outbound.discover.profile(target.clone());
    let mut policy = outbound.discover.outbound_policy(target.clone());
    let mut revision = 0;
    loop {
        let known = (
            profile.borrow_and_update().clone(),
            policy.borrow_and_update().clone(),
        );
        if let (Some(profile), Some(policy)) = known {
            revision += 1;
            let plan = Plan::new(&outbound, &target, &profile, &policy, revision);
            sender.send_replace(Some(Arc::new(plan)));
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

/// How long anybody waits for what the control plane says about an unknown destination.
pub(crate) const DISCOVERY: Duration = Duration::from_secs(10);
/// As many destinations are remembered; further ones are looked up for each connection. Connections hold what they use,
/// so that this bounds only what is kept in case it is asked for again.
const MAX_KNOWN: usize = 10_000;
