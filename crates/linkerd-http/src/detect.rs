//! Tells HTTP from other protocols by a connection's first bytes.

use bytes::BytesMut;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Duration, Instant, timeout_at};

/// The version of HTTP that a client speaks.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    Http1,
    Http2,
}

/// What a connection's first bytes say.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Detection {
    Http(Version),
    /// Certainly not HTTP.
    Opaque,
    /// A request line or preface may still follow.
    Incomplete,
}

/// How detection of a connection ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Http(Version),
    Opaque,
    /// The client closed before it sent anything.
    Closed,
    /// Too few bytes came in time; `silent` when none came at all.
    TimedOut {
        silent: bool,
    },
}

/// Looks at the bytes that a client has sent so far.
#[must_use]
pub fn detect(buf: &[u8]) -> Detection {
    if let Some(detection) = detect_preface(buf) {
        return detection;
    }
    let line = skip_empty_lines(buf);
    if line.is_empty() {
        return Detection::Incomplete;
    }
    detect_request_line(line)
}

fn detect_preface(buf: &[u8]) -> Option<Detection> {
    let seen = buf.len().min(PREFACE.len());
    if seen == 0 || buf[..seen] != PREFACE[..seen] {
        return None;
    }
    if seen == PREFACE.len() {
        return Some(Detection::Http(Version::Http2));
    }
    Some(Detection::Incomplete)
}

/// RFC 9112 §2.2: a server should ignore at least one empty line before the request line.
fn skip_empty_lines(buf: &[u8]) -> &[u8] {
    let mut rest = buf;
    for _ in 0..2 {
        rest = match rest {
            [b'\r', b'\n', tail @ ..] | [b'\n', tail @ ..] => tail,
            [b'\r'] => &[],
            other => other,
        };
    }
    rest
}

fn detect_request_line(line: &[u8]) -> Detection {
    let method_len = line.iter().take_while(|b| is_token(**b)).count();
    if method_len == 0 || method_len > MAX_METHOD {
        return Detection::Opaque;
    }
    let Some(after) = line.get(method_len) else {
        return undecided(line);
    };
    if *after != b' ' {
        return Detection::Opaque;
    }
    let rest = &line[method_len + 1..];
    if let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let rest = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        return match rest {
            [
                target @ ..,
                b' ',
                b'H',
                b'T',
                b'T',
                b'P',
                b'/',
                b'1',
                b'.',
                b'0' | b'1',
            ] if !target.is_empty() => Detection::Http(Version::Http1),
            _ => Detection::Opaque,
        };
    }
    let printable = |b: &u8| *b >= 0x20 && *b != 0x7f;
    match rest.strip_suffix(b"\r").unwrap_or(rest) {
        rest if !rest.iter().all(printable) => Detection::Opaque,
        rest if rest.len() > MAX_TARGET => Detection::Http(Version::Http1),
        _ => undecided(&line[..method_len]),
    }
}

/// Without the line's end only methods that exist are waited for: a protocol of words should not be kept waiting.
fn undecided(method: &[u8]) -> Detection {
    if METHODS
        .iter()
        .any(|known| known.starts_with(method) || *known == method)
    {
        return Detection::Incomplete;
    }
    match method.iter().all(|b| b.is_ascii_uppercase() || *b == b'-') {
        true => Detection::Incomplete,
        false => Detection::Opaque,
    }
}

const fn is_token(b: u8) -> bool {
    matches!(
        b,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || b.is_ascii_alphanumeric()
}

/// Reads from `io` into `buf` until it is known what the client speaks, or until `deadline`.
///
/// `buf` may already hold bytes; whatever is read stays in it.
///
/// # Errors
/// The socket's errors.
pub async fn read<I: AsyncRead + Unpin>(
    io: &mut I,
    buf: &mut BytesMut,
    deadline: Option<Instant>,
) -> io::Result<Outcome> {
    loop {
        match detect(buf) {
            Detection::Http(version) => return Ok(Outcome::Http(version)),
            Detection::Opaque => return Ok(Outcome::Opaque),
            Detection::Incomplete => {}
        }
        // Once a first line has begun, the rest follows quickly or it is another protocol.
        let deadline = match (buf.is_empty(), deadline) {
            (true, deadline) => deadline,
            (false, deadline) => {
                let soon = Instant::now() + REST_OF_LINE;
                Some(deadline.map_or(soon, |d| d.min(soon)))
            }
        };
        buf.reserve(READ_SIZE);
        let read = match deadline {
            None => io.read_buf(buf).await?,
            Some(deadline) => match timeout_at(deadline, io.read_buf(buf)).await {
                Ok(read) => read?,
                Err(_) => {
                    return Ok(Outcome::TimedOut {
                        silent: buf.is_empty(),
                    });
                }
            },
        };
        if read == 0 {
            return Ok(if buf.is_empty() {
                Outcome::Closed
            } else {
                Outcome::Opaque
            });
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
const MAX_METHOD: usize = 32;
const MAX_TARGET: usize = 8 * 1024;
const READ_SIZE: usize = 1024;
const REST_OF_LINE: Duration = Duration::from_secs(5);
const METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_bytes() {
        use Detection::{Http, Incomplete, Opaque};
        use Version::{Http1, Http2};
        for (bytes, expected) in [
            (&b""[..], Incomplete),
            (b"G", Incomplete),
            (b"GET / HTTP/1.1\r\n", Http(Http1)),
            (b"GET / HTTP/1.0\n", Http(Http1)),
            (b"\r\nPOST /x HTTP/1.1\r\n", Http(Http1)),
            (b"PROPFIND /x HTTP/1.1\r\n", Http(Http1)),
            (b"PRI * HT", Incomplete),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Http(Http2)),
            (b"GET / HTTP/2.0\r\n", Opaque),
            (b"GET /\r\n", Opaque),
            (b"get foo\r\n", Opaque),
            (b"hello", Opaque),
            (b"\x16\x03\x01", Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Opaque),
            (b"EHLO example.org\r\n", Opaque),
            (b"GET \x01", Opaque),
        ] {
            assert_eq!(detect(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[tokio::test]
    async fn a_fragmented_line_is_still_http() {
        let mut io = tokio_test_io(&["G", "ET /", " HTTP/1", ".1\r", "\n"]);
        let mut buf = BytesMut::new();
        let outcome = read(&mut io, &mut buf, None).await.unwrap();
        assert_eq!(outcome, Outcome::Http(Version::Http1));
        assert_eq!(buf, "GET / HTTP/1.1\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_times_out() {
        let (mut io, _client) = tokio::io::duplex(64);
        let mut buf = BytesMut::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        let outcome = read(&mut io, &mut buf, Some(deadline)).await.unwrap();
        assert_eq!(outcome, Outcome::TimedOut { silent: true });
    }

    fn tokio_test_io(parts: &[&str]) -> impl AsyncRead + Unpin {
        use tokio::io::AsyncWriteExt;
        let (io, mut client) = tokio::io::duplex(64);
        let parts: Vec<String> = parts.iter().map(|p| (*p).to_owned()).collect();
        tokio::spawn(async move {
            for part in parts {
                client.write_all(part.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        io
    }

    proptest! {
        /// More bytes never turn one decision into another.
        #[test]
        fn decisions_are_final(bytes in proptest::collection::vec(any::<u8>(), 0..64), http in any::<bool>()) {
            let mut all = if http { b"POST /a HTTP/1.1\r\n".to_vec() } else { Vec::new() };
            all.extend(bytes);
            let mut decided = None;
            for n in 0..=all.len() {
                match (detect(&all[..n]), decided) {
                    (Detection::Incomplete, None) => {}
                    (d, None) => decided = Some(d),
                    (d, Some(first)) => prop_assert_eq!(d, first),
                }
            }
        }
    }
}
