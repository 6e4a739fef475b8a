//! The grammars of values.

use ipnet::IpNet;
use linkerd_policy::Id;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

/// Why a value is refused; the variable's name is added by whoever reads it.
pub(super) type Parsed<T> = Result<T, String>;

/// `10s`: a whole number with its unit, which only 0 may lack.
pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("not a duration: {text:?} (such as 500ms, 10s, 5m)"))?;
    let seconds = |each: u64| {
        number
            .checked_mul(each)
            .map(Duration::from_secs)
            .ok_or("duration too long".to_string())
    };
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(60 * 60),
        "d" => seconds(24 * 60 * 60),
        "" if number == 0 => Ok(Duration::ZERO),
        _ => Err(format!("not a duration: {text:?} (units are ms, s, m, h, d)")),
    }
}

pub(super) fn boolean(text: &str) -> Parsed<bool> {
    match text.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("not true or false: {other:?}")),
    }
}

pub(super) fn number<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Parsed<T> {
    text.trim()
        .parse()
        .map_err(|error| format!("not a number: {text:?}: {error}"))
}

/// `80,8000-8010`.
pub(super) fn ports(text: &str) -> Parsed<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(format!("the range {part} ends before it begins"));
        }
        ports.extend(first..=last);
    }
    Ok(ports)
}

fn port(text: &str) -> Parsed<u16> {
    text.trim().parse().map_err(|_| format!("not a port: {text:?}"))
}

pub(super) fn list<T>(text: &str, one: impl Fn(&str) -> Parsed<T>) -> Parsed<Vec<T>> {
    text.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(one)
        .collect()
}

pub(super) fn networks(text: &str) -> Parsed<Vec<IpNet>> {
    list(text, |part| {
        part.parse().map_err(|_| format!("not a network: {part:?}"))
    })
}

pub(super) fn ips(text: &str) -> Parsed<Vec<IpAddr>> {
    list(text, |part| {
        part.parse().map_err(|_| format!("not an IP address: {part:?}"))
    })
}

/// `svc.cluster.local.`, `.` for every name.
pub(super) fn suffixes(text: &str) -> Parsed<Vec<String>> {
    list(text, |part| {
        let name = part.trim_matches('.');
        if name.is_empty() || linkerd_policy::id::is_dns_name(name) {
            Ok(name.to_ascii_lowercase())
        } else {
            Err(format!("not a DNS suffix: {part:?}"))
        }
    })
}

pub(super) fn socket_addr(text: &str) -> Parsed<SocketAddr> {
    text.trim()
        .parse()
        .map_err(|_| format!("not an address and port: {text:?}"))
}

pub(super) fn socket_addrs(text: &str) -> Parsed<Vec<SocketAddr>> {
    list(text, socket_addr)
}

/// `name:port` or `ip:port`.
pub(super) fn host_port(text: &str) -> Parsed<(String, u16)> {
    let text = text.trim();
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok((addr.ip().to_string(), addr.port()));
    }
    let (host, number) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("no port: {text:?}"))?;
    if !linkerd_policy::id::is_dns_name(host.trim_end_matches('.')) {
        return Err(format!("not a host: {host:?}"));
    }
    Ok((host.to_string(), port(number)?))
}

pub(super) fn identity(text: &str) -> Parsed<Id> {
    text.trim()
        .parse()
        .map_err(|error: linkerd_policy::id::InvalidId| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_need_a_unit() {
        for (text, millis) in [
            ("500ms", 500),
            (" 10s ", 10_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        for bad in [
            "",
            "10",
            "1.5s",
            "-1s",
            "10 s",
            "10S",
            "s",
            "99999999999999999999s",
            "99999999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_sets_have_ranges() {
        assert_eq!(
            ports("80, 8000-8002,").unwrap(),
            BTreeSet::from([80, 8000, 8001, 8002])
        );
        assert!(ports("2-1").is_err() && ports("x").is_err() && ports("70000").is_err());
    }

    #[test]
    fn hosts_have_ports() {
        assert_eq!(host_port("a.b.:80"), Ok(("a.b.".into(), 80)));
        assert_eq!(host_port("[::1]:80"), Ok(("::1".into(), 80)));
        assert!(host_port("a.b").is_err() && host_port("a b:80").is_err());
    }

    #[test]
    fn every_name_has_the_empty_suffix() {
        assert_eq!(
            suffixes("., svc.Cluster.local."),
            Ok(vec![String::new(), "svc.cluster.local".into()])
        );
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_parser(text in ".{0,40}") {
            let _ = (duration(&text), ports(&text), networks(&text), suffixes(&text), host_port(&text));
        }
    }
}
