//! Which resource of the cluster a policy, route or backend comes from: the labels of metrics and logs.

use std::{fmt, sync::Arc};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Meta {
    /// Not a resource: something that a program made up, such as `all-unauthenticated` or `endpoint`.
    Default { name: Arc<str> },
    Resource {
        group: Arc<str>,
        kind: Arc<str>,
        namespace: Arc<str>,
        name: Arc<str>,
        section: Option<Arc<str>>,
        port: Option<u16>,
    },
}

impl Meta {
    #[must_use]
    pub fn default_named(name: impl Into<Arc<str>>) -> Arc<Self> {
        Arc::new(Self::Default { name: name.into() })
    }

    #[must_use]
    pub fn resource(group: &str, kind: &str, namespace: &str, name: &str) -> Arc<Self> {
        Arc::new(Self::Resource {
            group: group.into(),
            kind: kind.into(),
            namespace: namespace.into(),
            name: name.into(),
            section: None,
            port: None,
        })
    }

    #[must_use]
    pub fn group(&self) -> &str {
        match self {
            Self::Default { .. } => "",
            Self::Resource { group, .. } => group,
        }
    }

    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Default { .. } => "default",
            Self::Resource { kind, .. } => kind,
        }
    }

    #[must_use]
    pub fn namespace(&self) -> &str {
        match self {
            Self::Default { .. } => "",
            Self::Resource { namespace, .. } => namespace,
        }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Default { name } | Self::Resource { name, .. } => name,
        }
    }

    #[must_use]
    pub fn section(&self) -> &str {
        match self {
            Self::Default { .. } => "",
            Self::Resource { section, .. } => section.as_deref().unwrap_or(""),
        }
    }

    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Default { .. } => None,
            Self::Resource { port, .. } => *port,
        }
    }
}

impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { name } => write!(f, "default.{name}"),
            Self::Resource {
                kind,
                namespace,
                name,
                port,
                ..
            } => {
                write!(f, "{kind}.{namespace}.{name}")?;
                port.map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}
