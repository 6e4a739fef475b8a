//! The series of policies' routes and of their backends.

use linkerd_http::StreamRecord;
use linkerd_metrics::{
    Bounded, ByProtocol, Labels, Registry, RetryFamilies, RetrySeries, RouteProtocol, StreamFamilies,
    StreamSeries, outbound_backends, outbound_routes,
};
use linkerd_policy::Meta;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Instant};

#[derive(Debug)]
pub(crate) struct RouteFamilies {
    routes: ByProtocol<StreamFamilies>,
    retries: ByProtocol<RetryFamilies>,
    backends: ByProtocol<StreamFamilies>,
    /// Absent unless the hosts that applications name are wanted as a label.
    hostnames: Option<Arc<Bounded>>,
}

/// The series of one route, resolved when its plan is made.
#[derive(Debug)]
pub(crate) struct RouteSeries {
    pub(crate) protocol: RouteProtocol,
    all: Arc<HostSeries>,
    hosts: Option<Hosts>,
}

/// The series of one route, and of one host when they are told apart.
#[derive(Debug)]
pub(crate) struct HostSeries {
    pub(crate) stream: Arc<StreamSeries>,
    pub(crate) retries: RetrySeries,
}

#[derive(Debug)]
struct Hosts {
    routes: StreamFamilies,
    retries: RetryFamilies,
    labels: Labels,
    names: Arc<Bounded>,
    known: Mutex<HashMap<Arc<str>, Arc<HostSeries>>>,
}

/// The series of one route's backend.
#[derive(Debug)]
pub(crate) struct BackendSeries {
    protocol: RouteProtocol,
    stream: Arc<StreamSeries>,
}

impl RouteFamilies {
    pub(crate) fn new(registry: &Registry, hostnames: bool) -> Self {
        Self {
            routes: outbound_routes(registry),
            retries: RetryFamilies::new(registry),
            backends: outbound_backends(registry),
            hostnames: hostnames.then(|| Arc::new(registry.bounded("hostname", MAX_HOSTS))),
        }
    }

    pub(crate) fn route(&self, protocol: RouteProtocol, parent: &Meta, route: &Meta) -> RouteSeries {
        let labels = resource("parent", parent).join(&route_labels(route));
        let (routes, retries) = (self.routes.of(protocol), self.retries.of(protocol));
        RouteSeries {
            protocol,
            all: Arc::new(host_series(routes, retries, &labels, "")),
            hosts: self.hostnames.as_ref().map(|names| Hosts {
                routes: routes.clone(),
                retries: retries.clone(),
                labels,
                names: names.clone(),
                known: Mutex::default(),
            }),
        }
    }

    pub(crate) fn backend(
        &self,
        protocol: RouteProtocol,
        parent: &Meta,
        route: &Meta,
        backend: &Meta,
    ) -> BackendSeries {
        let labels = resource("parent", parent)
            .join(&route_labels(route))
            .join(&resource("backend", backend));
        BackendSeries {
            protocol,
            stream: Arc::new(self.backends.of(protocol).series(&labels)),
        }
    }
}

impl RouteSeries {
    /// The series of a request to `host`.
    pub(crate) fn of(&self, host: Option<&str>) -> Arc<HostSeries> {
        let Some(hosts) = &self.hosts else {
            return self.all.clone();
        };
        let name = hosts.names.admit(&host.unwrap_or("").to_ascii_lowercase());
        let mut known = hosts.known.lock();
        if let Some(series) = known.get(&name) {
            return series.clone();
        }
        // Names that have not come for long are forgotten, so others may take their places.
        if known.len() > MAX_HOSTS {
            known.clear();
        }
        let series = Arc::new(host_series(&hosts.routes, &hosts.retries, &hosts.labels, &name));
        known.insert(name, series.clone());
        series
    }
}

impl BackendSeries {
    /// Counts an attempt of the request that `route` follows.
    pub(crate) fn begin(&self, route: &StreamRecord) -> StreamRecord {
        StreamRecord::begin(&self.stream, self.protocol, Instant::now()).sent_with(route)
    }
}

fn host_series(routes: &StreamFamilies, retries: &RetryFamilies, labels: &Labels, host: &str) -> HostSeries {
    let labels = labels.clone().with("hostname", host);
    HostSeries {
        stream: Arc::new(routes.series(&labels)),
        retries: retries.series(&labels),
    }
}

fn route_labels(route: &Meta) -> Labels {
    Labels::new()
        .with("route_group", route.group())
        .with("route_kind", route.kind())
        .with("route_namespace", route.namespace())
        .with("route_name", route.name())
}

/// All that identifies a service or the like.
fn resource(prefix: &str, meta: &Meta) -> Labels {
    let port = meta.port().map(|port| port.to_string()).unwrap_or_default();
    [
        ("group", meta.group()),
        ("kind", meta.kind()),
        ("namespace", meta.namespace()),
        ("name", meta.name()),
        ("port", &port),
        ("section_name", meta.section()),
    ]
    .iter()
    .fold(Labels::new(), |labels, (key, value)| {
        labels.with(&format!("{prefix}_{key}"), value)
    })
}

const MAX_HOSTS: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_million_hosts_take_no_room() {
        let registry = Registry::new(Duration::from_secs(60));
        let families = RouteFamilies::new(&registry, true);
        let meta = Meta::default_named("x");
        let route = families.route(RouteProtocol::Http, &meta, &meta);
        for n in 0..1_000_000 {
            let series = route.of(Some(&format!("host-{n}")));
            drop(StreamRecord::begin(
                &series.stream,
                route.protocol,
                Instant::now(),
            ));
        }
        let mut text = String::new();
        registry.render(&mut text);
        let lines = text
            .lines()
            .filter(|l| l.starts_with("outbound_http_route_request_statuses_total{"));
        assert_eq!(lines.count(), MAX_HOSTS + 1);
        assert!(text.contains("proxy_metrics_overflow_total{family=\"hostname\"} 999500\n"));
        assert_eq!(route.hosts.unwrap().known.lock().len(), MAX_HOSTS + 1);
    }
}
