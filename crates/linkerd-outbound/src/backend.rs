//! Destinations of routes: balancers that follow discovery.

use crate::{Outbound, endpoint::Endpoint, metrics};
use linkerd_balance::{Balancer, Params, Picked};
use linkerd_metrics::{HttpSeries, Labels};
use linkerd_policy::{
    Endpoint as Spec, EndpointSet, Meta,
    client::{self, Dispatch, FailureAccrual, Queue},
};
use linkerd_stack::Error;
use linkerd_tls::{ClientTls, NoClientTls};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::SocketAddr,
    ops::Deref,
    sync::{Arc, OnceLock, Weak},
};
use tokio::sync::{oneshot, watch};
use tracing::debug;

pub(crate) type PickedEndpoint = Picked<Arc<Endpoint>>;

/// Where a route sends requests.
#[derive(Debug)]
pub(crate) struct Backend {
    /// What it is called in errors.
    pub(crate) name: String,
    pub(crate) meta: Arc<Meta>,
    balancer: Option<Arc<Balanced>>,
    /// Counts requests that no endpoint took.
    unserved: OnceLock<Arc<HttpSeries>>,
    /// The metrics' label.
    authority: Arc<str>,
    /// What discovery is asked for, and may bring other endpoints for.
    discovered: Option<Arc<str>>,
}

/// The balancers in use, shared by all routes that send to the same authority in the same way.
#[derive(Debug, Default)]
pub(crate) struct Backends(Mutex<HashMap<Arc<str>, Vec<Shared>>>);

/// A balancer that follows discovery until nobody uses it any more.
#[derive(Debug)]
pub(crate) struct Balanced {
    balancer: Balancer<Arc<Endpoint>>,
    /// Dropped with the balancer, which ends the task that follows discovery.
    _used: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    how: How,
    balancer: Weak<Balanced>,
}

/// What besides the authority makes two balancers the same.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct How {
    pub(crate) load: client::Load,
    pub(crate) accrual: FailureAccrual,
    /// The proxy's own where the policy has none.
    pub(crate) queue: Option<Queue>,
    /// The service that was asked for, when it is another one: the metrics' `authority` of a traffic split.
    pub(crate) logical: Option<Arc<str>>,
}

/// A balancer in use, for people to look at.
pub(crate) struct InUse {
    pub(crate) authority: Arc<str>,
    pub(crate) how: How,
    pub(crate) balancer: Arc<Balanced>,
}

impl Backend {
    /// `backend` as its policy describes it.
    pub(crate) fn new(outbound: &Arc<Outbound>, backend: &client::Backend, accrual: FailureAccrual) -> Self {
        let (meta, queue) = (&backend.meta, backend.queue);
        match &backend.dispatch {
            Dispatch::Balance { authority, load } => {
                let how = How {
                    load: *load,
                    accrual,
                    queue,
                    logical: None,
                };
                Self::balanced(outbound, meta, authority, how)
            }
            Dispatch::Forward(endpoint) => Self::forward(outbound, meta, endpoint, accrual, queue),
            Dispatch::Unknown => Self {
                name: format!("backend {meta}"),
                meta: meta.clone(),
                balancer: None,
                unserved: OnceLock::new(),
                authority: "".into(),
                discovered: None,
            },
        }
    }

    /// The endpoints that discovery knows for `authority`.
    pub(crate) fn balanced(
        outbound: &Arc<Outbound>,
        meta: &Arc<Meta>,
        authority: &Arc<str>,
        how: How,
    ) -> Self {
        Self {
            name: format!("backend {meta}: {authority}"),
            meta: meta.clone(),
            authority: how.logical.as_ref().unwrap_or(authority).clone(),
            balancer: Some(outbound.backends.balancer(outbound, authority, how)),
            unserved: OnceLock::new(),
            discovered: Some(authority.clone()),
        }
    }

    /// A single endpoint behaves as a balancer with one.
    pub(crate) fn forward(
        outbound: &Outbound,
        meta: &Arc<Meta>,
        spec: &Arc<Spec>,
        accrual: FailureAccrual,
        queue: Option<Queue>,
    ) -> Self {
        let (used, _) = oneshot::channel();
        let balancer = Balanced {
            balancer: Balancer::new(params(outbound, client::Load::default(), accrual, queue)),
            _used: used,
        };
        let set = EndpointSet {
            endpoints: [(spec.addr, spec.clone())].into(),
            exists: true,
        };
        balancer.update(&set, |spec| Arc::new(Endpoint::new(outbound, spec, "")));
        Self {
            name: format!("endpoint {}", spec.addr),
            meta: meta.clone(),
            balancer: Some(Arc::new(balancer)),
            unserved: OnceLock::new(),
            authority: "".into(),
            discovered: None,
        }
    }

    pub(crate) async fn pick(&self, avoid: &[SocketAddr]) -> Result<PickedEndpoint, Error> {
        self.balancer()?
            .pick(avoid)
            .await
            .map_err(|e| e.within(&self.name))
    }

    /// Another endpoint, if one is available now.
    pub(crate) fn pick_now(&self, avoid: &[SocketAddr]) -> Option<PickedEndpoint> {
        self.balancer
            .as_ref()?
            .pick_now(avoid)
            .filter(|p| !avoid.contains(&p.addr()))
    }

    /// Whether waiting may help when no endpoint is available: others may come, or the same one come back.
    pub(crate) const fn may_recover(&self) -> bool {
        self.discovered.is_some()
    }

    fn balancer(&self) -> Result<&Balancer<Arc<Endpoint>>, Error> {
        let missing = || {
            Error::new(
                linkerd_stack::Cause::NoBackend,
                format!("{} has no dispatcher", self.name),
            )
        };
        self.balancer.as_deref().map(|b| &**b).ok_or_else(missing)
    }

    /// Whether requests to it would fail at once.
    pub(crate) fn is_failfast(&self) -> bool {
        self.balancer.as_ref().is_some_and(|b| b.is_failfast())
    }

    /// Name and namespace of its service, where its policy says so or its authority is one of the cluster.
    fn service(&self) -> Option<(&str, &str)> {
        if self.meta.kind() == "Service" {
            return Some((self.meta.name(), self.meta.namespace()));
        }
        let mut labels = self.discovered.as_deref()?.split('.');
        let (service, namespace) = (labels.next()?, labels.next()?);
        (labels.next()? == "svc").then_some((service, namespace))
    }

    /// The series of requests that reached no endpoint.
    pub(crate) fn unserved(&self, outbound: &Outbound) -> Arc<HttpSeries> {
        let make = || {
            let tls = ClientTls::None(NoClientTls::NotProvidedByServiceDiscovery);
            let mut labels = Labels::new()
                .with("direction", "outbound")
                .with("authority", &self.authority)
                .join(&metrics::tls(&tls));
            if let Some((service, namespace)) = self.service() {
                labels.push("dst_service", service);
                labels.push("dst_namespace", namespace);
            }
            Arc::new(outbound.metrics.http.series(labels))
        };
        self.unserved.get_or_init(make).clone()
    }
}

fn params(outbound: &Outbound, load: client::Load, accrual: FailureAccrual, queue: Option<Queue>) -> Params {
    let config = &outbound.config;
    Params {
        failfast: queue.map_or(config.failfast, |q| q.failfast),
        queue: queue.map_or(config.queue, |q| q.capacity),
        load,
        accrual,
        reconnect: config.reconnect,
    }
}

impl Backends {
    fn balancer(&self, outbound: &Arc<Outbound>, authority: &Arc<str>, how: How) -> Arc<Balanced> {
        let mut all = self.0.lock();
        all.retain(|_, shared| {
            shared.retain(|s| s.balancer.strong_count() > 0);
            !shared.is_empty()
        });
        let shared = all.entry(authority.clone()).or_default();
        let same = shared.iter().find(|s| s.how == how);
        if let Some(balancer) = same.and_then(|s| s.balancer.upgrade()) {
            return balancer;
        }
        let (used, unused) = oneshot::channel();
        let balancer = Arc::new(Balanced {
            balancer: Balancer::new(params(outbound, how.load, how.accrual, how.queue)),
            _used: used,
        });
        let updates = outbound.discover.endpoints(authority);
        tokio::spawn(follow(
            outbound.clone(),
            how.logical.as_ref().unwrap_or(authority).clone(),
            Arc::downgrade(&balancer),
            unused,
            updates,
        ));
        shared.push(Shared {
            how,
            balancer: Arc::downgrade(&balancer),
        });
        balancer
    }

    /// All balancers, for people to look at.
    pub(crate) fn in_use(&self) -> Vec<InUse> {
        let all = self.0.lock();
        let each = all.iter().flat_map(|(authority, shared)| {
            shared.iter().filter_map(|s| {
                Some(InUse {
                    authority: authority.clone(),
                    how: s.how.clone(),
                    balancer: s.balancer.upgrade()?,
                })
            })
        });
        each.collect()
    }
}

/// Keeps a balancer up to date as long as somebody uses it.
async fn follow(
    outbound: Arc<Outbound>,
    authority: Arc<str>,
    balancer: Weak<Balanced>,
    mut unused: oneshot::Receiver<()>,
    mut updates: watch::Receiver<Option<Arc<EndpointSet>>>,
) {
    loop {
        let set = updates.borrow_and_update().clone();
        let Some(balancer) = balancer.upgrade() else {
            return;
        };
        if let Some(set) = set {
            debug!(%authority, endpoints = set.endpoints.len(), "endpoints changed");
            balancer.update(&set, |spec| Arc::new(Endpoint::new(&outbound, spec, &authority)));
        }
        drop(balancer);
        tokio::select! {
            changed = updates.changed() => if changed.is_err() {
                return;
            },
            _ = &mut unused => return,
        }
    }
}

impl Deref for Balanced {
    type Target = Balancer<Arc<Endpoint>>;

    fn deref(&self) -> &Self::Target {
        &self.balancer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;

    #[tokio::test]
    async fn endpoints_are_watched_only_as_long_as_somebody_sends_to_them() {
        let fake = Fake::default();
        let outbound = fake.outbound();
        let how = How {
            load: client::Load::default(),
            accrual: FailureAccrual::NONE,
            queue: None,
            logical: None,
        };
        let meta = Meta::default_named("test");
        let backend = || Backend::balanced(&outbound, &meta, &"web:80".into(), how.clone());
        let (first, second) = (backend(), backend());
        assert_eq!(fake.watchers("web:80"), 1);
        drop((first, second));
        fake.settled(|| fake.watchers("web:80") == 0).await;
    }
}
