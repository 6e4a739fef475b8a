//! The scrape.

use super::text;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use linkerd_control::Control;
use linkerd_http::Response;
use linkerd_metrics::Registry;
use std::io::{self, Write as _};

pub(super) fn respond(headers: &HeaderMap, registry: &Registry, control: &Control) -> Response {
    let mut out = String::new();
    registry.render(&mut out);
    crate::process::render(&mut out, control);
    out.push_str("# EOF\n");
    if !wants_gzip(headers) {
        return text(StatusCode::OK, out);
    }
    match gzip(out.as_bytes()) {
        Ok(compressed) => {
            let mut response = text(StatusCode::OK, compressed);
            response
                .headers_mut()
                .insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
        Err(_) => text(StatusCode::OK, out),
    }
}

fn wants_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().starts_with("gzip"))
}

/// The fastest level: a scrape every few seconds must not be felt by the traffic.
fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 8), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}
