//! Headers that concern one hop, and the passage of HTTP/1 messages over HTTP/2 between proxies.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use linkerd_stack::{Cause, Error};

pub const L5D_ORIG_PROTO: HeaderName = HeaderName::from_static("l5d-orig-proto");
pub const L5D_CLIENT_ID: HeaderName = HeaderName::from_static("l5d-client-id");
pub const L5D_DST_CANONICAL: HeaderName = HeaderName::from_static("l5d-dst-canonical");
pub const L5D_PROXY_ERROR: HeaderName = HeaderName::from_static("l5d-proxy-error");
pub const L5D_PROXY_CONNECTION: HeaderName = HeaderName::from_static("l5d-proxy-connection");
pub const L5D_DST_OVERRIDE: HeaderName = HeaderName::from_static("l5d-dst-override");
pub const L5D_REQUIRE_ID: HeaderName = HeaderName::from_static("l5d-require-id");

/// Whether the request asks for another protocol on its connection, which only HTTP/1.1 can.
#[must_use]
pub fn is_upgrade(parts: &Parts) -> bool {
    parts.version == Version::HTTP_11 && (parts.method == Method::CONNECT || wants_upgrade(&parts.headers))
}

fn wants_upgrade(headers: &HeaderMap) -> bool {
    let named = headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|v| tokens(v).any(|t| t.eq_ignore_ascii_case("upgrade")));
    // An upgrade to HTTP/2 in clear text would carry requests past the checks of each: RFC 9113 has dropped it.
    let mut wanted = headers
        .get_all(header::UPGRADE)
        .iter()
        .flat_map(tokens)
        .peekable();
    named && wanted.peek().is_some() && wanted.all(|t| !t.eq_ignore_ascii_case("h2c"))
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value
        .to_str()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
}

/// Removes what RFC 9110 §7.6.1 keeps between two neighbours, unless it belongs to an upgrade.
///
/// How a body was coded is among it: whoever sends it on codes it anew, so that no server reads `chunked, chunked` in
/// its own way.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    // Most messages have few fields and none of these: one look at each costs less than six searches.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    if !upgrade {
        strip_connection_named(headers);
        headers.remove(header::CONNECTION);
        headers.remove(header::UPGRADE);
    }
    headers.remove("proxy-connection");
    headers.remove("keep-alive");
    headers.remove("http2-settings");
    headers.remove(header::TRANSFER_ENCODING);
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "upgrade" | "proxy-connection" | "keep-alive" | "http2-settings" | "transfer-encoding"
    )
}

/// Whether a message has any of the fields that proxies of the mesh tell each other.
#[must_use]
pub fn any_of_mesh(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("l5d-"))
}

fn strip_connection_named(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(tokens)
        .filter_map(|t| t.parse().ok())
        .filter(|name| !FRAMING.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// A sender must not be able to take the message's framing or its host away by naming them in `connection`.
const FRAMING: [HeaderName; 3] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::HOST];

/// Where a request says it wants to go: the URI's authority, or the host header.
///
/// # Errors
/// Whatever two servers could read as two hosts: more than one host header, a host that is no authority, user
/// information (RFC 9110 §4.2.4), and `CONNECT` to something else than an authority.
pub fn authority(parts: &Parts) -> Result<Option<Authority>, Error> {
    let malformed = |why| Err(Error::new(Cause::MalformedRequest, why));
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return malformed("more than one host header");
    }
    let authority = match (parts.uri.authority(), host) {
        (Some(authority), _) => authority.clone(),
        (None, _) if parts.method == Method::CONNECT => return malformed("CONNECT needs an authority"),
        (None, None) => return Ok(None),
        (None, Some(host)) if host.is_empty() => return Ok(None),
        (None, Some(host)) => match Authority::from_maybe_shared(Bytes::copy_from_slice(host.as_bytes())) {
            Ok(authority) => authority,
            Err(_) => return malformed("the host header is no authority"),
        },
    };
    if authority.as_str().contains('@') {
        return malformed("user information in the authority");
    }
    Ok(Some(authority))
}

/// Makes an HTTP/1 request fit for HTTP/2, remembering in `l5d-orig-proto` what it was.
///
/// # Errors
/// Never for a request whose target was valid; the error says which part was not.
pub fn upgrade_to_h2(parts: &mut Parts, authority: Authority) -> Result<(), Error> {
    if parts.version != Version::HTTP_2 {
        let absolute = parts.uri.authority().is_some();
        let proto = match (parts.version, absolute) {
            (Version::HTTP_10, false) => "HTTP/1.0",
            (Version::HTTP_10, true) => "HTTP/1.0; absolute-form",
            (_, false) => "HTTP/1.1",
            (_, true) => "HTTP/1.1; absolute-form",
        };
        strip_hop_by_hop(&mut parts.headers, false);
        parts
            .headers
            .insert(L5D_ORIG_PROTO, HeaderValue::from_static(proto));
    }
    make_h2(parts, authority)
}

/// Gives a request the form that HTTP/2 wants.
///
/// # Errors
/// A target that cannot be written as a URI.
pub fn make_h2(parts: &mut Parts, authority: Authority) -> Result<(), Error> {
    parts.version = Version::HTTP_2;
    let headers = &mut parts.headers;
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::HOST);
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    uri.authority = Some(authority);
    uri.scheme.get_or_insert(Scheme::HTTP);
    uri.path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from_parts(uri).map_err(|e| Error::new(Cause::MalformedRequest, e.to_string()))?;
    Ok(())
}

/// Whether an HTTP/2 request was HTTP/1 at the client, and which.
#[must_use]
pub fn take_orig_proto(headers: &mut HeaderMap) -> Option<OrigProto> {
    let value = headers.remove(L5D_ORIG_PROTO)?;
    let mut words = value.to_str().ok()?.split(';').map(str::trim);
    let version = match words.next()? {
        "HTTP/1.1" => Version::HTTP_11,
        "HTTP/1.0" => Version::HTTP_10,
        _ => return None,
    };
    Some(OrigProto {
        version,
        absolute: words.any(|w| w == "absolute-form"),
    })
}

/// An HTTP/1 request's form before it was sent over HTTP/2.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct OrigProto {
    pub version: Version,
    pub absolute: bool,
}

/// Makes an HTTP/2 request the HTTP/1 request that it was, or that an HTTP/1 server can read.
///
/// # Errors
/// A target that cannot be written as a URI.
pub fn make_h1(parts: &mut Parts, orig: OrigProto) -> Result<(), Error> {
    parts.version = orig.version;
    parts.headers.remove(header::TRANSFER_ENCODING);
    join_cookies(&mut parts.headers);
    set_host(parts)?;
    if !orig.absolute && parts.method != Method::CONNECT {
        make_origin_form(parts)?;
    }
    Ok(())
}

/// Makes the host header say what the target says: the target decides (RFC 9112 §3.2.2), and a server that reads only
/// the header must not see another host than the one that was checked.
///
/// # Errors
/// An authority that no header can carry.
pub fn set_host(parts: &mut Parts) -> Result<(), Error> {
    let Some(authority) = parts.uri.authority() else {
        return Ok(());
    };
    let host = HeaderValue::from_str(authority.as_str())
        .map_err(|e| Error::new(Cause::MalformedRequest, e.to_string()))?;
    parts.headers.insert(header::HOST, host);
    Ok(())
}

/// Leaves only path and query in the request's target; its authority goes into the host header.
///
/// # Errors
/// An authority that no header can carry.
pub fn make_origin_form(parts: &mut Parts) -> Result<(), Error> {
    if parts.uri.authority().is_none() {
        return Ok(());
    }
    set_host(parts)?;
    let path = parts
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    Ok(())
}

/// The request's target with the authority that it names.
#[must_use]
pub fn absolute_uri(parts: &Parts) -> Uri {
    let mut uri = parts.uri.clone().into_parts();
    if uri.authority.is_none() {
        uri.authority = authority(parts).ok().flatten();
        uri.scheme = uri.authority.is_some().then_some(Scheme::HTTP);
    }
    Uri::from_parts(uri).unwrap_or_else(|_| parts.uri.clone())
}

/// HTTP/2 may split cookies into several fields; HTTP/1 knows only one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}

/// Readies an application's response for the way back over HTTP/2.
pub fn response_to_h2(version: &mut Version, headers: &mut HeaderMap, orig: Option<OrigProto>) {
    if let Some(orig) = orig {
        let proto = match *version {
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        let _ = orig;
        headers.insert(L5D_ORIG_PROTO, HeaderValue::from_static(proto));
    }
    strip_hop_by_hop(headers, false);
    headers.remove(header::TRANSFER_ENCODING);
    *version = Version::HTTP_2;
}

/// Readies a response for an HTTP/1 client.
pub fn response_to_h1(status: StatusCode, version: &mut Version, headers: &mut HeaderMap, client: Version) {
    headers.remove(L5D_ORIG_PROTO);
    strip_hop_by_hop(headers, status == StatusCode::SWITCHING_PROTOCOLS);
    *version = client;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri).version(Version::HTTP_11);
        for (k, v) in headers {
            request = request.header(*k, *v);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn no_upgrade_hides_clear_text_http2() {
        for value in ["h2c", "H2C", "h2c, websocket", "websocket, h2c"] {
            assert!(
                !is_upgrade(&parts("/", &[("connection", "upgrade"), ("upgrade", value)])),
                "{value}"
            );
        }
        let twice = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("upgrade", "h2c"),
        ];
        assert!(!is_upgrade(&parts("/", &twice)));
        assert!(is_upgrade(&parts(
            "/",
            &[("connection", "upgrade"), ("upgrade", "websocket")]
        )));
    }

    #[test]
    fn the_server_reads_the_host_that_was_checked() {
        let mut request = parts("http://public/x", &[("host", "admin")]);
        assert_eq!(authority(&request).unwrap().unwrap(), "public");
        make_origin_form(&mut request).unwrap();
        assert_eq!(request.uri, "/x");
        assert_eq!(
            request.headers.get_all(header::HOST).iter().collect::<Vec<_>>(),
            ["public"]
        );

        let mut request = parts("http://public/x", &[("host", "admin")]);
        let orig = OrigProto {
            version: Version::HTTP_11,
            absolute: false,
        };
        make_h1(&mut request, orig).unwrap();
        assert_eq!(
            request.headers.get_all(header::HOST).iter().collect::<Vec<_>>(),
            ["public"]
        );
    }

    #[test]
    fn a_request_comes_back_from_http2_as_it_was() {
        let mut request = parts(
            "/path?q=1",
            &[
                ("host", "web:80"),
                ("connection", "x-hop"),
                ("x-hop", "1"),
                ("x", "y"),
            ],
        );
        let authority = authority(&request).unwrap().unwrap();
        upgrade_to_h2(&mut request, authority).unwrap();
        assert_eq!(request.uri, "http://web:80/path?q=1");
        assert_eq!(request.version, Version::HTTP_2);
        assert!(!request.headers.contains_key("x-hop") && !request.headers.contains_key("host"));

        let orig = take_orig_proto(&mut request.headers).unwrap();
        make_h1(&mut request, orig).unwrap();
        assert_eq!(request.uri, "/path?q=1");
        assert_eq!(request.headers["host"], "web:80");
        assert_eq!(request.headers["x"], "y");
        assert_eq!(request.headers.len(), 2);
    }

    #[test]
    fn an_absolute_target_stays_absolute() {
        let mut request = parts("http://web/x", &[("host", "web")]);
        let authority = authority(&request).unwrap().unwrap();
        upgrade_to_h2(&mut request, authority).unwrap();
        let orig = take_orig_proto(&mut request.headers).unwrap();
        assert!(orig.absolute);
        make_h1(&mut request, orig).unwrap();
        assert_eq!(request.uri, "http://web/x");
    }

    #[test]
    fn framing_cannot_be_named_away() {
        let mut request = parts(
            "/",
            &[
                ("host", "a"),
                ("content-length", "3"),
                ("connection", "content-length, host"),
            ],
        );
        strip_hop_by_hop(&mut request.headers, false);
        assert_eq!(request.headers.len(), 2);
    }

    #[test]
    fn an_upgrade_keeps_its_headers() {
        let mut request = parts(
            "/",
            &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")],
        );
        assert!(is_upgrade(&request));
        strip_hop_by_hop(&mut request.headers, true);
        assert_eq!(request.headers["upgrade"], "websocket");
        let h2c = parts("/", &[("connection", "Upgrade"), ("upgrade", "h2c")]);
        assert!(!is_upgrade(&h2c));
    }

    #[test]
    fn two_hosts_are_refused() {
        assert!(authority(&parts("/", &[("host", "a"), ("host", "b")])).is_err());
        assert!(authority(&parts("http://a/", &[("host", "a"), ("host", "b")])).is_err());
        assert!(authority(&parts("/", &[("host", "a b")])).is_err());
        assert!(authority(&parts("/", &[("host", "b@a")])).is_err());
        assert!(authority(&parts("http://b@a/", &[])).is_err());
        assert_eq!(authority(&parts("/", &[])).unwrap(), None);
    }

    #[test]
    fn connect_needs_an_authority() {
        let mut request = parts("/a", &[("host", "a")]);
        request.method = Method::CONNECT;
        assert!(authority(&request).is_err());
        request.uri = "a:80".parse().unwrap();
        assert_eq!(authority(&request).unwrap().unwrap(), "a:80");
    }

    #[test]
    fn a_body_is_coded_anew() {
        let mut request = parts("/", &[("host", "a"), ("transfer-encoding", "chunked, chunked")]);
        strip_hop_by_hop(&mut request.headers, true);
        assert_eq!(request.headers.len(), 1);
    }

    #[test]
    fn cookies_become_one() {
        let mut request = parts("/", &[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut request.headers);
        assert_eq!(request.headers["cookie"], "a=1; b=2");
    }
}
