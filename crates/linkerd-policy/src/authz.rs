//! Who may connect.

use crate::{Id, Meta};
use ipnet::IpNet;
use std::{net::IpAddr, sync::Arc};

/// A network without some of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub net: IpNet,
    pub except: Vec<IpNet>,
}

impl Network {
    #[must_use]
    pub fn contains(&self, ip: &IpAddr) -> bool {
        self.net.contains(ip) && !self.except.iter().any(|net| net.contains(ip))
    }
}

impl From<IpNet> for Network {
    fn from(net: IpNet) -> Self {
        Self {
            net,
            except: Vec::new(),
        }
    }
}

/// What a client must prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Nothing.
    Unauthenticated,
    /// A TLS connection that this proxy terminates, with or without a client certificate.
    TlsUnauthenticated,
    /// A certificate with one of these names, or with a DNS-like name below one of these suffixes.
    TlsAuthenticated {
        identities: Vec<Id>,
        suffixes: Vec<IdSuffix>,
    },
}

/// `*.a.b` as `.a.b`; empty: every authenticated client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdSuffix(String);

impl IdSuffix {
    /// From the labels that follow `*.`, leftmost first.
    #[must_use]
    pub fn from_parts<S: AsRef<str>>(parts: &[S]) -> Self {
        let mut ends_with = String::new();
        for part in parts.iter().map(S::as_ref).filter(|p| !p.is_empty()) {
            ends_with.push('.');
            ends_with.push_str(&part.to_ascii_lowercase());
        }
        Self(ends_with)
    }

    #[must_use]
    pub fn any() -> Self {
        Self(String::new())
    }

    #[must_use]
    pub fn matches(&self, id: &Id) -> bool {
        self.0.is_empty() || id.as_dns().is_some_and(|name| name.ends_with(&self.0))
    }
}

/// Permits clients of some networks that prove what `authentication` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    pub networks: Vec<Network>,
    pub authentication: Authentication,
    pub meta: Arc<Meta>,
}

/// What a client has shown of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientTls<'a> {
    /// Plain text, or TLS that only passes through.
    None,
    /// TLS that this proxy terminates; the identity is that of a verified certificate.
    Terminated { client_id: Option<&'a Id> },
}

#[derive(Clone, Copy, Debug)]
pub struct ClientInfo<'a> {
    pub ip: IpAddr,
    pub tls: ClientTls<'a>,
}

/// No authorization permits the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unauthorized")]
pub struct Denied;

impl Authorization {
    #[must_use]
    pub fn permits(&self, client: &ClientInfo<'_>) -> bool {
        self.networks.iter().any(|network| network.contains(&client.ip))
            && self.authentication.permits(client.tls)
    }

    /// The one that lets a pod talk to itself: kubelet-style probes by `localhost` and the application's own calls.
    #[must_use]
    pub fn localhost() -> Self {
        Self {
            networks: vec![
                Network::from(IpNet::from(IpAddr::from([127, 0, 0, 1]))),
                Network::from(IpNet::from(IpAddr::from(std::net::Ipv6Addr::LOCALHOST))),
            ],
            authentication: Authentication::Unauthenticated,
            meta: Meta::default_named("localhost"),
        }
    }
}

impl Authentication {
    fn permits(&self, tls: ClientTls<'_>) -> bool {
        match (self, tls) {
            (Self::Unauthenticated, _) | (Self::TlsUnauthenticated, ClientTls::Terminated { .. }) => true,
            (
                Self::TlsAuthenticated { identities, suffixes },
                ClientTls::Terminated { client_id: Some(id) },
            ) => identities.contains(id) || suffixes.iter().any(|suffix| suffix.matches(id)),
            _ => false,
        }
    }
}

/// The first authorization that permits the client.
///
/// # Errors
/// [`Denied`] when there is none.
pub fn authorize<'p>(
    authorizations: impl IntoIterator<Item = &'p Authorization>,
    client: &ClientInfo<'_>,
) -> Result<&'p Authorization, Denied> {
    authorizations
        .into_iter()
        .find(|authz| authz.permits(client))
        .ok_or(Denied)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authz(networks: &[&str], authentication: Authentication) -> Authorization {
        let networks = networks
            .iter()
            .map(|n| Network::from(n.parse::<IpNet>().unwrap()))
            .collect();
        Authorization {
            networks,
            authentication,
            meta: Meta::default_named("x"),
        }
    }

    fn client<'a>(ip: &str, tls: ClientTls<'a>) -> ClientInfo<'a> {
        ClientInfo {
            ip: ip.parse().unwrap(),
            tls,
        }
    }

    fn id(name: &str) -> Id {
        name.parse().unwrap()
    }

    #[test]
    fn a_network_lacks_its_exceptions() {
        let mut network = Network::from("10.0.0.0/8".parse::<IpNet>().unwrap());
        network.except.push("10.1.0.0/16".parse().unwrap());
        assert!(network.contains(&"10.2.0.1".parse().unwrap()));
        assert!(!network.contains(&"10.1.0.1".parse().unwrap()));
        assert!(!network.contains(&"fd00::1".parse().unwrap()));
    }

    #[test]
    fn both_network_and_authentication_must_hold() {
        let a = authz(&["10.0.0.0/8"], Authentication::TlsUnauthenticated);
        let terminated = ClientTls::Terminated { client_id: None };
        assert!(a.permits(&client("10.0.0.1", terminated)));
        assert!(!a.permits(&client("10.0.0.1", ClientTls::None)));
        assert!(!a.permits(&client("11.0.0.1", terminated)));
    }

    #[test]
    fn identities_and_suffixes() {
        let web = id("web.ns.serviceaccount");
        let spiffe = id("spiffe://td/web");
        let of = |identities: Vec<Id>, suffixes: Vec<IdSuffix>| {
            authz(
                &["0.0.0.0/0"],
                Authentication::TlsAuthenticated { identities, suffixes },
            )
        };
        let permits = |a: &Authorization, id: &Id| {
            a.permits(&client("10.0.0.1", ClientTls::Terminated { client_id: Some(id) }))
        };
        assert!(permits(&of(vec![web.clone()], vec![]), &web));
        assert!(!permits(&of(vec![id("other.ns.serviceaccount")], vec![]), &web));
        let below_ns = of(vec![], vec![IdSuffix::from_parts(&["ns", "serviceaccount"])]);
        assert!(permits(&below_ns, &web));
        assert!(!permits(&below_ns, &id("web.myns.serviceaccount")));
        assert!(!permits(&below_ns, &spiffe));
        assert!(permits(&of(vec![], vec![IdSuffix::any()]), &spiffe));
    }

    #[test]
    fn no_certificate_is_not_an_identity() {
        let any = Authentication::TlsAuthenticated {
            identities: vec![],
            suffixes: vec![IdSuffix::any()],
        };
        let a = authz(&["0.0.0.0/0"], any);
        assert!(!a.permits(&client("10.0.0.1", ClientTls::Terminated { client_id: None })));
    }

    #[test]
    fn the_first_that_permits_wins() {
        let all = [
            authz(&["11.0.0.0/8"], Authentication::Unauthenticated),
            authz(&["10.0.0.0/8"], Authentication::Unauthenticated),
        ];
        let found = authorize(&all, &client("10.0.0.1", ClientTls::None)).unwrap();
        assert!(std::ptr::eq(found, &raw const all[1]));
        assert_eq!(authorize(&all, &client("12.0.0.1", ClientTls::None)), Err(Denied));
    }
}
