//! Destinations of routes: balancers that follow discovery.

use crate::{Outbound, endpoint::Endpoint, metrics};
use linkerd_balance::{Balancer, Params, Picked};
use linkerd_metrics::{HttpSeries, Labels};
use linkerd_policy::{
    Endpoint as Spec, EndpointSet, Meta,
    client::{self, Dispatch, FailureAccrual},
};
use linkerd_stack::Error;
use linkerd_tls::{ClientTls, NoClientTls};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, OnceLock, Weak},
};
use tokio::sync::watch;
use tracing::debug;

pub(crate) type PickedEndpoint = Picked<Arc<Endpoint>>;

/// Where a route sends requests.
#[derive(Debug)]
pub(crate) struct Backend {
    /// What it is called in errors.
    pub(crate) name: String,
    pub(crate) meta: Arc<Meta>,
    balancer: Option<Arc<Balancer<Arc<Endpoint>>>>,
    /// Counts requests that no endpoint took.
    unserved: OnceLock<Arc<HttpSeries>>,
    authority: Arc<str>,
    /// Discovery may bring other endpoints.
    discovered: bool,
}

/// The balancers in use, shared by all routes that send to the same authority in the same way.
#[derive(Debug, Default)]
pub(crate) struct Backends(Mutex<HashMap<Arc<str>, Vec<Shared>>>);

#[derive(Debug)]
struct Shared {
    load: client::Load,
    accrual: FailureAccrual,
    balancer: Weak<Balancer<Arc<Endpoint>>>,
}

impl Backend {
    pub(crate) fn new(
        outbound: &Arc<Outbound>,
        meta: &Arc<Meta>,
        dispatch: &Dispatch,
        accrual: FailureAccrual,
    ) -> Self {
        let (authority, balancer): (Arc<str>, _) = match dispatch {
            Dispatch::Balance { authority, load } => (
                authority.clone(),
                Some(outbound.backends.balancer(outbound, authority, *load, accrual)),
            ),
            Dispatch::Forward(endpoint) => ("".into(), Some(forward(outbound, endpoint, accrual))),
            Dispatch::Unknown => ("".into(), None),
        };
        let name = match dispatch {
            Dispatch::Balance { authority, .. } => format!("backend {meta}: {authority}"),
            Dispatch::Forward(endpoint) => format!("endpoint {}", endpoint.addr),
            Dispatch::Unknown => format!("backend {meta}"),
        };
        Self {
            name,
            meta: meta.clone(),
            balancer,
            unserved: OnceLock::new(),
            authority,
            discovered: matches!(dispatch, Dispatch::Balance { .. }),
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
        self.discovered
    }

    fn balancer(&self) -> Result<&Balancer<Arc<Endpoint>>, Error> {
        let missing = || {
            Error::new(
                linkerd_stack::Cause::NoBackend,
                format!("{} has no dispatcher", self.name),
            )
        };
        self.balancer.as_deref().ok_or_else(missing)
    }

    /// Whether requests to it would fail at once.
    pub(crate) fn is_failfast(&self) -> bool {
        self.balancer.as_ref().is_some_and(|b| b.is_failfast())
    }

    /// The series of requests that reached no endpoint.
    pub(crate) fn unserved(&self, outbound: &Outbound) -> Arc<HttpSeries> {
        let make = || {
            let tls = ClientTls::None(NoClientTls::NotProvidedByServiceDiscovery);
            let mut labels = Labels::new()
                .with("direction", "outbound")
                .with("authority", &self.authority)
                .join(&metrics::tls(&tls));
            if self.meta.kind() == "Service" {
                labels.push("dst_service", self.meta.name());
                labels.push("dst_namespace", self.meta.namespace());
            }
            Arc::new(outbound.metrics.http.series(labels))
        };
        self.unserved.get_or_init(make).clone()
    }
}

fn params(outbound: &Outbound, load: client::Load, accrual: FailureAccrual) -> Params {
    Params {
        failfast: outbound.config.failfast,
        queue: outbound.config.queue,
        load,
        accrual,
        reconnect: outbound.config.reconnect,
    }
}

/// A single endpoint behaves as a balancer with one.
fn forward(outbound: &Outbound, spec: &Arc<Spec>, accrual: FailureAccrual) -> Arc<Balancer<Arc<Endpoint>>> {
    let balancer = Balancer::new(params(outbound, client::Load::default(), accrual));
    let set = EndpointSet {
        endpoints: [(spec.addr, spec.clone())].into(),
        exists: true,
    };
    balancer.update(&set, |spec| Arc::new(Endpoint::new(outbound, spec, "")));
    Arc::new(balancer)
}

impl Backends {
    fn balancer(
        &self,
        outbound: &Arc<Outbound>,
        authority: &Arc<str>,
        load: client::Load,
        accrual: FailureAccrual,
    ) -> Arc<Balancer<Arc<Endpoint>>> {
        let mut all = self.0.lock();
        all.retain(|_, shared| {
            shared.retain(|s| s.balancer.strong_count() > 0);
            !shared.is_empty()
        });
        let shared = all.entry(authority.clone()).or_default();
        let same = shared.iter().find(|s| s.load == load && s.accrual == accrual);
        if let Some(balancer) = same.and_then(|s| s.balancer.upgrade()) {
            return balancer;
        }
        let balancer = Arc::new(Balancer::new(params(outbound, load, accrual)));
        shared.push(Shared {
            load,
            accrual,
            balancer: Arc::downgrade(&balancer),
        });
        let updates = outbound.discover.endpoints(authority);
        tokio::spawn(follow(
            outbound.clone(),
            authority.clone(),
            Arc::downgrade(&balancer),
            updates,
        ));
        balancer
    }

    /// Calls `f` with each authority's balancer, for diagnostics.
    #[allow(dead_code, reason = "read by the admin server's diagnostics")]
    pub(crate) fn inspect(&self, mut f: impl FnMut(&str, &Balancer<Arc<Endpoint>>)) {
        for (authority, shared) in &*self.0.lock() {
            shared
                .iter()
                .filter_map(|s| s.balancer.upgrade())
                .for_each(|b| f(authority, &b));
        }
    }
}

/// Keeps a balancer up to date as long as somebody uses it.
async fn follow(
    outbound: Arc<Outbound>,
    authority: Arc<str>,
    balancer: Weak<Balancer<Arc<Endpoint>>>,
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
        if updates.changed().await.is_err() {
            return;
        }
    }
}
