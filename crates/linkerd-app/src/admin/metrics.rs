//! The scrape.

use super::with_type;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use linkerd_http::Response;
use linkerd_metrics::{PROTOBUF_TYPE, Protobuf, Registry, Text};
use std::io::{self, Write as _};

pub(super) fn respond(headers: &HeaderMap, registry: &Registry) -> Response {
    let (kind, body) = if wants_protobuf(headers) {
        let mut out = Protobuf::default();
        registry.encode(&mut out);
        (PROTOBUF_TYPE, Bytes::from(out.finish()))
    } else {
        let mut out = Text::default();
        registry.encode(&mut out);
        ("text/plain", Bytes::from(out.finish()))
    };
    if !values(headers, &header::ACCEPT_ENCODING).any(|coding| coding.starts_with("gzip")) {
        return with_type(StatusCode::OK, kind, body);
    }
    let Ok(compressed) = gzip(&body) else {
        return with_type(StatusCode::OK, kind, body);
    };
    let mut response = with_type(StatusCode::OK, kind, compressed);
    response
        .headers_mut()
        .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}

/// Prometheus names protobuf first when it is configured for native histograms, and not otherwise.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    let mut kinds = values(headers, &header::ACCEPT);
    kinds.next().is_some_and(|first| {
        first.starts_with("application/vnd.google.protobuf") && first.contains("delimited")
    })
}

/// The elements of a header's comma-separated lists.
fn values<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The fastest level: a scrape every few seconds must not be felt by the traffic.
fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}
