//! The identity of a proxy: the name in its certificate.

use std::{fmt, str::FromStr, sync::Arc};

/// The longest DNS name (RFC 1035, 2.3.4); URI identities (SPIFFE, 2.3) may have 2048 bytes.
const MAX_DNS: usize = 253;
const MAX_URI: usize = 2048;

/// A DNS-like name (`web.default.serviceaccount.identity.linkerd.cluster.local`) or a URI (`spiffe://…`).
///
/// DNS-like names are kept in lower case without a trailing dot, so that equality is identity.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    Dns(Arc<str>),
    Uri(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an identity: {0:?}")]
pub struct InvalidId(String);

impl Id {
    /// A DNS-like identity.
    ///
    /// # Errors
    /// When `name` is not a DNS name.
    pub fn dns(name: &str) -> Result<Self, InvalidId> {
        let trimmed = name.strip_suffix('.').unwrap_or(name);
        if is_dns_name(trimmed) {
            Ok(Self::Dns(trimmed.to_ascii_lowercase().into()))
        } else {
            Err(InvalidId(name.chars().take(64).collect()))
        }
    }

    /// A URI identity.
    ///
    /// # Errors
    /// When `uri` has no scheme or is too long.
    pub fn uri(uri: &str) -> Result<Self, InvalidId> {
        let ok = uri.len() <= MAX_URI
            && uri
                .split_once("://")
                .is_some_and(|(scheme, _)| !scheme.is_empty());
        if ok && uri.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self::Uri(uri.into()))
        } else {
            Err(InvalidId(uri.chars().take(64).collect()))
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Dns(s) | Self::Uri(s) => s,
        }
    }

    /// The name for the TLS server name extension; a URI has none.
    #[must_use]
    pub fn as_dns(&self) -> Option<&str> {
        match self {
            Self::Dns(s) => Some(s),
            Self::Uri(_) => None,
        }
    }
}

impl FromStr for Id {
    type Err = InvalidId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.contains("://") {
            Self::uri(s)
        } else {
            Self::dns(s)
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether `name` (no trailing dot) is a DNS name; underscores are let through as Kubernetes' users do.
#[must_use]
pub fn is_dns_name(name: &str) -> bool {
    name.len() <= MAX_DNS && name.split('.').all(is_dns_label)
}

fn is_dns_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names_compare_without_case_and_trailing_dot() {
        assert_eq!(Id::dns("Web.Default."), Id::dns("web.default"));
    }

    #[test]
    fn uris_are_kept_as_they_are() {
        let id: Id = "spiffe://Root/ns/X".parse().unwrap();
        assert_eq!(id.as_str(), "spiffe://Root/ns/X");
        assert_eq!(id.as_dns(), None);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            ".",
            "a..b",
            "-a.b",
            "a b",
            "://x",
            &"a".repeat(64),
            &"a.".repeat(130),
        ] {
            assert!(bad.parse::<Id>().is_err(), "{bad}");
        }
    }
}
