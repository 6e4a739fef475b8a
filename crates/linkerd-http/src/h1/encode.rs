//! Messages out: heads and chunks as bytes. No I/O.
//!
//! The framing on the wire is made here, from the body itself; what a message's headers say of it only decides when it
//! agrees. So no header that was passed on can contradict the bytes that follow.

use super::{Framing, parse::Asked};
use crate::Body;
use http::{HeaderMap, Method, StatusCode, Uri, Version, header, request, response};
use http_body::Body as _;
use linkerd_stack::{Cause, Error};

/// What a response says of its connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// Stays open, as HTTP/1.1 does without a word.
    Silent,
    KeepAlive,
    Close,
    /// Becomes a tunnel: the headers say so.
    Tunnel,
}

/// How a request's body is sent.
///
/// # Errors
/// A body whose end an HTTP/1.0 server could not see.
pub(super) fn request_framing(parts: &request::Parts, body: &Body) -> Result<Framing, Error> {
    match framing(&parts.headers, body)? {
        Framing::Chunked if parts.version == Version::HTTP_10 => Err(Error::new(
            Cause::MalformedRequest,
            "HTTP/1.0 request with a body of unknown length",
        )),
        framing => Ok(framing),
    }
}

/// How a response's body is sent to a client of `version`.
///
/// # Errors
/// Lengths that contradict each other.
pub(super) fn response_framing(
    parts: &response::Parts,
    body: &Body,
    asked: Asked,
    version: Version,
) -> Result<Framing, Error> {
    if is_bodiless(parts.status, asked) {
        return Ok(Framing::None);
    }
    match framing(&parts.headers, body)? {
        Framing::Chunked if version == Version::HTTP_10 => Ok(Framing::UntilClose),
        framing => Ok(framing),
    }
}

fn is_bodiless(status: StatusCode, asked: Asked) -> bool {
    asked.head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || (asked.connect && status.is_success())
}

fn framing(headers: &HeaderMap, body: &Body) -> Result<Framing, Error> {
    if body.is_end_stream() {
        return Ok(Framing::None);
    }
    let exact = body.size_hint().exact();
    let said = said_length(headers)?;
    match (said, exact) {
        (Some(said), Some(exact)) if said != exact => Err(Error::new(
            Cause::Internal,
            format!("content-length is {said} and the body has {exact} bytes"),
        )),
        (Some(length), _) | (None, Some(length)) => Ok(Framing::Length(length)),
        (None, None) => Ok(Framing::Chunked),
    }
}

fn said_length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut said = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = said.next() else { return Ok(None) };
    let length = first.to_str().ok().and_then(|text| text.parse().ok());
    match (length, said.next()) {
        (Some(length), None) => Ok(Some(length)),
        _ => Err(Error::new(Cause::MalformedRequest, "content-length is no number")),
    }
}

/// Writes a request's head.
pub(super) fn request_head(out: &mut Vec<u8>, parts: &request::Parts, framing: Framing) {
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    target(out, &parts.method, &parts.uri);
    out.extend_from_slice(if parts.version == Version::HTTP_10 {
        b" HTTP/1.0\r\n"
    } else {
        b" HTTP/1.1\r\n"
    });
    for (name, value) in &parts.headers {
        if !is_framing(name) {
            field(out, name, value);
        }
    }
    match framing {
        Framing::None if expects_body(&parts.method) => content_length(out, 0),
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => content_length(out, length),
        Framing::Chunked => out.extend_from_slice(CHUNKED),
    }
    out.extend_from_slice(b"\r\n");
}

/// A server may wait for the body of such a request when no length says that there is none (RFC 9110 §8.6).
fn expects_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn target(out: &mut Vec<u8>, method: &Method, uri: &Uri) {
    if let Some(scheme) = uri.scheme_str() {
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
    }
    if let Some(authority) = uri.authority() {
        out.extend_from_slice(authority.as_str().as_bytes());
    }
    if *method == Method::CONNECT {
        return;
    }
    let path = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let server_wide = path.is_empty() && *method == Method::OPTIONS && uri.authority().is_some();
    if !path.starts_with(['/', '*']) && !server_wide {
        out.push(b'/');
    }
    out.extend_from_slice(path.as_bytes());
}

/// Writes a response's head.
pub(super) fn response_head(
    out: &mut Vec<u8>,
    parts: &response::Parts,
    version: Version,
    framing: Framing,
    asked: Asked,
    persistence: Persistence,
) {
    out.extend_from_slice(if version == Version::HTTP_10 {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(parts.status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let tunnel = persistence == Persistence::Tunnel;
    // The length of what a GET would have answered.
    let keeps_length = asked.head || parts.status == StatusCode::NOT_MODIFIED;
    for (name, value) in &parts.headers {
        let own = (is_framing(name) && !(keeps_length && name == header::CONTENT_LENGTH))
            || (name == header::CONNECTION && !tunnel);
        if !own {
            field(out, name, value);
        }
    }
    match framing {
        Framing::None if !is_bodiless(parts.status, asked) => content_length(out, 0),
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => content_length(out, length),
        Framing::Chunked => out.extend_from_slice(CHUNKED),
    }
    match persistence {
        Persistence::Silent | Persistence::Tunnel => {}
        Persistence::KeepAlive => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Persistence::Close => out.extend_from_slice(b"connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes what stands before a chunk's data.
pub(super) fn chunk_size(out: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = (size >> (place * 4)) & 0xf;
        out.push(HEX.get(digit).copied().unwrap_or(b'0'));
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk with the trailers.
pub(super) fn last_chunk(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        if super::parse::may_trail(name) {
            field(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn is_framing(name: &header::HeaderName) -> bool {
    name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING
}

fn field(out: &mut Vec<u8>, name: &header::HeaderName, value: &header::HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"content-length: ");
    decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

fn decimal(out: &mut Vec<u8>, number: u64) {
    let start = out.len();
    let mut rest = number;
    loop {
        out.push(HEX.get((rest % 10) as usize).copied().unwrap_or(b'0'));
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

const CHUNKED: &[u8] = b"transfer-encoding: chunked\r\n";
const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests;
