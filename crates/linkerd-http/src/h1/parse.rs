//! Heads: bytes in, requests and responses out. No I/O.
//!
//! Stricter than RFC 9112 obliges to be. What two parsers could read in two ways is refused, because a message that
//! the next hop frames differently from this one carries a second message past every check (request smuggling).

use super::Framing;
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request, response};
use linkerd_stack::{Cause, Error};
use std::{mem::MaybeUninit, str::from_utf8};

/// How much of a head is accepted.
#[derive(Copy, Clone, Debug)]
pub(super) struct Limits {
    pub(super) bytes: usize,
    pub(super) fields: usize,
}

/// A request without its body.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) parts: request::Parts,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    /// The client waits for a word before it sends the body.
    pub(super) expects_continue: bool,
}

/// A response without its body.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) parts: response::Parts,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
}

/// What a client has asked, as far as it decides how the response is framed (RFC 9112 §6.3).
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) head: bool,
    pub(super) connect: bool,
}

impl Asked {
    pub(super) fn by(method: &Method) -> Self {
        Self {
            head: method == Method::HEAD,
            connect: method == Method::CONNECT,
        }
    }
}

/// Why a message is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
}

impl Refused {
    /// The client's fault.
    pub(super) fn of_request(&self) -> Error {
        let cause = match self.status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Cause::HeadTooLarge,
            StatusCode::REQUEST_TIMEOUT => Cause::HeadTimeout,
            _ => Cause::MalformedRequest,
        };
        Error::new(cause, self.reason)
    }

    /// The server's fault.
    pub(super) fn of_response(&self) -> Error {
        Error::new(Cause::UpstreamProtocol, self.reason)
    }
}

const fn malformed(reason: &'static str) -> Refused {
    Refused {
        status: StatusCode::BAD_REQUEST,
        reason,
    }
}

const fn too_large(reason: &'static str) -> Refused {
    Refused {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        reason,
    }
}

/// Cuts heads out of what was read so far.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// How much of the unfinished head was searched for its end.
    searched: usize,
    empty_lines: u8,
}

impl Cutter {
    /// The next head with the empty line that ends it, once all of it is there.
    pub(super) fn cut(&mut self, unread: &mut BytesMut, limits: Limits) -> Result<Option<Bytes>, Refused> {
        self.skip_empty_lines(unread)?;
        match find_end(unread, self.searched)? {
            Some(end) if end > limits.bytes => Err(too_large("head too large")),
            Some(end) => {
                *self = Self::default();
                Ok(Some(take(unread, end)))
            }
            None if unread.len() > limits.bytes => Err(too_large("head too large")),
            None => {
                // A lone CR may still be an empty line that comes too early.
                self.searched = if unread.len() > 1 { unread.len() } else { 0 };
                Ok(None)
            }
        }
    }

    /// RFC 9112 §2.2: old clients send an empty line too many after a request.
    fn skip_empty_lines(&mut self, unread: &mut BytesMut) -> Result<(), Refused> {
        while self.searched == 0 && unread.starts_with(b"\r\n") {
            if self.empty_lines == MAX_EMPTY_LINES {
                return Err(malformed("empty lines instead of a request"));
            }
            self.empty_lines += 1;
            unread.advance(2);
        }
        if unread.is_empty() {
            // Lets go of the buffer.
            *unread = BytesMut::new();
        }
        Ok(())
    }
}

/// Takes the first `len` bytes. An emptied buffer is let go of: an idle connection must not hold one.
pub(super) fn take(unread: &mut BytesMut, len: usize) -> Bytes {
    if len < unread.len() {
        return unread.split_to(len).freeze();
    }
    std::mem::take(unread).freeze()
}

/// Finds the end of a head or of trailers; the first `searched` bytes have no end.
pub(super) fn find_end(buf: &[u8], searched: usize) -> Result<Option<usize>, Refused> {
    let unsearched = buf.get(searched..).unwrap_or_default();
    for at in memchr::memchr_iter(b'\n', unsearched).map(|at| at + searched) {
        let line = buf.get(..at).unwrap_or_default();
        let Some(line) = line.strip_suffix(b"\r") else {
            return Err(malformed("line ends without CR"));
        };
        if line.ends_with(b"\r\n") || line.is_empty() {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// Reads a request's head.
pub(super) fn request(head: &Bytes, limits: Limits) -> Result<RequestHead, Refused> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let fields = fields.get_mut(..limits.fields).ok_or(too_many())?;
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed
        .parse_with_uninit_headers(head, fields)
        .map_err(of_httparse)?;
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(malformed("unfinished request line"));
    };
    if status != httparse::Status::Complete(head.len()) {
        return Err(malformed("unfinished head"));
    }
    let version = version(minor);
    let fields = Fields::read(head, parsed.headers)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| malformed("not a method"))?;
    let uri = target_of(&method, head.slice_ref(target.as_bytes()))?;
    let framing = fields.request_framing(version)?;
    if fields.hosts > 1 {
        return Err(malformed("more than one host header"));
    }
    let keep_alive = fields.keeps_alive(version);
    let expects_continue = fields.expects_continue && version == Version::HTTP_11;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.version = version;
    parts.headers = fields.map;
    Ok(RequestHead {
        parts,
        framing,
        keep_alive,
        expects_continue,
    })
}

/// Reads a response's head.
pub(super) fn response(head: &Bytes, asked: Asked, limits: Limits) -> Result<ResponseHead, Refused> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let fields = fields.get_mut(..limits.fields).ok_or(too_many())?;
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, head, fields)
        .map_err(of_httparse)?;
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(malformed("unfinished status line"));
    };
    if status != httparse::Status::Complete(head.len()) {
        return Err(malformed("unfinished head"));
    }
    let version = version(minor);
    let code = StatusCode::from_u16(code).map_err(|_| malformed("not a status"))?;
    let fields = Fields::read(head, parsed.headers)?;
    let framing = fields.response_framing(version, code, asked)?;
    let keep_alive = fields.keeps_alive(version) && framing != Framing::UntilClose;
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = code;
    parts.version = version;
    parts.headers = fields.map;
    Ok(ResponseHead {
        parts,
        framing,
        keep_alive,
    })
}

/// Reads the fields after the last chunk, with the empty line that ends them. What must not come this late is dropped
/// (RFC 9110 §6.5.1), as an application that merges trailers into headers would believe it.
pub(super) fn trailers(section: &Bytes) -> Result<HeaderMap, Refused> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let parsed = httparse::parse_headers(section, &mut fields).map_err(of_httparse)?;
    let httparse::Status::Complete((_, fields)) = parsed else {
        return Err(malformed("unfinished trailers"));
    };
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let (name, value) = field_of(section, field)?;
        if may_trail(&name) {
            map.append(name, value);
        }
    }
    Ok(map)
}

pub(super) fn may_trail(name: &HeaderName) -> bool {
    let name = name.as_str();
    !NEVER_TRAILERS.contains(&name) && !name.starts_with("l5d-") && !name.starts_with("proxy-")
}

/// The fields of a head, and what they say of its framing.
struct Fields {
    map: HeaderMap,
    length: Option<u64>,
    coded: Option<Coding>,
    hosts: u8,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

/// What a transfer-encoding says.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Coding {
    Chunked,
    /// Chunked at last, after codings that this proxy does not have.
    Other,
    /// Without a visible end.
    Endless,
}

impl Fields {
    fn read(head: &Bytes, fields: &[httparse::Header<'_>]) -> Result<Self, Refused> {
        let mut this = Self {
            map: HeaderMap::with_capacity(fields.len()),
            length: None,
            coded: None,
            hosts: 0,
            close: false,
            keep_alive: false,
            expects_continue: false,
        };
        for field in fields {
            this.note(field)?;
            let (name, value) = field_of(head, field)?;
            this.map.append(name, value);
        }
        Ok(this)
    }

    /// Few fields matter here, and their lengths differ: most others cost one comparison.
    fn note(&mut self, field: &httparse::Header<'_>) -> Result<(), Refused> {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            4 if is("host") => self.hosts = self.hosts.saturating_add(1),
            6 if is("expect") => {
                self.expects_continue = field.value.eq_ignore_ascii_case(b"100-continue");
            }
            10 if is("connection") => {
                let named =
                    |token: &str| tokens(field.value).any(|t| t.eq_ignore_ascii_case(token.as_bytes()));
                self.close |= named("close");
                self.keep_alive |= named("keep-alive");
            }
            14 if is("content-length") => {
                let length = length(field.value).ok_or(malformed("content-length is no number"))?;
                if self.length.replace(length).is_some() {
                    return Err(malformed("more than one content-length"));
                }
            }
            17 if is("transfer-encoding") => {
                let before = self.coded.replace(coding(field.value));
                if before.is_some() {
                    return Err(malformed("more than one transfer-encoding"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version == Version::HTTP_11 || self.keep_alive)
    }

    fn request_framing(&self, version: Version) -> Result<Framing, Refused> {
        match self.coding(version)? {
            Some(Coding::Chunked) => Ok(Framing::Chunked),
            Some(Coding::Other) => Err(Refused {
                status: StatusCode::NOT_IMPLEMENTED,
                reason: "transfer-encoding other than chunked",
            }),
            Some(Coding::Endless) => Err(malformed("transfer-encoding does not end in chunked")),
            None => Ok(self.length_framing().unwrap_or(Framing::None)),
        }
    }

    fn response_framing(&self, version: Version, code: StatusCode, asked: Asked) -> Result<Framing, Refused> {
        // Checked even where there is no body: what contradicts itself may mean something else to the next hop.
        let coding = self.coding(version)?;
        let bodiless = asked.head
            || code.is_informational()
            || matches!(code, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || (asked.connect && code.is_success());
        if bodiless {
            return Ok(Framing::None);
        }
        match coding {
            Some(Coding::Chunked) => Ok(Framing::Chunked),
            Some(Coding::Other | Coding::Endless) => Err(malformed("transfer-encoding other than chunked")),
            None => Ok(self.length_framing().unwrap_or(Framing::UntilClose)),
        }
    }

    fn coding(&self, version: Version) -> Result<Option<Coding>, Refused> {
        if self.coded.is_some() && self.length.is_some() {
            return Err(malformed("both transfer-encoding and content-length"));
        }
        if self.coded.is_some() && version == Version::HTTP_10 {
            return Err(malformed("transfer-encoding in HTTP/1.0"));
        }
        Ok(self.coded)
    }

    fn length_framing(&self) -> Option<Framing> {
        self.length.map(|length| match length {
            0 => Framing::None,
            length => Framing::Length(length),
        })
    }
}

/// The name and the value of a field, the value without being copied.
fn field_of(head: &Bytes, field: &httparse::Header<'_>) -> Result<(HeaderName, HeaderValue), Refused> {
    let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed("not a field name"))?;
    // An empty value is not always a part of the buffer that it was cut from.
    let value = match field.value {
        [] => Bytes::new(),
        value => head.slice_ref(value),
    };
    let value = HeaderValue::from_maybe_shared(value).map_err(|_| malformed("not a field value"))?;
    Ok((name, value))
}

/// RFC 9112 §3.2: which of the four forms a target has depends on the method.
fn target_of(method: &Method, target: Bytes) -> Result<Uri, Refused> {
    let first = target.first().copied();
    let uri = Uri::from_maybe_shared(target).map_err(|_| malformed("not a request target"))?;
    let (scheme, authority) = (uri.scheme().is_some(), uri.authority().is_some());
    let fits = if *method == Method::CONNECT {
        authority && !scheme && uri.path_and_query().is_none()
    } else {
        match first {
            Some(b'/') => true,
            Some(b'*') => *method == Method::OPTIONS,
            _ => scheme && authority,
        }
    };
    if fits {
        Ok(uri)
    } else {
        Err(malformed("the request target does not fit the method"))
    }
}

const fn version(minor: u8) -> Version {
    match minor {
        0 => Version::HTTP_10,
        _ => Version::HTTP_11,
    }
}

/// Digits and nothing else: no sign, no list, no blanks.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    from_utf8(value).ok()?.parse().ok().filter(|n| *n <= MAX_LENGTH)
}

fn coding(value: &[u8]) -> Coding {
    let is_chunked = |token: &[u8]| token.eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return Coding::Chunked;
    }
    let (mut times, mut last) = (0, false);
    for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
        last = is_chunked(token);
        times += usize::from(last);
    }
    if last && times == 1 {
        Coding::Other
    } else {
        Coding::Endless
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

fn of_httparse(error: httparse::Error) -> Refused {
    match error {
        httparse::Error::TooManyHeaders => too_many(),
        httparse::Error::Version => Refused {
            status: StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            reason: "not HTTP/1.0 or HTTP/1.1",
        },
        httparse::Error::HeaderName => malformed("invalid byte in a field name"),
        httparse::Error::HeaderValue => malformed("invalid byte in a field value"),
        httparse::Error::NewLine => malformed("invalid end of a line"),
        httparse::Error::Status => malformed("invalid status"),
        httparse::Error::Token => malformed("invalid first line"),
    }
}

const fn too_many() -> Refused {
    too_large("too many fields")
}

pub(super) const EMPTY_LINE: Refused = malformed("empty line instead of a response");
/// How many fields a head may have at most.
pub(super) const MAX_FIELDS: usize = 128;
const MAX_TRAILERS: usize = 32;
/// Lengths are added up; none of them comes near this.
const MAX_LENGTH: u64 = i64::MAX as u64;
const MAX_EMPTY_LINES: u8 = 4;
/// Framing, routing, authentication and what describes the content: they decide before the body is read.
const NEVER_TRAILERS: [&str; 24] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "pragma",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

#[cfg(test)]
mod tests;
