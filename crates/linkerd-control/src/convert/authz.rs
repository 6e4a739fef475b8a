//! Authorizations.

use super::{Invalid, invalid, net::network, optional_metadata};
use linkerd_policy::{Authentication, Authorization, Meta, Network, authz::IdSuffix};
use linkerd_proto::inbound;
use std::{collections::HashMap, sync::Arc};

/// All or nothing: leaving one out could open or close more than its writer meant.
pub(super) fn authorizations(messages: Vec<inbound::Authz>) -> Result<Vec<Authorization>, Invalid> {
    messages.into_iter().map(authorization).collect()
}

fn authorization(message: inbound::Authz) -> Result<Authorization, Invalid> {
    if message.networks.is_empty() {
        return Err(Invalid::missing("networks of an authorization"));
    }
    let meta = match optional_metadata(message.metadata) {
        Some(meta) => meta,
        None => meta_from_labels(&message.labels, "serverauthorization")?,
    };
    let authentication = message.authentication.and_then(|authn| authn.permit);
    Ok(Authorization {
        networks: message
            .networks
            .into_iter()
            .map(one_network)
            .collect::<Result<_, _>>()?,
        authentication: permit(authentication.ok_or_else(|| Invalid::missing("authentication"))?)?,
        meta,
    })
}

fn one_network(message: inbound::Network) -> Result<Network, Invalid> {
    let net = network(message.net.ok_or_else(|| Invalid::missing("network"))?)?;
    let except = message
        .except
        .into_iter()
        .map(network)
        .collect::<Result<_, _>>()?;
    Ok(Network { net, except })
}

fn permit(message: inbound::authn::Permit) -> Result<Authentication, Invalid> {
    use inbound::authn::{Permit, permit_mesh_tls::Clients};
    let clients = match message {
        Permit::Unauthenticated(_) => return Ok(Authentication::Unauthenticated),
        Permit::MeshTls(mesh) => mesh.clients.ok_or_else(|| Invalid::missing("clients"))?,
    };
    let permitted = match clients {
        Clients::Unauthenticated(_) => return Ok(Authentication::TlsUnauthenticated),
        Clients::Identities(permitted) => permitted,
    };
    let identities = permitted
        .identities
        .iter()
        .map(|id| id.name.parse().map_err(invalid("identity")));
    Ok(Authentication::TlsAuthenticated {
        identities: identities.collect::<Result<_, _>>()?,
        suffixes: permitted
            .suffixes
            .iter()
            .map(|suffix| IdSuffix::from_parts(&suffix.parts))
            .collect(),
    })
}

/// The older way to say what a policy is: labels `group`, `kind` and `name`.
pub(super) fn meta_from_labels(labels: &HashMap<String, String>, kind: &str) -> Result<Arc<Meta>, Invalid> {
    let label = |name: &str| labels.get(name).map(String::as_str);
    let name = label("name").ok_or_else(|| Invalid::missing("name label"))?;
    let kind = label("kind").unwrap_or(kind);
    if kind == "default" {
        return Ok(Meta::default_named(name));
    }
    let group = label("group").unwrap_or("policy.linkerd.io");
    Ok(Meta::resource(
        group,
        kind,
        label("namespace").unwrap_or_default(),
        name,
    ))
}
