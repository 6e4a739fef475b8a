//! What the outbound proxy believes, for people to look at.

use crate::{
    Outbound,
    backend::InUse,
    destination::Destination,
    plan::{self, Distribution, Http, Plan, Protocol},
};
use linkerd_balance::Status;
use std::{sync::Arc, time::Duration};

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// In the order of their targets.
    pub targets: Vec<Target>,
    /// In the order of their authorities.
    pub balancers: Vec<Balancer>,
}

/// What an application has connected to lately: an address, or in ingress mode also a name.
#[derive(Clone, Debug)]
pub struct Target {
    pub target: String,
    /// Somebody holds a connection to it.
    pub in_use: bool,
    /// Absent until discovery has answered.
    pub plan: Option<Policy>,
}

/// What is done with the connections to a target.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How often discovery has changed it so far, the first answer included.
    pub revision: u64,
    /// Since the last change.
    pub age: Duration,
    pub protocol: &'static str,
    /// The resource that the policy belongs to.
    pub parent: String,
    /// The service of the profile, when it is the profile that routes.
    pub profile: Option<String>,
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug)]
pub struct Route {
    pub name: String,
    pub backends: Vec<Backend>,
}

#[derive(Clone, Debug)]
pub struct Backend {
    pub name: String,
    pub weight: u32,
    /// Requests to it fail at once, because it has had no endpoint for too long.
    pub failfast: bool,
}

/// The endpoints of an authority.
#[derive(Clone, Debug)]
pub struct Balancer {
    pub authority: String,
    /// The service that was split, when requests come here by a split.
    pub split_of: Option<String>,
    /// Discovery has answered.
    pub known: bool,
    pub failfast: bool,
    /// Requests that wait for an endpoint.
    pub waiting: usize,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug)]
pub struct Endpoint {
    pub addr: String,
    /// The identity that it has to prove; absent: plain text.
    pub identity: Option<String>,
    /// `ready`, `ejected` or `unreachable`.
    pub state: &'static str,
    /// Until it is tried again, unless it is ready.
    pub retry_in: Option<Duration>,
    /// As the balancer estimates it.
    pub latency: Duration,
    /// Requests under way.
    pub pending: u32,
    /// 10000 is the weight of an ordinary one.
    pub weight: u32,
    /// How long this proxy has known it.
    pub age: Duration,
    pub labels: Arc<linkerd_policy::Labels>,
}

impl Outbound {
    /// What it believes now.
    #[must_use]
    pub fn inspect(&self) -> Snapshot {
        let mut targets = self.destinations.each(target);
        targets.sort_by(|a, b| a.target.cmp(&b.target));
        let mut balancers: Vec<_> = self.backends.in_use().iter().map(balancer).collect();
        balancers.sort_by(|a, b| (&a.authority, &a.split_of).cmp(&(&b.authority, &b.split_of)));
        Snapshot { targets, balancers }
    }
}

fn target(destination: &Destination, in_use: bool) -> Target {
    Target {
        target: destination.target.to_string(),
        in_use,
        plan: destination.current().map(|plan| policy(&plan)),
    }
}

fn policy(plan: &Plan) -> Policy {
    let (protocol, profile, routes) = match &plan.protocol {
        Protocol::Detect { http1, .. } => with_http("detect", http1),
        Protocol::Http1(http) => with_http("http1", http),
        Protocol::Http2(http) => with_http("http2", http),
        Protocol::Bytes(bytes) => ("opaque", None, vec![of_bytes("opaque".into(), bytes)]),
        Protocol::Tls(routes) => {
            let each = routes.iter().map(|r| of_bytes(r.names(), &r.bytes));
            ("tls", None, each.collect())
        }
        Protocol::Invalid(reason) => (
            "invalid",
            None,
            vec![route(reason.to_string(), &Distribution::default())],
        ),
    };
    Policy {
        revision: plan.revision,
        age: plan.made.elapsed(),
        protocol,
        parent: plan.parent.to_string(),
        profile,
        routes,
    }
}

fn with_http(name: &'static str, http: &Http) -> (&'static str, Option<String>, Vec<Route>) {
    match http {
        Http::Profile(profile) => {
            let targets = route("targets".into(), &profile.targets);
            (name, Some(profile.authority.to_string()), vec![targets])
        }
        Http::Routes(routes) => (
            name,
            None,
            routes.iter().flat_map(|r| rules(&r.value, &r.rules)).collect(),
        ),
        Http::Grpc(routes) => (
            name,
            None,
            routes.iter().flat_map(|r| rules(&r.value, &r.rules)).collect(),
        ),
    }
}

fn rules<M>(meta: &linkerd_policy::Meta, rules: &[linkerd_policy::route::Rule<M, plan::Rule>]) -> Vec<Route> {
    rules
        .iter()
        .map(|rule| route(meta.to_string(), &rule.value.backends))
        .collect()
}

fn of_bytes(name: String, bytes: &plan::Bytes) -> Route {
    route(name, &bytes.backends)
}

fn route(name: String, backends: &Distribution) -> Route {
    let backends = backends.each().map(|(backend, weight)| Backend {
        name: backend.name.clone(),
        weight,
        failfast: backend.is_failfast(),
    });
    Route {
        name,
        backends: backends.collect(),
    }
}

fn balancer(in_use: &InUse) -> Balancer {
    let balancer = &in_use.balancer;
    Balancer {
        authority: in_use.authority.to_string(),
        split_of: in_use.how.logical.as_ref().map(ToString::to_string),
        known: balancer.is_known(),
        failfast: balancer.is_failfast(),
        waiting: balancer.waiting(),
        endpoints: balancer.status().iter().map(endpoint).collect(),
    }
}

fn endpoint(status: &Status) -> Endpoint {
    let spec = &status.endpoint;
    Endpoint {
        addr: spec.addr.to_string(),
        identity: spec.tls.as_ref().map(|tls| tls.server_id.to_string()),
        state: status.state.as_str(),
        retry_in: status.retry_in,
        latency: status.load,
        pending: status.pending,
        weight: spec.weight,
        age: status.age,
        labels: spec.labels.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;
    use linkerd_policy::{Endpoint as Spec, EndpointSet, Meta, client};

    #[tokio::test]
    async fn targets_and_endpoints_are_told() {
        let fake = Fake::default();
        let addr: std::net::SocketAddr = "10.0.0.1:80".parse().unwrap();
        let set = EndpointSet {
            endpoints: [(addr, Arc::new(Spec::bare(addr)))].into(),
            exists: true,
        };
        fake.endpoints("web:80", set);
        let dispatch = client::Dispatch::Balance {
            authority: "web:80".into(),
            load: client::Load::default(),
        };
        let meta = Meta::resource("core", "Service", "test", "web");
        let policy = client::ClientPolicy::without_routes(dispatch, &meta, Duration::from_secs(1));
        fake.policy(policy.clone());
        let outbound = fake.outbound();
        let target = linkerd_policy::profile::LookupTarget::Addr("10.1.2.3:80".parse().unwrap());
        let destination = outbound.destinations.of(&outbound, &target);
        destination.plan(Duration::from_secs(1)).await.unwrap();
        fake.settled(|| {
            let seen = outbound.inspect();
            seen.balancers.first().is_some_and(|b| b.known)
        })
        .await;
        let seen = outbound.inspect();
        let plan = seen.targets[0].plan.as_ref().unwrap();
        assert_eq!(
            (
                &*seen.targets[0].target,
                seen.targets[0].in_use,
                plan.revision,
                plan.protocol,
                &*plan.parent
            ),
            ("10.1.2.3:80", true, 1, "detect", "Service.test.web")
        );
        assert_eq!(
            plan.routes[0].backends[0].name,
            "backend Service.test.web: web:80"
        );
        let endpoint = &seen.balancers[0].endpoints[0];
        assert_eq!(
            (&*endpoint.addr, endpoint.state, endpoint.pending),
            ("10.0.0.1:80", "ready", 0)
        );
        fake.policy(client::ClientPolicy::invalid("unreadable"));
        fake.settled(|| {
            let plan = outbound.inspect().targets[0].plan.clone().unwrap();
            (plan.revision, plan.protocol) == (2, "invalid")
        })
        .await;
    }
}
