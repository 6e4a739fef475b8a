//! Profiles of the destinations that requests name: they give inbound metrics their routes.

use crate::{Config, Discover};
use linkerd_policy::{Profile, profile::LookupTarget};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

pub(crate) struct Profiles {
    discover: Arc<dyn Discover>,
    suffixes: Vec<String>,
    timeout: Duration,
    idle_timeout: Duration,
    known: Mutex<HashMap<Arc<str>, Known>>,
}

struct Known {
    receiver: watch::Receiver<Option<Arc<Profile>>>,
    used: Instant,
    /// Nobody waits for an answer that did not come in time once.
    late: bool,
}

impl Profiles {
    pub(crate) fn new(config: &Config, discover: Arc<dyn Discover>) -> Self {
        Self {
            discover,
            suffixes: config.profile_suffixes.clone(),
            timeout: config.profile_timeout,
            idle_timeout: config.discovery_idle_timeout,
            known: Mutex::default(),
        }
    }

    /// What can be said at once about `name:port`.
    pub(crate) fn known(&self, authority: &str) -> Option<Option<Arc<Profile>>> {
        let mut known = self.known.lock();
        let Some(entry) = known.get_mut(authority) else {
            return (!self.is_service(authority)).then_some(None);
        };
        entry.used = Instant::now();
        match &*entry.receiver.borrow() {
            Some(profile) => Some(Some(profile.clone()).filter(|p| p.logical.is_some())),
            None => entry.late.then_some(None),
        }
    }

    /// The profile of `name:port`, when it is of a service and comes in time.
    pub(crate) async fn of(&self, authority: &str) -> Option<Arc<Profile>> {
        if let Some(known) = self.known(authority) {
            return known;
        }
        let mut receiver = {
            let mut known = self.known.lock();
            match known.get_mut(authority) {
                Some(entry) => entry.receiver.clone(),
                None => self.look_up(&mut known, authority)?,
            }
        };
        let found = match timeout(self.timeout, receiver.wait_for(Option::is_some)).await {
            Ok(Ok(profile)) => profile.clone(),
            Ok(Err(_)) => None,
            Err(_) => {
                if let Some(entry) = self.known.lock().get_mut(authority) {
                    entry.late = true;
                }
                None
            }
        };
        found.filter(|p| p.logical.is_some())
    }

    fn look_up(
        &self,
        known: &mut HashMap<Arc<str>, Known>,
        authority: &str,
    ) -> Option<watch::Receiver<Option<Arc<Profile>>>> {
        let now = Instant::now();
        if known.len() >= MAX_PROFILES {
            known.retain(|_, k| now - k.used < self.idle_timeout);
            if known.len() >= MAX_PROFILES {
                return None;
            }
        }
        let name: Arc<str> = authority.into();
        let receiver = self.discover.profile(LookupTarget::Name(name.clone()));
        known.insert(
            name,
            Known {
                receiver: receiver.clone(),
                used: now,
                late: false,
            },
        );
        Some(receiver)
    }

    fn is_service(&self, authority: &str) -> bool {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = host.strip_suffix('.').unwrap_or(host);
        self.suffixes.iter().any(|suffix| {
            suffix.is_empty()
                || host
                    .strip_suffix(suffix.as_str())
                    .is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
        })
    }
}

const MAX_PROFILES: usize = 1_000;
