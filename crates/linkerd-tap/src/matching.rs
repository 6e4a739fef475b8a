//! Which requests and connections a tap asks for.

use crate::registry::{Connection, Inspect};
use http::{HeaderMap, HeaderName, StatusCode, request::Parts};
use linkerd_policy::Labels;
use linkerd_proto::{
    http_types::{HttpMethod, Scheme, http_method, scheme},
    net::{IpAddress, ip_address},
    tap::{
        Filter as ProtoFilter,
        filter::header_match,
        observe_request::{
            Match as ProtoMatch,
            r#match::{self as pb, http as pb_http, http::string_match, tcp as pb_tcp},
        },
    },
};
use regex::{Regex, RegexBuilder, bytes};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};

/// Why a request to observe is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid(pub(crate) String);

/// Linkerd's match tree.
#[derive(Clone, Debug)]
pub(crate) enum Matcher {
    All(Vec<Matcher>),
    Any(Vec<Matcher>),
    Not(Box<Matcher>),
    Source(TcpMatch),
    Destination(TcpMatch),
    Scheme(String),
    Method(String),
    Authority(StringMatch),
    Path(StringMatch),
    DestinationLabel(String, String),
    RouteLabel(String, String),
}

#[derive(Clone, Debug)]
pub(crate) enum TcpMatch {
    Network(IpAddr, u32),
    Ports(RangeInclusive<u16>),
}

#[derive(Clone, Debug)]
pub(crate) enum StringMatch {
    Exact(String),
    Prefix(String),
}

/// Conditions beyond the tree, and what is shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) path: Option<Regex>,
    pub(crate) headers: Vec<(HeaderName, HeaderMatch)>,
    pub(crate) statuses: Vec<RangeInclusive<u16>>,
    pub(crate) min_latency: Duration,
    pub(crate) redact: Vec<HeaderName>,
    pub(crate) tcp: bool,
    pub(crate) max_rps: u32,
}

#[derive(Clone, Debug)]
pub(crate) enum HeaderMatch {
    Present,
    Exact(Vec<u8>),
    Regex(bytes::Regex),
}

/// What a matcher looks at: HTTP is absent for other connections.
pub(crate) struct Subject<'a> {
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) http: Option<&'a Parts>,
    pub(crate) server_labels: &'a Labels,
    pub(crate) route_labels: Option<&'a Labels>,
}

impl<'a> From<&'a Inspect<'a>> for Subject<'a> {
    fn from(i: &'a Inspect<'a>) -> Self {
        Self {
            client: i.connection.client,
            server: i.connection.server,
            http: Some(i.parts),
            server_labels: &i.connection.server_labels,
            route_labels: Some(&i.route_labels),
        }
    }
}

impl<'a> From<&'a Connection> for Subject<'a> {
    fn from(c: &'a Connection) -> Self {
        Self {
            client: c.client,
            server: c.server,
            http: None,
            server_labels: &c.server_labels,
            route_labels: None,
        }
    }
}

impl Matcher {
    pub(crate) fn parse(proto: ProtoMatch) -> Result<Self, Invalid> {
        Self::parse_within(proto, MAX_DEPTH)
    }

    fn parse_within(proto: ProtoMatch, depth: usize) -> Result<Self, Invalid> {
        let depth = depth
            .checked_sub(1)
            .ok_or_else(|| Invalid("match is nested too deeply".into()))?;
        let all = |seq: pb::Seq| {
            seq.matches
                .into_iter()
                .map(|m| Self::parse_within(m, depth))
                .collect::<Result<Vec<_>, _>>()
        };
        match proto.r#match.ok_or_else(|| Invalid("match is missing".into()))? {
            pb::Match::All(seq) => all(seq).map(Self::All),
            pb::Match::Any(seq) => all(seq).map(Self::Any),
            pb::Match::Not(inner) => Ok(Self::Not(Box::new(Self::parse_within(*inner, depth)?))),
            pb::Match::Source(tcp) => TcpMatch::parse(tcp).map(Self::Source),
            pb::Match::Destination(tcp) => TcpMatch::parse(tcp).map(Self::Destination),
            pb::Match::Http(http) => Self::parse_http(http),
            pb::Match::DestinationLabel(l) => Ok(Self::DestinationLabel(l.key, l.value)),
            pb::Match::RouteLabel(l) => Ok(Self::RouteLabel(l.key, l.value)),
        }
    }

    fn parse_http(http: pb::Http) -> Result<Self, Invalid> {
        match http
            .r#match
            .ok_or_else(|| Invalid("http match is missing".into()))?
        {
            pb_http::Match::Scheme(s) => parse_scheme(s).map(Self::Scheme),
            pb_http::Match::Method(m) => parse_method(m).map(Self::Method),
            pb_http::Match::Authority(s) => StringMatch::parse(s).map(Self::Authority),
            pb_http::Match::Path(s) => StringMatch::parse(s).map(Self::Path),
        }
    }

    pub(crate) fn matches(&self, s: &Subject<'_>) -> bool {
        let http = |f: &dyn Fn(&Parts) -> bool| s.http.is_some_and(f);
        match self {
            Self::All(all) => all.iter().all(|m| m.matches(s)),
            Self::Any(any) => any.iter().any(|m| m.matches(s)),
            Self::Not(m) => !m.matches(s),
            Self::Source(tcp) => tcp.matches(s.client),
            Self::Destination(tcp) => tcp.matches(s.server),
            Self::Scheme(scheme) => http(&|p| p.uri.scheme_str().unwrap_or("http") == scheme),
            Self::Method(method) => http(&|p| p.method.as_str() == method),
            Self::Authority(m) => http(&|p| m.matches(authority(p))),
            Self::Path(m) => http(&|p| m.matches(p.uri.path())),
            Self::DestinationLabel(k, v) => s.server_labels.get(k) == Some(v),
            Self::RouteLabel(k, v) => s.route_labels.is_some_and(|l| l.get(k) == Some(v)),
        }
    }
}

/// The authority as the client wrote it.
pub(crate) fn authority(parts: &Parts) -> &str {
    let host = || {
        parts
            .headers
            .get(http::header::HOST)
            .and_then(|h| h.to_str().ok())
            .unwrap_or("")
    };
    parts
        .uri
        .authority()
        .map_or_else(host, http::uri::Authority::as_str)
}

fn parse_scheme(proto: Scheme) -> Result<String, Invalid> {
    match proto.r#type.ok_or_else(|| Invalid("scheme is missing".into()))? {
        scheme::Type::Registered(n) => match scheme::Registered::try_from(n) {
            Ok(registered) => Ok(registered.as_str_name().to_ascii_lowercase()),
            Err(_) => Err(Invalid(format!("unknown scheme {n}"))),
        },
        scheme::Type::Unregistered(name) => Ok(name),
    }
}

fn parse_method(proto: HttpMethod) -> Result<String, Invalid> {
    match proto.r#type.ok_or_else(|| Invalid("method is missing".into()))? {
        http_method::Type::Registered(n) => match http_method::Registered::try_from(n) {
            Ok(registered) => Ok(registered.as_str_name().to_owned()),
            Err(_) => Err(Invalid(format!("unknown method {n}"))),
        },
        http_method::Type::Unregistered(name) => Ok(name),
    }
}

impl TcpMatch {
    fn parse(proto: pb::Tcp) -> Result<Self, Invalid> {
        match proto
            .r#match
            .ok_or_else(|| Invalid("tcp match is missing".into()))?
        {
            pb_tcp::Match::Netmask(mask) => {
                let ip = mask
                    .ip
                    .as_ref()
                    .and_then(ip_from)
                    .ok_or_else(|| Invalid("address is missing".into()))?;
                let width = if ip.is_ipv4() { 32 } else { 128 };
                if mask.mask == 0 || mask.mask > width {
                    return Err(Invalid(format!(
                        "mask must be from 1 to {width}, is {}",
                        mask.mask
                    )));
                }
                Ok(Self::Network(ip, mask.mask))
            }
            pb_tcp::Match::Ports(range) => {
                let port = |n: u32| u16::try_from(n).map_err(|_| Invalid(format!("not a port: {n}")));
                let (min, max) = match (port(range.min)?, port(range.max)?) {
                    (0, 0) => return Err(Invalid("port range is empty".into())),
                    (0, max) => (max, max),
                    (min, 0) => (min, min),
                    (min, max) if min > max => {
                        return Err(Invalid(format!("port range {min}-{max} is empty")));
                    }
                    range => range,
                };
                Ok(Self::Ports(min..=max))
            }
        }
    }

    fn matches(&self, addr: SocketAddr) -> bool {
        match self {
            Self::Ports(range) => range.contains(&addr.port()),
            Self::Network(net, len) => match (net, addr.ip()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(*a) ^ u32::from(b)).leading_zeros() >= *len,
                (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(*a) ^ u128::from(b)).leading_zeros() >= *len,
                _ => false,
            },
        }
    }
}

fn ip_from(proto: &IpAddress) -> Option<IpAddr> {
    match proto.ip.as_ref()? {
        ip_address::Ip::Ipv4(n) => Some(Ipv4Addr::from(*n).into()),
        ip_address::Ip::Ipv6(v6) => {
            Some(Ipv6Addr::from((u128::from(v6.first) << 64) | u128::from(v6.last)).into())
        }
    }
}

impl StringMatch {
    fn parse(proto: pb_http::StringMatch) -> Result<Self, Invalid> {
        match proto
            .r#match
            .ok_or_else(|| Invalid("string match is missing".into()))?
        {
            string_match::Match::Exact(s) => Ok(Self::Exact(s)),
            string_match::Match::Prefix(s) => Ok(Self::Prefix(s)),
        }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(s) => s == value,
            Self::Prefix(s) => value.starts_with(s.as_str()),
        }
    }
}

impl Filter {
    pub(crate) fn parse(proto: ProtoFilter) -> Result<Self, Invalid> {
        let mut redact = proto
            .redact_headers
            .iter()
            .map(|n| header_name(n))
            .collect::<Result<Vec<_>, _>>()?;
        if !proto.reveal_sensitive_headers {
            redact.extend(SENSITIVE.map(HeaderName::from_static));
        }
        let min_latency = proto.min_latency.map(Duration::try_from).transpose();
        Ok(Self {
            path: path_regex(&proto.path_regex)?,
            headers: proto
                .headers
                .into_iter()
                .map(|h| Ok((header_name(&h.name)?, HeaderMatch::parse(h.value)?)))
                .collect::<Result<_, Invalid>>()?,
            statuses: proto
                .statuses
                .iter()
                .map(status_range)
                .collect::<Result<_, _>>()?,
            min_latency: min_latency
                .map_err(|e| Invalid(format!("min_latency: {e}")))?
                .unwrap_or_default(),
            redact,
            tcp: proto.tcp,
            max_rps: proto.max_rps,
        })
    }

    /// Without our extension, as Linkerd's clients ask: everything, but without secrets.
    pub(crate) fn plain() -> Self {
        Self {
            redact: SENSITIVE.map(HeaderName::from_static).to_vec(),
            ..Self::default()
        }
    }

    pub(crate) fn matches_request(&self, parts: &Parts) -> bool {
        let target = parts
            .uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        self.path.as_ref().is_none_or(|regex| regex.is_match(target))
            && self
                .headers
                .iter()
                .all(|(name, value)| value.matches(&parts.headers, name))
    }

    /// Whether a request's events wait for its response.
    pub(crate) fn needs_response(&self) -> bool {
        !self.statuses.is_empty() || !self.min_latency.is_zero()
    }

    pub(crate) fn matches_response(&self, status: Option<StatusCode>, latency: Duration) -> bool {
        let status_matches = self.statuses.is_empty()
            || status.is_some_and(|s| self.statuses.iter().any(|range| range.contains(&s.as_u16())));
        status_matches && latency >= self.min_latency
    }

    pub(crate) fn is_redacted(&self, name: &HeaderName) -> bool {
        self.redact.contains(name)
    }
}

fn path_regex(pattern: &str) -> Result<Option<Regex>, Invalid> {
    if pattern.is_empty() {
        return Ok(None);
    }
    RegexBuilder::new(&format!("^(?:{pattern})"))
        .size_limit(REGEX_SIZE)
        .build()
        .map(Some)
        .map_err(|e| Invalid(format!("path_regex: {e}")))
}

fn header_name(name: &str) -> Result<HeaderName, Invalid> {
    name.parse()
        .map_err(|_| Invalid(format!("not a header name: {name:?}")))
}

fn status_range(range: &linkerd_proto::tap::filter::StatusRange) -> Result<RangeInclusive<u16>, Invalid> {
    let status = |n: u32| u16::try_from(n).map_err(|_| Invalid(format!("not a status: {n}")));
    let (min, max) = (status(range.min)?, status(range.max)?);
    Ok(min..=if max == 0 { min } else { max })
}

impl HeaderMatch {
    fn parse(proto: Option<header_match::Value>) -> Result<Self, Invalid> {
        match proto {
            None => Ok(Self::Present),
            Some(header_match::Value::Exact(value)) => Ok(Self::Exact(value.into_bytes())),
            Some(header_match::Value::Regex(pattern)) => {
                bytes::RegexBuilder::new(&format!("^(?:{pattern})$"))
                    .size_limit(REGEX_SIZE)
                    .build()
                    .map(Self::Regex)
                    .map_err(|e| Invalid(format!("header regex: {e}")))
            }
        }
    }

    fn matches(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        headers.get_all(name).iter().any(|value| match self {
            Self::Present => true,
            Self::Exact(exact) => exact == value.as_bytes(),
            Self::Regex(regex) => regex.is_match(value.as_bytes()),
        })
    }
}

/// Headers whose values are not for everybody who may tap.
const SENSITIVE: [&str; 5] = [
    "authorization",
    "cookie",
    "set-cookie",
    "proxy-authorization",
    "x-api-key",
];
const REGEX_SIZE: usize = 1 << 20;
const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn http(m: pb_http::Match) -> ProtoMatch {
        let http = pb::Http { r#match: Some(m) };
        ProtoMatch {
            r#match: Some(pb::Match::Http(http)),
        }
    }

    fn request(uri: &str) -> Parts {
        http::Request::builder()
            .uri(uri)
            .header("host", "web:80")
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    fn matches(m: ProtoMatch, parts: &Parts) -> bool {
        let labels = Labels::new();
        let subject = Subject {
            client: "10.0.0.1:1000".parse().unwrap(),
            server: "10.0.1.2:8080".parse().unwrap(),
            http: Some(parts),
            server_labels: &labels,
            route_labels: None,
        };
        Matcher::parse(m).unwrap().matches(&subject)
    }

    #[test]
    fn trees_combine() {
        let method = |n| {
            http(pb_http::Match::Method(HttpMethod {
                r#type: Some(http_method::Type::Registered(n)),
            }))
        };
        let prefix = pb_http::StringMatch {
            r#match: Some(string_match::Match::Prefix("/api".into())),
        };
        let path = http(pb_http::Match::Path(prefix));
        let seq = |matches| pb::Seq { matches };
        let get_api = ProtoMatch {
            r#match: Some(pb::Match::All(seq(vec![method(0), path.clone()]))),
        };
        let not_get = ProtoMatch {
            r#match: Some(pb::Match::Not(Box::new(method(0)))),
        };
        let parts = request("/api/users?x=1");
        assert!(matches(get_api.clone(), &parts));
        assert!(!matches(get_api, &request("/other")));
        assert!(!matches(not_get, &parts));
    }

    #[test]
    fn addresses_match_by_network_and_port() {
        let tcp = |m| ProtoMatch {
            r#match: Some(pb::Match::Destination(pb::Tcp { r#match: Some(m) })),
        };
        let ip = IpAddress {
            ip: Some(ip_address::Ip::Ipv4(u32::from(Ipv4Addr::new(10, 0, 1, 0)))),
        };
        let net = |mask| tcp(pb_tcp::Match::Netmask(pb_tcp::Netmask { ip: Some(ip), mask }));
        let parts = request("/");
        assert!(matches(net(24), &parts));
        assert!(!matches(net(32), &parts));
        assert!(Matcher::parse(net(0)).is_err() && Matcher::parse(net(33)).is_err());
        let ports = |min, max| tcp(pb_tcp::Match::Ports(pb_tcp::PortRange { min, max }));
        assert!(matches(ports(8080, 0), &parts));
        assert!(!matches(ports(1, 80), &parts));
        assert!(Matcher::parse(ports(0, 0)).is_err());
    }

    #[test]
    fn the_path_expression_is_anchored_at_the_start() {
        let filter = Filter::parse(ProtoFilter {
            path_regex: "/api|/v1".into(),
            ..ProtoFilter::default()
        })
        .unwrap();
        assert!(filter.matches_request(&request("/api/x")));
        assert!(filter.matches_request(&request("/v1")));
        assert!(!filter.matches_request(&request("/x/api")));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let mut m = http(pb_http::Match::Scheme(Scheme {
            r#type: Some(scheme::Type::Registered(0)),
        }));
        for _ in 0..100 {
            m = ProtoMatch {
                r#match: Some(pb::Match::Not(Box::new(m))),
            };
        }
        assert!(Matcher::parse(m).is_err());
    }
}
