//! Tells HTTP from other protocols by a connection's first bytes.
//!
//! What is taken for bytes is authorised as a whole connection; what is HTTP, request by request. So a client must not
//! be able to make its HTTP look like bytes: whatever a lenient server might read as a request is HTTP here, and when
//! it is not good HTTP, the HTTP server refuses it. Time decides nothing: a line that was begun and may become a
//! request line stays one.

use bytes::BytesMut;
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Poll, ready},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Duration, Instant, timeout_at},
};

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
    /// Nothing came in time.
    TimedOut,
}

/// Looks at the bytes that a client has sent so far.
#[must_use]
pub fn detect(buf: &[u8]) -> Detection {
    if let Some(detection) = detect_preface(buf) {
        return detection;
    }
    // RFC 9112 §2.2 lets a server skip empty lines; some skip any blanks, and any number of them.
    let line = buf.trim_ascii_start();
    match line {
        line if buf.len() - line.len() > MAX_LINE => Detection::Http(Version::Http1),
        [] => Detection::Incomplete,
        line => detect_request_line(line),
    }
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

fn detect_request_line(line: &[u8]) -> Detection {
    let method_len = line.iter().take_while(|b| is_token(**b)).count();
    let (method, after) = line.split_at(method_len);
    match after {
        _ if method.is_empty() => Detection::Opaque,
        // Longer than any protocol's first word: what such a method is good for is to be overlooked.
        _ if method.len() > MAX_METHOD => Detection::Http(Version::Http1),
        [] => Detection::Incomplete,
        [b'\r'] => Detection::Incomplete,
        [b'\n', ..] | [b'\r', b'\n', ..] => Detection::Opaque,
        [blank, rest @ ..] if is_blank(*blank) => detect_target(method, rest),
        _ => Detection::Opaque,
    }
}

/// After the method and a blank.
fn detect_target(method: &[u8], rest: &[u8]) -> Detection {
    let known = METHODS.contains(&method);
    if known && rest.trim_ascii_start().starts_with(b"/") {
        return Detection::Http(Version::Http1);
    }
    let end = rest.iter().position(|b| *b == b'\n');
    let text = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
    let may_be_text = |b: &u8| is_blank(*b) || (*b >= 0x20 && *b != 0x7f);
    if text.len() > MAX_LINE {
        return Detection::Http(Version::Http1);
    }
    // No other protocol goes on with binary data after one of HTTP's words.
    let is_http = match end {
        _ if !text.iter().all(may_be_text) => known,
        Some(_) => names_http(text),
        None => return Detection::Incomplete,
    };
    match is_http {
        true => Detection::Http(Version::Http1),
        false => Detection::Opaque,
    }
}

/// Whether a line's last word is a version of HTTP, one that there is or not.
fn names_http(rest: &[u8]) -> bool {
    let mut words = rest.split(|b| is_blank(*b)).filter(|word| !word.is_empty());
    words.next_back().is_some_and(|last| {
        last.get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"HTTP/"))
    })
}

/// What separates words for one server or another.
const fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
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

/// Reads from `io` into `buf` until it is known what the client speaks; `deadline` is for its first byte.
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
    // For the whole of it: a byte now and then does not prolong it.
    let mut rest_of_line = None;
    loop {
        match detect(buf) {
            Detection::Http(version) => return Ok(Outcome::Http(version)),
            Detection::Opaque => return Ok(Outcome::Opaque),
            Detection::Incomplete => {}
        }
        let deadline = match deadline {
            deadline if buf.is_empty() => deadline,
            _ => Some(*rest_of_line.get_or_insert_with(|| Instant::now() + REST_OF_LINE)),
        };
        let read = match deadline {
            None => read_some(io, buf).await?,
            Some(deadline) => match timeout_at(deadline, read_some(io, buf)).await {
                Ok(read) => read?,
                Err(_) => return Ok(late(buf)),
            },
        };
        if read == 0 {
            return Ok(ended(buf));
        }
    }
}

/// Reads without holding a buffer while nothing comes.
async fn read_some<I: AsyncRead + Unpin>(io: &mut I, buf: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut space = [0; READ_SIZE];
        let mut space = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut *io).poll_read(cx, &mut space))?;
        buf.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    })
    .await
}

/// The rest of a line did not come: the HTTP server goes on waiting for it, and says what is wrong with it.
fn late(buf: &[u8]) -> Outcome {
    if buf.is_empty() {
        Outcome::TimedOut
    } else if PREFACE.starts_with(buf) {
        Outcome::Http(Version::Http2)
    } else {
        Outcome::Http(Version::Http1)
    }
}

/// No more comes. A single word is no request, not for any server.
fn ended(buf: &[u8]) -> Outcome {
    let mut words = buf.split(|b| is_blank(*b) || *b == b'\n');
    let mut words = words.by_ref().filter(|word| !word.is_empty());
    match (buf.is_empty(), words.nth(1)) {
        (true, _) => Outcome::Closed,
        (false, None) => Outcome::Opaque,
        (false, Some(_)) => Outcome::Http(Version::Http1),
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
const MAX_METHOD: usize = 32;
const MAX_LINE: usize = 8 * 1024;
const READ_SIZE: usize = 1024;
const REST_OF_LINE: Duration = Duration::from_secs(5);
const METHODS: [&[u8]; 9] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    #[test]
    fn first_bytes() {
        use Detection::{Http, Incomplete, Opaque};
        use Version::{Http1, Http2};
        for (bytes, expected) in [
            (&b""[..], Incomplete),
            (b"G", Incomplete),
            (b"GET / HTTP/1.1\r\n", Http(Http1)),
            (b"GET / HTTP/1.0\n", Http(Http1)),
            (b"GET /", Http(Http1)),
            (b"\r\nPOST /x HTTP/1.1\r\n", Http(Http1)),
            (b"PROPFIND /x HTTP/1.1\r\n", Http(Http1)),
            (b"PRI * HT", Incomplete),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Http(Http2)),
            (b"hello", Incomplete),
        ] {
            assert_eq!(detect(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
        for other in [
            &b"*1\r\n$4\r\nPING\r\n"[..],
            b"PING\r\n",
            b"GET key\r\n",
            b"get foo\r\n",
            b"EHLO example.org\r\n",
            b"SSH-2.0-OpenSSH_9\r\n",
            b"AMQP\0\0\x09\x01",
            b"CONNECT {\"verbose\":false}\r\n",
            b"OPTIONS rtsp://example.org RTSP/1.0\r\n",
            b"\x16\x03\x01",
            b"{\"a\":1}",
            b"\x0a\x05hello",
        ] {
            assert_eq!(detect(other), Opaque, "{:?}", String::from_utf8_lossy(other));
        }
    }

    /// Each of these is served by some server that has not read the RFC.
    #[test]
    fn what_a_lenient_server_reads_as_a_request_is_http() {
        let many_lines = [&b"\r\n".repeat(100)[..], b"GET /admin HTTP/1.1\r\n"].concat();
        let long_method = [&b"A".repeat(40)[..], b" /admin HTTP/1.1\r\n"].concat();
        for request in [
            &many_lines[..],
            &long_method,
            b" GET /admin HTTP/1.1\r\n",
            b"GET\t/admin\tHTTP/1.1\r\n",
            b"GET /admin\r\n",
            b"GET /admin HTTP/1.2\r\n",
            b"GET /admin HTTP/2.0\r\n",
            b"get /admin http/1.1\n",
            b"ANY http://host/admin HTTP/1.1 \r\n",
            b"GET \x01",
        ] {
            let http = Detection::Http(Version::Http1);
            assert_eq!(detect(request), http, "{:?}", String::from_utf8_lossy(request));
        }
    }

    #[tokio::test]
    async fn a_fragmented_line_is_still_http() {
        let mut io = written_in(&["G", "ET", " *", " HTTP/1", ".1\r", "\n"]);
        let mut buf = BytesMut::new();
        let outcome = read(&mut io, &mut buf, None).await.unwrap();
        assert_eq!(outcome, Outcome::Http(Version::Http1));
        assert_eq!(buf, "GET * HTTP/1.1\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_times_out() {
        let (mut io, _client) = tokio::io::duplex(64);
        let mut buf = BytesMut::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        let outcome = read(&mut io, &mut buf, Some(deadline)).await.unwrap();
        assert_eq!(outcome, Outcome::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_comes_drop_by_drop_is_not_waited_for() {
        let (mut io, mut client) = tokio::io::duplex(64);
        client.write_all(b"GET /").await.unwrap();
        let drops = tokio::spawn(async move {
            while client.write_all(b"a").await.is_ok() {
                tokio::time::sleep(REST_OF_LINE / 2).await;
            }
        });
        let start = Instant::now();
        let outcome = read(&mut io, &mut BytesMut::new(), None).await.unwrap();
        assert_eq!(outcome, Outcome::Http(Version::Http1));
        assert!(start.elapsed() <= REST_OF_LINE);
        drops.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_makes_no_request_opaque() {
        for (begun, expected) in [
            (&b"get"[..], Version::Http1),
            (b"\r\n\r\n\r\n", Version::Http1),
            (b"OPTIONS *", Version::Http1),
            (b"PRI * HTTP", Version::Http2),
        ] {
            let (mut io, mut client) = tokio::io::duplex(64);
            client.write_all(begun).await.unwrap();
            let outcome = read(&mut io, &mut BytesMut::new(), None).await.unwrap();
            assert_eq!(outcome, Outcome::Http(expected));
        }
    }

    #[tokio::test]
    async fn a_single_word_and_an_end_is_no_request() {
        for (sent, expected) in [
            ("", Outcome::Closed),
            ("ruok", Outcome::Opaque),
            ("get /admin", Outcome::Http(Version::Http1)),
        ] {
            let mut io = written_in(&[sent]);
            let outcome = read(&mut io, &mut BytesMut::new(), None).await.unwrap();
            assert_eq!(outcome, expected, "{sent}");
        }
    }

    fn written_in(parts: &[&str]) -> impl AsyncRead + Unpin + use<> {
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
