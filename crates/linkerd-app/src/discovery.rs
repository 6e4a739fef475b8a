//! What the proxy believes, for people: the answer of `/discovery.json` (docs/reference/discovery-json.md).

use linkerd_control::Control;
use linkerd_inbound::{Inbound, PortView, WatchedPolicy};
use linkerd_outbound::{
    Outbound,
    inspect::{Balancer, Endpoint, Policy, Route, Target},
};
use linkerd_policy::{Profile, ServerPolicy, server};
use linkerd_tls::Credentials;
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

/// Whom it asks.
#[derive(Debug)]
pub(crate) struct Believers {
    pub(crate) inbound: Arc<Inbound>,
    pub(crate) outbound: Arc<Outbound>,
}

pub(crate) fn describe(believers: &Believers, control: &Control, credentials: &Credentials) -> Value {
    let Believers { inbound, outbound } = believers;
    let mut profiles = control.known_profiles();
    profiles.sort_by(|a, b| a.0.cmp(&b.0));
    let snapshot = outbound.inspect();
    json!({
        "identity": identity(credentials),
        "inbound": list(&inbound.inspect(), port),
        "outbound": {
            "targets": list(&snapshot.targets, target),
            "endpoints": list(&snapshot.balancers, balancer),
            "profiles": list(&profiles, |(target, known)| profile(target, known.as_deref())),
        },
    })
}

fn list<T>(values: &[T], show: impl Fn(&T) -> Value) -> Vec<Value> {
    values.iter().map(show).collect()
}

/// Exact to the millisecond.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn identity(credentials: &Credentials) -> Value {
    let until = credentials
        .valid_until()
        .and_then(|until| until.duration_since(UNIX_EPOCH).ok());
    json!({
        "name": credentials.local_id().as_str(),
        "server_name": &**credentials.server_name(),
        "certified": credentials.is_certified(),
        "valid_until": until.map(|until| until.as_secs()),
    })
}

fn port(port: &PortView) -> Value {
    let WatchedPolicy {
        port: number,
        policy,
        heard,
    } = &port.watched;
    let mut value = server_policy(*number, policy);
    value["heard_seconds"] = json!(heard.map(seconds));
    value["connections"] = json!(port.connections);
    value["used_seconds"] = json!(port.used.map(seconds));
    value
}

fn server_policy(port: u16, policy: &ServerPolicy) -> Value {
    let protocol = match &policy.protocol {
        server::Protocol::Detect { .. } => "detect",
        server::Protocol::Http1(_) => "http1",
        server::Protocol::Http2(_) => "http2",
        server::Protocol::Grpc(_) => "grpc",
        server::Protocol::Opaque => "opaque",
        server::Protocol::Tls => "tls",
        server::Protocol::Invalid(_) => "invalid",
    };
    json!({
        "port": port,
        "protocol": protocol,
        "policy": policy.meta.to_string(),
        "authorizations": list(&policy.authorizations, |authz| json!(authz.meta.to_string())),
    })
}

fn target(target: &Target) -> Value {
    json!({
        "target": target.target,
        "in_use": target.in_use,
        "policy": target.plan.as_ref().map(client_policy),
    })
}

fn client_policy(policy: &Policy) -> Value {
    json!({
        "revision": policy.revision,
        "age_seconds": seconds(policy.age),
        "protocol": policy.protocol,
        "parent": policy.parent,
        "profile": policy.profile,
        "routes": list(&policy.routes, route),
    })
}

fn route(route: &Route) -> Value {
    let backends = list(
        &route.backends,
        |backend| json!({ "name": backend.name, "weight": backend.weight, "failfast": backend.failfast }),
    );
    json!({ "name": route.name, "backends": backends })
}

fn balancer(balancer: &Balancer) -> Value {
    json!({
        "authority": balancer.authority,
        "split_of": balancer.split_of,
        "known": balancer.known,
        "failfast": balancer.failfast,
        "waiting": balancer.waiting,
        "endpoints": list(&balancer.endpoints, endpoint),
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.addr,
        "identity": endpoint.identity,
        "state": endpoint.state,
        "retry_in_seconds": endpoint.retry_in.map(seconds),
        "load": format!("{:?}", Duration::from_micros(micros(endpoint.latency))),
        "latency_seconds": endpoint.latency.as_secs_f64(),
        "pending": endpoint.pending,
        "weight": endpoint.weight,
        "age": format!("{}s", endpoint.age.as_secs()),
        "age_seconds": seconds(endpoint.age),
        "labels": &*endpoint.labels,
    })
}

fn profile(target: &str, known: Option<&Profile>) -> Value {
    let split = |p: &Profile| {
        list(
            &p.targets,
            |t| json!({ "authority": &*t.authority, "weight": t.weight }),
        )
    };
    json!({
        "target": target,
        "known": known.is_some(),
        "name": known.and_then(|p| p.logical.as_deref()),
        "opaque": known.is_some_and(|p| p.opaque),
        "routes": known.map_or(0, |p| p.routes.len()),
        "targets": known.map(split),
    })
}
