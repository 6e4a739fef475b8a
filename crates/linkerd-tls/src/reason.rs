//! What is known of a connection's TLS, and why there is none: values of metric labels.

use linkerd_policy::Id;
use std::sync::Arc;

/// A connection that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerTls {
    /// Terminated here; the identity is that of a certificate verified against the trust anchors.
    Terminated {
        client_id: Option<Id>,
    },
    /// For another server: passes through.
    PassThrough {
        sni: Option<Arc<str>>,
    },
    None(NoServerTls),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoServerTls {
    Disabled,
    Loopback,
    /// The port's policy is opaque.
    PortSkipped,
    NoTlsFromRemote,
}

/// A connection that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClientTls {
    Established { server_id: Id },
    None(NoClientTls),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoClientTls {
    Disabled,
    Loopback,
    NotProvidedByServiceDiscovery,
    IngressWithoutOverride,
}

impl ServerTls {
    #[must_use]
    pub fn client_id(&self) -> Option<&Id> {
        match self {
            Self::Terminated { client_id } => client_id.as_ref(),
            _ => None,
        }
    }

    /// What policies ask of a client.
    #[must_use]
    pub fn shown(&self) -> linkerd_policy::ClientTls<'_> {
        match self {
            Self::Terminated { client_id } => linkerd_policy::ClientTls::Terminated {
                client_id: client_id.as_ref(),
            },
            Self::PassThrough { .. } | Self::None(_) => linkerd_policy::ClientTls::None,
        }
    }
}

impl NoServerTls {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Loopback => "loopback",
            Self::PortSkipped => "port_skipped",
            Self::NoTlsFromRemote => "no_tls_from_remote",
        }
    }
}

impl NoClientTls {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Loopback => "loopback",
            Self::NotProvidedByServiceDiscovery => "not_provided_by_service_discovery",
            Self::IngressWithoutOverride => "ingress_without_override",
        }
    }
}
