//! Who may connect, beside a reference that is slow.

use crate::Target;
use arbitrary::Unstructured;
use ipnet::{IpNet, Ipv4Net};
use linkerd_policy::{
    Authentication, Authorization, ClientInfo, ClientTls, Id, Meta, Network,
    authz::{IdSuffix, authorize},
};
use std::net::{IpAddr, Ipv4Addr};

pub(crate) const TARGET: Target = Target {
    name: "authz",
    run,
    seeds: &[
        b"\x02\x01\x00\x0a\x00\x00\x00\x08\x00\x02\x01\x01\x00\x01\x02\x01\x0a\x01",
        &[3; 80],
        &[0x5a; 48],
    ],
};

/// Bytes that end too early are no case.
fn run(bytes: &[u8]) {
    let _ = compare(&mut Unstructured::new(bytes));
}

const IDS: [&str; 5] = ["a.b", "x.a.b", "ab", "b", "a.b.c"];
const SUFFIXES: [&[&str]; 4] = [&[], &["b"], &["a", "b"], &["c"]];

fn compare(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let authorizations = (0..u.int_in_range(0..=3)?).map(|n| arbitrary_authorization(u, n));
    let authorizations = authorizations.collect::<Result<Vec<_>, _>>()?;
    let ip = ip(u)?;
    let id = Id::dns(u.choose(&IDS)?).unwrap();
    let tls = match u.int_in_range(0..=2)? {
        0 => ClientTls::None,
        1 => ClientTls::Terminated { client_id: None },
        _ => ClientTls::Terminated { client_id: Some(&id) },
    };
    let client = ClientInfo { ip: ip.into(), tls };
    let found = authorize(&authorizations, &client)
        .ok()
        .map(|a| a.meta.name().to_owned());
    let expected = authorizations
        .iter()
        .find(|a| slow(a, ip, tls))
        .map(|a| a.meta.name().to_owned());
    assert_eq!(found, expected, "{client:?} in {authorizations:#?}");
    Ok(())
}

/// Four networks of four addresses.
fn ip(u: &mut Unstructured<'_>) -> arbitrary::Result<Ipv4Addr> {
    Ok(Ipv4Addr::new(
        10,
        0,
        u.int_in_range(0..=3)?,
        u.int_in_range(0..=3)?,
    ))
}

fn net(u: &mut Unstructured<'_>) -> arbitrary::Result<IpNet> {
    let length = *u.choose(&[0, 8, 22, 24, 31, 32])?;
    Ok(Ipv4Net::new(ip(u)?, length).unwrap().into())
}

fn arbitrary_authorization(u: &mut Unstructured<'_>, number: usize) -> arbitrary::Result<Authorization> {
    let networks = (0..u.int_in_range(0..=2)?).map(|_| {
        let except = (0..u.int_in_range(0..=2)?).map(|_| net(u));
        let except = except.collect::<Result<_, _>>()?;
        Ok(Network { net: net(u)?, except })
    });
    let networks = networks.collect::<Result<_, _>>()?;
    let authentication = match u.int_in_range(0..=2)? {
        0 => Authentication::Unauthenticated,
        1 => Authentication::TlsUnauthenticated,
        _ => {
            let identities = (0..u.int_in_range(0..=2)?).map(|_| Ok(Id::dns(u.choose(&IDS)?).unwrap()));
            let identities = identities.collect::<Result<_, _>>()?;
            let suffixes =
                (0..u.int_in_range(0..=1)?).map(|_| Ok(IdSuffix::from_parts(u.choose(&SUFFIXES)?)));
            Authentication::TlsAuthenticated {
                identities,
                suffixes: suffixes.collect::<Result<_, _>>()?,
            }
        }
    };
    Ok(Authorization {
        networks,
        authentication,
        meta: Meta::default_named(number.to_string()),
    })
}

/// By bits and labels instead of by the libraries.
fn slow(authorization: &Authorization, ip: Ipv4Addr, tls: ClientTls<'_>) -> bool {
    let from = |n: &Network| within(&n.net, ip) && !n.except.iter().any(|e| within(e, ip));
    if !authorization.networks.iter().any(from) {
        return false;
    }
    let id = match (&authorization.authentication, tls) {
        (Authentication::Unauthenticated, _) => return true,
        (_, ClientTls::None) => return false,
        (Authentication::TlsUnauthenticated, _) => return true,
        (_, ClientTls::Terminated { client_id }) => client_id,
    };
    let (Authentication::TlsAuthenticated { identities, suffixes }, Some(id)) =
        (&authorization.authentication, id)
    else {
        return false;
    };
    let labels: Vec<&str> = id.as_str().split('.').collect();
    let below = |parts: &&[&str]| {
        let suffix = IdSuffix::from_parts(parts);
        let below = parts.is_empty() || (labels.len() > parts.len() && labels.ends_with(parts));
        suffixes.contains(&suffix) && below
    };
    identities.iter().any(|known| known.as_str() == id.as_str()) || SUFFIXES.iter().any(below)
}

fn within(net: &IpNet, ip: Ipv4Addr) -> bool {
    let IpAddr::V4(base) = net.addr() else {
        return false;
    };
    let free = 32 - u32::from(net.prefix_len());
    u64::from(base.to_bits()) >> free == u64::from(ip.to_bits()) >> free
}
