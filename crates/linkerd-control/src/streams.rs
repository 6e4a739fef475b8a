//! What each stream's messages do to the value that is watched.

use crate::{
    control::PolicyAnswer,
    convert::{self, Invalid},
    subscription::{End, Subscriber},
};
use linkerd_policy::{EndpointSet, Profile, ServerPolicy};
use linkerd_proto::{destination as dst, inbound, outbound};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    ops::ControlFlow::{self, Break, Continue},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tonic::{Code, Status};

/// Codes that say the question itself is wrong: asking again would give the same answer.
fn is_rejected(status: &Status) -> bool {
    matches!(status.code(), Code::InvalidArgument | Code::FailedPrecondition)
}

/// The endpoints of an authority. The first `add` of a stream is the whole set, later messages change it.
pub(crate) struct Endpoints {
    pub(crate) authority: Arc<str>,
    pub(crate) watch: watch::Sender<Option<Arc<EndpointSet>>>,
    /// Whether this stream has not yet said what the set is.
    pub(crate) fresh: bool,
}

impl Endpoints {
    fn replace(&mut self, set: EndpointSet) {
        self.fresh = false;
        self.watch.send_if_modified(|current| {
            let changed = current.as_deref() != Some(&set);
            if changed {
                *current = Some(Arc::new(set));
            }
            changed
        });
    }

    fn add(&mut self, added: dst::WeightedAddrSet) {
        let added = convert::endpoints(added);
        if added.is_empty() && !self.fresh {
            return;
        }
        let mut set = if self.fresh {
            EndpointSet::default()
        } else {
            self.current()
        };
        set.exists = true;
        set.endpoints.extend(
            added
                .into_iter()
                .map(|endpoint| (endpoint.addr, Arc::new(endpoint))),
        );
        self.replace(set);
    }

    fn remove(&mut self, removed: dst::AddrSet) {
        // Before a stream's first `add` there is nothing of its own to remove from.
        if self.fresh {
            return;
        }
        let mut set = self.current();
        for addr in removed
            .addrs
            .into_iter()
            .filter_map(|addr| convert::socket_addr(addr).ok())
        {
            set.endpoints.remove(&addr);
        }
        self.replace(set);
    }

    fn current(&self) -> EndpointSet {
        self.watch.borrow().as_deref().cloned().unwrap_or_default()
    }
}

impl Subscriber<dst::Update> for Endpoints {
    fn opened(&mut self) {
        self.fresh = true;
    }

    fn message(&mut self, message: dst::Update) {
        match message.update {
            Some(dst::update::Update::Add(added)) => self.add(added),
            Some(dst::update::Update::Remove(removed)) => self.remove(removed),
            Some(dst::update::Update::NoEndpoints(none)) => {
                self.replace(EndpointSet {
                    exists: none.exists,
                    ..EndpointSet::default()
                });
            }
            None => {}
        }
    }

    fn ended(&mut self, end: &End) -> ControlFlow<(), Option<Duration>> {
        match end {
            End::Failed(status) if is_rejected(status) => {
                tracing::debug!(authority = %self.authority, message = status.message(), "not a destination");
                self.replace(EndpointSet::default());
                Break(())
            }
            // A server that is there and names no endpoint has none: what an earlier one said no longer holds.
            End::Silent => {
                self.replace(EndpointSet {
                    exists: true,
                    ..EndpointSet::default()
                });
                Continue(None)
            }
            End::Failed(status) if status.code() == Code::NotFound => {
                self.replace(EndpointSet::default());
                Continue(None)
            }
            _ => Continue(None),
        }
    }
}

/// The profile of an address or name.
pub(crate) struct Profiles {
    pub(crate) port: u16,
    pub(crate) watch: watch::Sender<Option<Arc<Profile>>>,
}

impl Subscriber<dst::DestinationProfile> for Profiles {
    fn message(&mut self, message: dst::DestinationProfile) {
        let profile = convert::profile(message, self.port);
        self.watch.send_if_modified(|current| replaced(current, profile));
    }

    fn ended(&mut self, end: &End) -> ControlFlow<(), Option<Duration>> {
        match end {
            End::Failed(status) if is_rejected(status) || status.code() == Code::Unimplemented => {
                self.watch
                    .send_if_modified(|current| replaced(current, Profile::default()));
                Break(())
            }
            _ => Continue(None),
        }
    }
}

fn replaced<T: PartialEq>(current: &mut Option<Arc<T>>, new: T) -> bool {
    let changed = current.as_deref() != Some(&new);
    if changed {
        *current = Some(Arc::new(new));
    }
    changed
}

/// The policy for reaching an address or name.
pub(crate) struct OutboundPolicies {
    pub(crate) detect_timeout: Duration,
    pub(crate) watch: watch::Sender<Option<PolicyAnswer>>,
}

impl Subscriber<outbound::OutboundPolicy> for OutboundPolicies {
    fn message(&mut self, message: outbound::OutboundPolicy) {
        let policy =
            convert::client_policy(message, self.detect_timeout).unwrap_or_else(|Invalid(reason)| {
                tracing::warn!(error = %reason, "invalid outbound policy");
                linkerd_policy::ClientPolicy::invalid(reason)
            });
        let answer = Some(PolicyAnswer::Policy(Arc::new(policy)));
        self.watch.send_if_modified(|current| {
            let changed = *current != answer;
            *current = answer;
            changed
        });
    }

    /// "No policy" is an answer; there may be one later.
    fn ended(&mut self, end: &End) -> ControlFlow<(), Option<Duration>> {
        match end {
            End::Failed(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
                self.watch.send_if_modified(|current| {
                    let changed = *current != Some(PolicyAnswer::NotFound);
                    *current = Some(PolicyAnswer::NotFound);
                    changed
                });
                Continue(Some(NOT_FOUND_PAUSE.mul_f32(1.0 + rand::random::<f32>() / 2.0)))
            }
            _ => Continue(None),
        }
    }
}

/// Before asking again whether an address has got a policy.
const NOT_FOUND_PAUSE: Duration = Duration::from_secs(10);

/// The policy of a port of this pod.
pub(crate) struct InboundPolicies {
    pub(crate) port: u16,
    pub(crate) watch: watch::Sender<Arc<ServerPolicy>>,
    pub(crate) heard: Arc<Heard>,
}

/// When the control plane last spoke of each port that is watched.
#[derive(Debug, Default)]
pub(crate) struct Heard(Mutex<HashMap<u16, Instant>>);

impl Heard {
    pub(crate) fn ago(&self, port: u16) -> Option<Duration> {
        self.0.lock().get(&port).map(Instant::elapsed)
    }
}

impl Drop for InboundPolicies {
    fn drop(&mut self) {
        self.heard.0.lock().remove(&self.port);
    }
}

impl Subscriber<inbound::Server> for InboundPolicies {
    fn message(&mut self, message: inbound::Server) {
        self.heard.0.lock().insert(self.port, Instant::now());
        let policy = convert::server_policy(message).unwrap_or_else(|Invalid(reason)| {
            tracing::warn!(port = self.port, error = %reason, "invalid inbound policy");
            ServerPolicy::invalid(reason)
        });
        self.watch.send_if_modified(|current| {
            let changed = **current != policy;
            if changed {
                *current = Arc::new(policy);
            }
            changed
        });
    }

    fn ended(&mut self, end: &End) -> ControlFlow<(), Option<Duration>> {
        match end {
            End::Failed(status) if is_rejected(status) => {
                tracing::warn!(
                    port = self.port,
                    error = status.message(),
                    "inbound policy refused; the default stays"
                );
                Break(())
            }
            _ => Continue(None),
        }
    }
}

#[cfg(test)]
mod tests;
