//! What a port accepts as long as the control plane has not answered.

use crate::{
    Authentication, Authorization, Meta, Network, ServerPolicy,
    authz::IdSuffix,
    filter::HttpFilter,
    http_match::HttpMatch,
    route::Rule,
    server::{HttpRoute, HttpServer, Protocol, RouteInfo},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::{fmt, str::FromStr, sync::Arc, time::Duration};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultPolicy {
    Deny,
    AllAuthenticated,
    #[default]
    AllUnauthenticated,
    ClusterAuthenticated,
    ClusterUnauthenticated,
    Audit,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a default policy: {0:?} (deny, all-authenticated, all-unauthenticated, cluster-authenticated, \
     cluster-unauthenticated, audit)"
)]
pub struct UnknownPolicy(String);

impl DefaultPolicy {
    /// The same for ports that require an identity, as the control plane reads it too.
    #[must_use]
    pub fn authenticated(self) -> Self {
        match self {
            Self::AllUnauthenticated => Self::AllAuthenticated,
            Self::ClusterUnauthenticated => Self::ClusterAuthenticated,
            other => other,
        }
    }

    /// The policy of a port; an opaque one is not searched for a protocol.
    #[must_use]
    pub fn server(self, cluster_networks: &[IpNet], opaque: bool, detect_timeout: Duration) -> ServerPolicy {
        let meta = Meta::default_named(self.to_string());
        let protocol = if opaque {
            Protocol::Opaque
        } else {
            Protocol::Detect {
                timeout: detect_timeout,
                http: Arc::new(http_server()),
            }
        };
        let mut authorizations = vec![Authorization::localhost()];
        authorizations.extend(self.authorization(cluster_networks, &meta));
        ServerPolicy {
            protocol,
            authorizations: authorizations.into(),
            meta,
            audit: self == Self::Audit,
        }
    }

    fn authorization(self, cluster_networks: &[IpNet], meta: &Arc<Meta>) -> Option<Authorization> {
        let authenticated = || Authentication::TlsAuthenticated {
            identities: Vec::new(),
            suffixes: vec![IdSuffix::any()],
        };
        let (networks, authentication) = match self {
            Self::Deny => return None,
            Self::AllAuthenticated => (everywhere(), authenticated()),
            Self::AllUnauthenticated => (everywhere(), Authentication::Unauthenticated),
            Self::ClusterAuthenticated => (networks(cluster_networks), authenticated()),
            Self::ClusterUnauthenticated | Self::Audit => {
                (networks(cluster_networks), Authentication::Unauthenticated)
            }
        };
        Some(Authorization {
            networks,
            authentication,
            meta: meta.clone(),
        })
    }
}

/// One route for every request, as the control plane sends it when nobody wrote one.
fn http_server() -> HttpServer {
    let rule = Rule {
        matches: Vec::<HttpMatch>::new(),
        value: Vec::<HttpFilter>::new(),
    };
    let value = RouteInfo {
        meta: Meta::default_named("default"),
        authorizations: Vec::new(),
    };
    HttpServer {
        routes: vec![HttpRoute {
            hosts: Vec::new(),
            rules: vec![rule],
            value,
        }],
        rate_limit: None,
    }
}

fn everywhere() -> Vec<Network> {
    networks(&[Ipv4Net::default().into(), Ipv6Net::default().into()])
}

fn networks(nets: &[IpNet]) -> Vec<Network> {
    nets.iter().copied().map(Network::from).collect()
}

const NAMES: [(&str, DefaultPolicy); 6] = [
    ("deny", DefaultPolicy::Deny),
    ("all-authenticated", DefaultPolicy::AllAuthenticated),
    ("all-unauthenticated", DefaultPolicy::AllUnauthenticated),
    ("cluster-authenticated", DefaultPolicy::ClusterAuthenticated),
    ("cluster-unauthenticated", DefaultPolicy::ClusterUnauthenticated),
    ("audit", DefaultPolicy::Audit),
];

impl FromStr for DefaultPolicy {
    type Err = UnknownPolicy;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        NAMES
            .iter()
            .find(|(name, _)| *name == s)
            .map(|(_, policy)| *policy)
            .ok_or_else(|| UnknownPolicy(s.into()))
    }
}

impl fmt::Display for DefaultPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES
            .iter()
            .find(|(_, policy)| policy == self)
            .map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientInfo, ClientTls, Id};

    fn permits(policy: DefaultPolicy, ip: &str, id: Option<&Id>) -> bool {
        let nets = ["10.0.0.0/8".parse().unwrap()];
        let server = policy.server(&nets, false, Duration::from_secs(10));
        let tls = id.map_or(ClientTls::None, |id| ClientTls::Terminated {
            client_id: Some(id),
        });
        server
            .authorize(&ClientInfo {
                ip: ip.parse().unwrap(),
                tls,
            })
            .is_ok()
    }

    #[test]
    fn every_name_reads_back() {
        for (name, policy) in NAMES {
            assert_eq!(name.parse(), Ok(policy));
            assert_eq!(policy.to_string(), name);
        }
        assert!("allow".parse::<DefaultPolicy>().is_err());
    }

    #[test]
    fn each_permits_whom_its_name_says() {
        let id = Id::dns("a.b").unwrap();
        for (policy, inside, outside, inside_tls, outside_tls) in [
            (DefaultPolicy::Deny, false, false, false, false),
            (DefaultPolicy::AllAuthenticated, false, false, true, true),
            (DefaultPolicy::AllUnauthenticated, true, true, true, true),
            (DefaultPolicy::ClusterAuthenticated, false, false, true, false),
            (DefaultPolicy::ClusterUnauthenticated, true, false, true, false),
        ] {
            assert_eq!(permits(policy, "10.0.0.1", None), inside, "{policy}");
            assert_eq!(permits(policy, "1.0.0.1", None), outside, "{policy}");
            assert_eq!(permits(policy, "10.0.0.1", Some(&id)), inside_tls, "{policy}");
            assert_eq!(permits(policy, "1.0.0.1", Some(&id)), outside_tls, "{policy}");
        }
    }

    #[test]
    fn requiring_an_identity_only_takes_away() {
        for (_, policy) in NAMES {
            let stricter = policy.authenticated();
            assert!(
                stricter == policy || !permits(stricter, "10.0.0.1", None),
                "{policy}"
            );
            let id = Id::dns("a.b").unwrap();
            assert_eq!(
                permits(stricter, "10.0.0.1", Some(&id)),
                permits(policy, "10.0.0.1", Some(&id)),
                "{policy}"
            );
        }
    }

    #[test]
    fn loopback_is_always_permitted() {
        assert!(permits(DefaultPolicy::Deny, "127.0.0.1", None));
        assert!(permits(DefaultPolicy::Deny, "::1", None));
    }
}
