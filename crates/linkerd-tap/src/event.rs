//! The messages that a tap's reader gets.

use crate::{
    matching::{Filter, authority},
    registry::{Connection, Direction},
    session::Tap,
};
use http::{HeaderMap, Method, StatusCode, request::Parts};
use linkerd_http::{End, classify};
use linkerd_policy::Labels;
use linkerd_proto::{
    http_types::{Headers, HttpMethod, Scheme, headers::Header, http_method, scheme},
    net::{IPv6, IpAddress, TcpAddress, ip_address},
    tap::{
        Eos, TapEvent, eos,
        tap_event::{EndpointMeta, Event, Http, ProxyDirection, RouteMeta, Tcp, http as http_event, tcp},
    },
};
use linkerd_stack::{Cause, Source};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

#[derive(Copy, Clone, Debug)]
pub(crate) struct Times {
    pub(crate) since_request: Duration,
    pub(crate) since_response: Duration,
}

/// What all events of a request or connection have in common.
pub(crate) fn base(connection: &Connection, route: Option<&Labels>) -> TapEvent {
    let labels = |l: &Labels| l.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let direction = match connection.direction {
        Direction::Inbound => ProxyDirection::Inbound,
        Direction::Outbound => ProxyDirection::Outbound,
    };
    TapEvent {
        source: Some(address(connection.client)),
        source_meta: Some(EndpointMeta {
            labels: labels(&connection.client_labels),
        }),
        destination: Some(address(connection.server)),
        destination_meta: Some(EndpointMeta {
            labels: labels(&connection.server_labels),
        }),
        route_meta: route.map(|l| RouteMeta { labels: labels(l) }),
        proxy_direction: direction.into(),
        ..TapEvent::default()
    }
}

fn address(addr: SocketAddr) -> TcpAddress {
    let ip = match addr.ip() {
        IpAddr::V4(v4) => ip_address::Ip::Ipv4(v4.into()),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, rest @ ..] = v6.octets();
            ip_address::Ip::Ipv6(IPv6 {
                first: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
                last: u64::from_be_bytes(rest),
            })
        }
    };
    TcpAddress {
        ip: Some(IpAddress { ip: Some(ip) }),
        port: addr.port().into(),
    }
}

pub(crate) fn request_init(tap: &Tap, stream: u64, parts: &Parts) -> Event {
    let scheme = parts.uri.scheme_str().unwrap_or("http");
    let path = parts
        .uri
        .path_and_query()
        .map_or("", http::uri::PathAndQuery::as_str);
    let pseudo = [
        (":method", parts.method.as_str()),
        (":scheme", scheme),
        (":authority", authority(parts)),
        (":path", path),
    ];
    http(http_event::Event::RequestInit(http_event::RequestInit {
        id: id(tap, stream),
        method: Some(method(&parts.method)),
        scheme: Some(Scheme {
            r#type: Some(match scheme {
                "http" => scheme::Type::Registered(scheme::Registered::Http.into()),
                "https" => scheme::Type::Registered(scheme::Registered::Https.into()),
                other => scheme::Type::Unregistered(other.to_owned()),
            }),
        }),
        authority: authority(parts).to_owned(),
        path: path.to_owned(),
        headers: tap.headers.then(|| headers(&tap.filter, &pseudo, &parts.headers)),
    }))
}

pub(crate) fn response_init(
    tap: &Tap,
    stream: u64,
    status: StatusCode,
    map: &HeaderMap,
    since_request: Duration,
) -> Event {
    http(http_event::Event::ResponseInit(http_event::ResponseInit {
        id: id(tap, stream),
        since_request_init: duration(since_request),
        http_status: status.as_u16().into(),
        headers: tap
            .headers
            .then(|| headers(&tap.filter, &[(":status", status.as_str())], map)),
    }))
}

pub(crate) fn response_end(
    (tap, stream): (&Tap, u64),
    times: Times,
    response_bytes: u64,
    grpc_status: Option<u16>,
    end: End<'_>,
) -> Event {
    let trailers = match end {
        End::Complete(trailers) => trailers,
        End::Failed(_) | End::Dropped => None,
    };
    let grpc_status = trailers.and_then(classify::grpc_status).or(grpc_status);
    let reset = match end {
        End::Failed(error) => error.reset(),
        End::Complete(_) | End::Dropped => None,
    };
    let ended = reset
        .map(eos::End::ResetErrorCode)
        .or(grpc_status.map(|code| eos::End::GrpcStatusCode(code.into())));
    http(http_event::Event::ResponseEnd(http_event::ResponseEnd {
        id: id(tap, stream),
        since_request_init: duration(times.since_request),
        since_response_init: duration(times.since_response),
        response_bytes,
        eos: Some(Eos { end: ended }),
        trailers: trailers
            .filter(|_| tap.headers)
            .map(|t| headers(&tap.filter, &[], t)),
    }))
}

/// Who ended a stream and how, and the cause when the proxy knows one.
pub(crate) fn close_reason(end: End<'_>, answered: Option<Cause>) -> (String, Option<Cause>) {
    match (end, answered) {
        (End::Complete(_), None) => ("server".into(), None),
        (End::Complete(_), Some(cause)) => (format!("proxy: {cause}"), Some(cause)),
        (End::Dropped, _) => ("client: gave up".into(), Some(Cause::DownstreamClosed)),
        (End::Failed(error), _) => {
            let who = match error.cause().source() {
                Source::Downstream => "client",
                Source::Upstream => "server",
                Source::Internal => "proxy",
            };
            (format!("{who}: {}", error.detail()), Some(error.cause()))
        }
    }
}

pub(crate) fn tcp_open(id: u64) -> Event {
    Event::Tcp(Tcp {
        id,
        event: Some(tcp::Event::Open(tcp::Open {})),
    })
}

pub(crate) fn tcp_close(id: u64, since_open: Duration, to_server: u64, to_client: u64) -> Event {
    let close = tcp::Close {
        since_open: duration(since_open),
        read_bytes: to_server,
        write_bytes: to_client,
    };
    Event::Tcp(Tcp {
        id,
        event: Some(tcp::Event::Close(close)),
    })
}

fn http(event: http_event::Event) -> Event {
    Event::Http(Http { event: Some(event) })
}

#[expect(clippy::unnecessary_wraps, reason = "the messages' fields are optional")]
fn id(tap: &Tap, stream: u64) -> Option<http_event::StreamId> {
    Some(http_event::StreamId {
        base: tap.base,
        stream,
    })
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

fn method(method: &Method) -> HttpMethod {
    let registered = http_method::Registered::from_str_name(method.as_str());
    HttpMethod {
        r#type: Some(match registered {
            Some(registered) => http_method::Type::Registered(registered.into()),
            None => http_method::Type::Unregistered(method.as_str().to_owned()),
        }),
    }
}

fn headers(filter: &Filter, pseudo: &[(&str, &str)], map: &HeaderMap) -> Headers {
    let pseudo = pseudo.iter().map(|(name, value)| Header {
        name: (*name).to_owned(),
        value: value.as_bytes().to_vec(),
    });
    let fields = map.iter().map(|(name, value)| Header {
        name: name.as_str().to_owned(),
        value: if filter.is_redacted(name) {
            REDACTED.to_vec()
        } else {
            value.as_bytes().to_vec()
        },
    });
    Headers {
        headers: pseudo.chain(fields).collect(),
    }
}

const REDACTED: &[u8] = b"[redacted]";
