//! Targets and hosts of requests, and their way from HTTP/1 over HTTP/2 back to HTTP/1.

use crate::Target;
use http::{HeaderValue, Method, Uri, Version, header};
use linkerd_http::headers;

pub(crate) const TARGET: Target = Target {
    name: "names",
    run,
    seeds: &[
        b"/a?b=c\na",
        b"http://a:80/b\na:80",
        b"http://b@a/\na",
        b"*\na",
        b"a:443\na:443",
        b"/a\n[::1]:80",
        b"/%2e%2e//a;b\nA.b.",
    ],
};

/// A host that was found is one host and nobody's user; the server at the end reads it and the target as the client
/// wrote them.
fn run(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |b| *b == b'\n');
    let (target, host) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let (Ok(uri), Ok(host)) = (Uri::try_from(target), HeaderValue::from_bytes(host)) else {
        return;
    };
    let request = http::Request::builder()
        .uri(uri.clone())
        .header(header::HOST, &host)
        .body(())
        .unwrap();
    let (mut parts, ()) = request.into_parts();
    let Ok(Some(authority)) = headers::authority(&parts) else {
        return;
    };
    assert!(
        !authority.as_str().contains(['@', '/', '\\', ' ', ',']),
        "{authority}"
    );
    if uri.authority().is_none() {
        assert_eq!(authority.as_str().as_bytes(), host.as_bytes());
    }
    if parts.method == Method::CONNECT || (uri.scheme().is_none() && uri.authority().is_some()) {
        return;
    }
    headers::upgrade_to_h2(&mut parts, authority.clone()).unwrap();
    assert_eq!(parts.version, Version::HTTP_2);
    assert_eq!(parts.uri.authority(), Some(&authority));
    let orig = headers::take_orig_proto(&mut parts.headers).expect("the other proxy is told what it was");
    headers::make_h1(&mut parts, orig).unwrap();
    assert_eq!(
        parts.headers.get_all(header::HOST).iter().collect::<Vec<_>>(),
        [authority.as_str()]
    );
    assert_eq!(
        parts.uri.path_and_query().map(ToString::to_string),
        uri.path_and_query().map(ToString::to_string)
    );
    assert_eq!(parts.uri.authority(), uri.authority());
}
