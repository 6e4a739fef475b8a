//! Wire messages to values. What the wire may leave out and the proxy cannot do without is an error here, so that
//! nothing behind this folder meets half a policy.

mod authz;
mod client;
mod endpoint;
mod filter;
mod matching;
mod net;
mod profile;
mod server;

pub(crate) use self::{
    client::client_policy,
    endpoint::endpoints,
    net::{socket_addr, tcp_address},
    profile::{port_of, profile},
    server::server_policy,
};

use linkerd_policy::Meta;
use linkerd_proto::meta;
use std::{sync::Arc, time::Duration};

/// A message that cannot be followed, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Invalid(pub(crate) String);

impl Invalid {
    fn missing(what: &str) -> Self {
        Self(format!("missing {what}"))
    }
}

/// For `map_err`: anything that can say what is wrong with `what`.
fn invalid<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> Invalid + '_ {
    move |error| Invalid(format!("invalid {what}: {error}"))
}

fn metadata(metadata: Option<meta::Metadata>) -> Result<Arc<Meta>, Invalid> {
    optional_metadata(metadata).ok_or_else(|| Invalid::missing("metadata"))
}

fn optional_metadata(metadata: Option<meta::Metadata>) -> Option<Arc<Meta>> {
    let meta = match metadata?.kind? {
        meta::metadata::Kind::Default(name) => Meta::Default { name: name.into() },
        meta::metadata::Kind::Resource(resource) => Meta::Resource {
            group: resource.group.into(),
            kind: resource.kind.into(),
            namespace: resource.namespace.into(),
            name: resource.name.into(),
            section: (!resource.section.is_empty()).then(|| resource.section.into()),
            port: u16::try_from(resource.port).ok().filter(|port| *port > 0),
        },
    };
    Some(Arc::new(meta))
}

/// Negative durations do not exist here.
fn duration(duration: prost_types::Duration) -> Result<Duration, Invalid> {
    Duration::try_from(duration).map_err(invalid("duration"))
}

/// Absent and zero are the same: no limit.
fn limit(value: Option<prost_types::Duration>) -> Result<Option<Duration>, Invalid> {
    let value = value.map(duration).transpose()?;
    Ok(value.filter(|duration| !duration.is_zero()))
}

#[cfg(test)]
mod tests;
