//! The labels of inbound metrics (Linkerd's names).

use crate::metrics::Metrics;
use linkerd_metrics::{Bounded, Labels};
use linkerd_policy::Meta;
use linkerd_tls::ServerTls;
use std::net::SocketAddr;

pub(crate) fn target(addr: SocketAddr) -> Labels {
    Labels::new()
        .with_display("target_addr", addr)
        .with_display("target_ip", addr.ip())
        .with_display("target_port", addr.port())
}

/// Of ports that nobody listens on: clients can name as many as they like.
pub(crate) fn other_target() -> Labels {
    ["target_addr", "target_ip", "target_port"]
        .iter()
        .fold(Labels::new(), |labels, name| labels.with(name, OTHER))
}

pub(crate) fn tls(tls: &ServerTls, metrics: &Metrics) -> Labels {
    match tls {
        ServerTls::Terminated { client_id } => {
            let id = client_id
                .as_ref()
                .map_or_else(|| "".into(), |id| metrics.client_ids.admit(id.as_str()));
            Labels::new().with("tls", "true").with("client_id", &id)
        }
        ServerTls::PassThrough { sni } => {
            let sni = sni
                .as_deref()
                .map_or_else(|| "".into(), |sni| metrics.snis.admit(sni));
            Labels::new().with("tls", "opaque").with("sni", &sni)
        }
        ServerTls::None(reason) => Labels::new()
            .with("tls", "no_identity")
            .with("no_tls_reason", reason.as_str()),
    }
}

pub(crate) fn resource(prefix: &str, meta: &Meta) -> Labels {
    Labels::new()
        .with(&format!("{prefix}_group"), meta.group())
        .with(&format!("{prefix}_kind"), meta.kind())
        .with(&format!("{prefix}_name"), meta.name())
}

pub(crate) const OTHER: &str = Bounded::OTHER;
