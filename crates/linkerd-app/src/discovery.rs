//! What the proxy believes, for people: the answer of `/discovery.json`.

use linkerd_control::{Control, PolicyAnswer};
use linkerd_policy::{Endpoint, EndpointSet, Profile, ServerPolicy, client, server};
use linkerd_tls::Credentials;
use serde_json::{Value, json};
use std::time::UNIX_EPOCH;

pub(crate) fn describe(control: &Control, credentials: &Credentials) -> Value {
    let mut endpoints = control.known_endpoints();
    let mut profiles = control.known_profiles();
    let mut outbound = control.known_outbound_policies();
    let mut inbound = control.known_inbound_policies();
    endpoints.sort_by(|a, b| a.0.cmp(&b.0));
    profiles.sort_by(|a, b| a.0.cmp(&b.0));
    outbound.sort_by(|a, b| a.0.cmp(&b.0));
    inbound.sort_by_key(|(port, ..)| *port);
    json!({
        "identity": identity(credentials),
        "inbound": inbound.iter().map(|(port, policy, _)| server_policy(*port, policy)).collect::<Vec<_>>(),
        "outbound": {
            "policies": outbound.iter().map(|(target, answer)| client_policy(target, answer.as_ref())).collect::<Vec<_>>(),
            "profiles": profiles.iter().map(|(target, known)| profile(target, known.as_deref())).collect::<Vec<_>>(),
            "endpoints": endpoints.iter().map(|(authority, set)| endpoint_set(authority, set.as_deref())).collect::<Vec<_>>(),
        },
    })
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
    let authorizations: Vec<_> = policy
        .authorizations
        .iter()
        .map(|authz| authz.meta.to_string())
        .collect();
    json!({ "port": port, "protocol": protocol, "policy": policy.meta.to_string(), "authorizations": authorizations })
}

fn client_policy(target: &str, answer: Option<&PolicyAnswer>) -> Value {
    let (state, parent) = match answer {
        None => ("waiting", None),
        Some(PolicyAnswer::NotFound) => ("none", None),
        Some(PolicyAnswer::Policy(policy)) => (protocol(&policy.protocol), Some(policy.parent.to_string())),
    };
    json!({ "target": target, "protocol": state, "parent": parent })
}

fn protocol(protocol: &client::Protocol) -> &'static str {
    match protocol {
        client::Protocol::Detect { .. } => "detect",
        client::Protocol::Http1(_) => "http1",
        client::Protocol::Http2(_) => "http2",
        client::Protocol::Grpc(_) => "grpc",
        client::Protocol::Opaque(_) => "opaque",
        client::Protocol::Tls(_) => "tls",
        client::Protocol::Invalid(_) => "invalid",
    }
}

fn profile(target: &str, known: Option<&Profile>) -> Value {
    json!({
        "target": target,
        "known": known.is_some(),
        "name": known.and_then(|p| p.logical.as_deref()),
        "opaque": known.is_some_and(|p| p.opaque),
        "routes": known.map_or(0, |p| p.routes.len()),
        "targets": known.map(|p| p.targets.iter().map(|t| json!({ "authority": &*t.authority, "weight": t.weight })).collect::<Vec<_>>()),
    })
}

fn endpoint_set(authority: &str, set: Option<&EndpointSet>) -> Value {
    json!({
        "authority": authority,
        "known": set.is_some(),
        "exists": set.is_some_and(|set| set.exists),
        "endpoints": set.map(|set| set.endpoints.values().map(|e| endpoint(e)).collect::<Vec<_>>()),
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.addr.to_string(),
        "identity": endpoint.tls.as_ref().map(|tls| tls.server_id.as_str()),
        "weight": endpoint.weight,
        "protocol_hint": format!("{:?}", endpoint.hint).to_lowercase(),
        "labels": &*endpoint.labels,
    })
}
