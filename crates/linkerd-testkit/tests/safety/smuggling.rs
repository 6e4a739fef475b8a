//! Request smuggling: bytes that a lenient server reads as other messages than the proxy does.
//!
//! Each case goes through real proxies to a [`Recorder`]. Either it sees the messages that the client's bytes mean, or
//! the request is refused; never anything else, whatever the way.

use crate::{
    frames::{self, Connection, END_HEADERS, END_STREAM, block, frame},
    recorder::Recorder,
    rig,
};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// What becomes of a connection's bytes after the messages that are listed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rest {
    /// There are none: every message is answered.
    Answered,
    /// The proxy refuses them.
    Refused,
    /// The messages pass, or the proxy refuses from any of them on.
    Either,
}
use Rest::{Answered, Either, Refused};

/// A name, a client's bytes, the messages that they are, and the rest.
type Case = (&'static str, &'static [u8], &'static [&'static str], Rest);

const CASES: &[Case] = &[
    ("plain", b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n", &["GET /a a"], Answered),
    ("a body", b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", &["POST /a a abc"], Answered),
    (
        "chunks",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
        &["POST /a a abcd"],
        Answered,
    ),
    (
        "pipelined",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nhost: b\r\n\r\n",
        &["POST /a a abc", "GET /b b"],
        Answered,
    ),
    (
        "trailers",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\nGET /b HTTP/1.1\r\nhost: b\r\n\r\n",
        &["POST /a a a", "GET /b b"],
        Answered,
    ),
    // Two framings (RFC 9112 §6.3).
    (
        "CL.TE",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 44\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
        &["POST /a a"],
        Either,
    ),
    (
        "TE.CL",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &["POST /a a abc"],
        Either,
    ),
    (
        "CL.TE in HTTP/1.0",
        b"POST /a HTTP/1.0\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "TE in HTTP/1.0",
        b"POST /a HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "two different lengths",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        &[],
        Refused,
    ),
    (
        "two equal lengths",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        &["POST /a a abc"],
        Either,
    ),
    (
        "two equal lengths in one field",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 3\r\n\r\nabc",
        &["POST /a a abc"],
        Either,
    ),
    (
        "two different lengths in one field",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 4\r\n\r\nabcd",
        &[],
        Refused,
    ),
    ("a signed length", b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc", &[], Refused),
    ("a negative length", b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: -3\r\n\r\nabc", &[], Refused),
    ("a length in hex", b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 0x3\r\n\r\nabc", &[], Refused),
    ("a length with a space in it", b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1 3\r\n\r\nabc", &[], Refused),
    ("a length of letters", b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: abc\r\n\r\nabc", &[], Refused),
    ("an empty length", b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n", &[], Refused),
    (
        "a length that overflows",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551619\r\n\r\nabc",
        &[],
        Refused,
    ),
    (
        "a length in other digits",
        "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: \u{663}\r\n\r\nabc".as_bytes(),
        &[],
        Refused,
    ),
    // Codings that are not `chunked` (RFC 9112 §6.1).
    (
        "an unknown coding",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "identity",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\ncontent-length: 3\r\n\r\nabc",
        &[],
        Refused,
    ),
    (
        "chunked is not the last",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "chunked twice",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        &["POST /a a"],
        Either,
    ),
    (
        "chunked in two fields",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        &["POST /a a"],
        Either,
    ),
    (
        "an unknown coding in a second field",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: cow\r\n\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "chunked in capitals",
        b"POST /a HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n",
        &["POST /a a a"],
        Either,
    ),
    (
        "chunked after a tab",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\tchunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        &["POST /a a a"],
        Either,
    ),
    (
        "chunked after a vertical tab",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "chunked in quotes",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "chunked with a parameter",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    ("an empty coding", b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\n", &[], Refused),
    // Chunks (RFC 9112 §7.1).
    (
        "a chunk with an extension",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
        &["POST /a a abc"],
        Either,
    ),
    (
        "a chunk's extension with a bare LF",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "a chunk's extension with a bare CR",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "a chunk's size ends with a bare LF",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "a chunk's size overflows",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "a chunk's size has a sign",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "a chunk's size has a prefix",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "a chunk's size is missing",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "a chunk's size has a space before it",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n 3\r\nabc\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "a chunk is longer than its size",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "a chunk ends with a bare LF",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "a trailer frames",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\ncontent-length: 44\r\n\r\nGET /b HTTP/1.1\r\nhost: b\r\n\r\n",
        &["POST /a a abc", "GET /b b"],
        Either,
    ),
    (
        "a trailer with a space before its colon",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx : y\r\n\r\n",
        &[],
        Refused,
    ),
    // Heads (RFC 9112 §2.2 and §5).
    ("a folded value", b"GET /a HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n", &[], Refused),
    (
        "a folded length",
        b"POST /a HTTP/1.1\r\nhost: a\r\nx: a\r\n content-length: 3\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
        &[],
        Refused,
    ),
    ("a space before the first name", b"GET /a HTTP/1.1\r\n host: a\r\n\r\n", &[], Refused),
    (
        "a space before the colon",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length : 3\r\n\r\nabc",
        &[],
        Refused,
    ),
    (
        "a tab before the colon",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding\t: chunked\r\n\r\n0\r\n\r\n",
        &[],
        Refused,
    ),
    ("a NUL in a value", b"GET /a HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n", &[], Refused),
    ("a NUL in a name", b"GET /a HTTP/1.1\r\nhost: a\r\nx\0: a\r\n\r\n", &[], Refused),
    ("a NUL in the target", b"GET /a\0 HTTP/1.1\r\nhost: a\r\n\r\n", &[], Refused),
    (
        "a bare CR in a value",
        b"GET /a HTTP/1.1\r\nhost: a\r\nx: a\rcontent-length: 44\r\n\r\n",
        &[],
        Refused,
    ),
    (
        "a bare LF in a value",
        b"POST /a HTTP/1.1\r\nhost: a\r\nx: a\ncontent-length: 3\r\n\r\nabc",
        &["POST /a a abc"],
        Either,
    ),
    ("lines end with bare LF", b"GET /a HTTP/1.1\nhost: a\n\n", &["GET /a a"], Either),
    (
        "an underscore is no hyphen",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent_length: 44\r\ncontent-length: 3\r\n\r\nabc",
        &["POST /a a abc"],
        Either,
    ),
    ("a header without a colon", b"GET /a HTTP/1.1\r\nhost: a\r\nx\r\n\r\n", &[], Refused),
    ("a header without a name", b"GET /a HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n", &[], Refused),
    ("a space in the target", b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", &[], Refused),
    ("two spaces before the version", b"GET /a  HTTP/1.1\r\nhost: a\r\n\r\n", &["GET /a a"], Either),
    ("a tab in the request line", b"GET\t/a HTTP/1.1\r\nhost: a\r\n\r\n", &[], Refused),
    ("no version", b"GET /a\r\nhost: a\r\n\r\n", &[], Refused),
    ("an unknown version", b"GET /a HTTP/1.2\r\nhost: a\r\n\r\n", &[], Refused),
    ("a fragment in the target", b"GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", &["GET /a a"], Either),
    // Hosts (RFC 9112 §3.2).
    ("two hosts", b"GET /a HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", &[], Refused),
    ("two equal hosts", b"GET /a HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", &[], Refused),
    ("a host of two", b"GET /a HTTP/1.1\r\nhost: a, b\r\n\r\n", &[], Refused),
    ("a host with a path", b"GET /a HTTP/1.1\r\nhost: a/b\r\n\r\n", &[], Refused),
    ("a host with a user", b"GET /a HTTP/1.1\r\nhost: b@a\r\n\r\n", &["GET /a a"], Either),
    (
        "the target decides the host",
        b"GET http://a/a HTTP/1.1\r\nhost: b\r\n\r\n",
        &["GET /a a"],
        Either,
    ),
    (
        "the target's user is no host",
        b"GET http://b@a/a HTTP/1.1\r\nhost: b\r\n\r\n",
        &["GET /a a"],
        Either,
    ),
    (
        "the target decides between two hosts",
        b"GET http://a/a HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        &["GET /a a"],
        Either,
    ),
    (
        "connection cannot take the host away",
        b"POST /a HTTP/1.1\r\nhost: a\r\nconnection: host, content-length\r\ncontent-length: 3\r\n\r\nabc",
        &["POST /a a abc"],
        Either,
    ),
    (
        "connection cannot take the coding away",
        b"POST /a HTTP/1.1\r\nhost: a\r\nconnection: transfer-encoding\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        &["POST /a a abc"],
        Either,
    ),
    // Bodies where none is expected.
    (
        "GET with a body",
        b"GET /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nhost: b\r\n\r\n",
        &["GET /a a abc", "GET /b b"],
        Either,
    ),
    (
        "HEAD with a body",
        b"HEAD /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nhost: b\r\n\r\n",
        &["HEAD /a a abc", "GET /b b"],
        Either,
    ),
    (
        "a request in a body",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 23\r\n\r\nGET /smuggled HTTP/1.1\n",
        &["POST /a a GET /smuggled HTTP/1.1"],
        Answered,
    ),
    // Upgrades (RFC 9110 §7.8).
    (
        "an upgrade that is not granted, then pipelining",
        b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nGET /b HTTP/1.1\r\nhost: b\r\nproxy-connection: x\r\n\r\n",
        &["GET /a a", "GET /b b"],
        Either,
    ),
    (
        "an upgrade with a body, then pipelining",
        b"POST /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nhost: b\r\nproxy-connection: x\r\n\r\n",
        &["POST /a a abc", "GET /b b"],
        Either,
    ),
    (
        "an upgrade to clear-text HTTP/2",
        b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        &["GET /a a"],
        Either,
    ),
    ("the preface of HTTP/2 as a request", b"GET /a HTTP/1.1\r\nhost: a\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["GET /a a"], Refused),
    ("CONNECT to a path", b"CONNECT /a HTTP/1.1\r\nhost: a\r\n\r\n", &[], Refused),
    // Between the proxies' own words.
    (
        "a forged orig-proto",
        b"POST /a HTTP/1.1\r\nhost: a\r\nl5d-orig-proto: HTTP/1.0; absolute-form\r\ncontent-length: 3\r\n\r\nabc",
        &["POST /a a abc"],
        Either,
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_smuggled_through_one_proxy() {
    let recorder = Recorder::start().await;
    let path = rig::inbound_with(recorder.addr, Some(rig::inbound_http1())).await;
    all(&recorder, path.addr).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_smuggled_to_a_server_without_a_proxy() {
    let recorder = Recorder::start().await;
    let path = rig::unmeshed(recorder.addr, rig::outbound_http1()).await;
    all(&recorder, path.addr).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_smuggled_through_two_proxies_with_http2_between() {
    let recorder = Recorder::start().await;
    let path = rig::meshed_with(recorder.addr, rig::outbound_http1()).await;
    all(&recorder, path.addr).await;
}

async fn all(recorder: &Recorder, addr: SocketAddr) {
    let mut faults = Vec::new();
    for case in CASES {
        // The first line has passed detection before the case's bytes come.
        let warm = [b"GET /warm HTTP/1.1\r\nhost: w\r\n\r\n", case.1].concat();
        for (how, bytes, before) in [("", case.1, 0), (" after another request", &warm, 1)] {
            if let Err(fault) = check(recorder, addr, bytes, case, before).await {
                faults.push(format!("{}{how}: {fault}", case.0));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

async fn check(
    recorder: &Recorder,
    addr: SocketAddr,
    bytes: &[u8],
    case: &Case,
    before: usize,
) -> Result<(), String> {
    let (_, _, messages, rest) = *case;
    let expected: Vec<_> = ["GET /warm w"][..before]
        .iter()
        .chain(messages)
        .copied()
        .collect();
    let answers = exchange(addr, bytes, expected.len()).await?;
    let log = recorder.take();
    if !log.offences.is_empty() {
        return Err(format!("the server got {:?}", log.offences));
    }
    if !log.tunnelled.is_empty() {
        return Err(format!("tunnelled {:?}", String::from_utf8_lossy(&log.tunnelled)));
    }
    let seen: Vec<_> = log.messages.iter().map(String::as_str).collect();
    let all = seen == expected;
    let as_told = match rest {
        Answered => all && !answers.refused,
        Refused => all && answers.refused,
        Either => (all && !answers.refused) || (expected.starts_with(&seen) && answers.refused),
    };
    if as_told && answers.good == seen.len() {
        return Ok(());
    }
    Err(format!(
        "the server saw {seen:?}, the client {answers:?}; expected {expected:?} and {rest:?}"
    ))
}

#[derive(Debug)]
struct Answers {
    good: usize,
    /// An answer of the 4xx class, or an end that the client did not begin.
    refused: bool,
}

/// Sends `bytes` and reads until there are `expected` good answers, or the proxy ends the connection.
async fn exchange(addr: SocketAddr, bytes: &[u8], expected: usize) -> Result<Answers, String> {
    let mut io = TcpStream::connect(addr).await.unwrap();
    io.write_all(bytes).await.unwrap();
    let mut heard = Vec::new();
    let mut ended = false;
    while !ended && (answers(&heard).good < expected || expected == 0) && !answers(&heard).refused {
        match timeout(PATIENCE, io.read_buf(&mut heard)).await {
            Err(_) => {
                return Err(format!(
                    "nothing more after {:?}",
                    String::from_utf8_lossy(&heard)
                ));
            }
            Ok(read) => ended = !matches!(read, Ok(1..)),
        }
    }
    // What else the proxy has to say follows at once, or after the client's end.
    ended |= timeout(LINGER, io.read_to_end(&mut heard)).await.is_ok();
    let _ = io.shutdown().await;
    if timeout(PATIENCE, io.read_to_end(&mut heard)).await.is_err() {
        return Err("the connection was not closed".into());
    }
    let mut answers = answers(&heard);
    answers.refused |= ended;
    Ok(answers)
}

fn answers(heard: &[u8]) -> Answers {
    let text = String::from_utf8_lossy(heard);
    let statuses: Vec<_> = text
        .match_indices("HTTP/1.")
        .filter_map(|(at, _)| text.get(at + 9..at + 12))
        .collect();
    Answers {
        good: statuses.iter().filter(|s| s.starts_with('2')).count(),
        refused: statuses.iter().any(|s| s.starts_with('4') || s.starts_with('5')),
    }
}

/// How long a client may be silent before the application is asked.
const SILENCE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(3);
const LINGER: Duration = Duration::from_millis(10);

/// Nobody can make a Detect port take a request for bytes of another protocol, which no route would look at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detection_is_not_evaded() {
    let recorder = Recorder::start().await;
    let path = rig::inbound(recorder.addr).await;
    let blanks = [&b"\r\n".repeat(40)[..], b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
    for (what, pieces) in [
        ("many empty lines", vec![&blanks[..]]),
        (
            "a line in pieces",
            vec![b"G", b"ET /", b"a HT", b"TP/1.1\r", b"\nhost: a\r\n\r\n"],
        ),
        (
            "a lenient server's line",
            vec![b"GET  /a HTTP/1.1\r\nhost: a\r\n\r\n"],
        ),
        (
            "tabs between the words",
            vec![b"GET\t/a\tHTTP/1.1\r\nhost: a\r\n\r\n"],
        ),
        (
            "a version that is none",
            vec![b"GET /a HTTP/1.9\r\nhost: a\r\n\r\n"],
        ),
        ("no version", vec![b"GET /a\r\nhost: a\r\n\r\n"]),
    ] {
        let mut io = TcpStream::connect(path.addr).await.unwrap();
        for piece in pieces {
            io.write_all(piece).await.unwrap();
            // Long enough that the proxy asks the application whether it has something to say.
            tokio::time::sleep(3 * SILENCE).await;
        }
        let mut heard = Vec::new();
        let _ = timeout(PATIENCE, io.read_buf(&mut heard)).await;
        let log = recorder.take();
        // Unread bytes of another protocol are an offence to the recorder.
        assert_eq!(log.offences, Vec::<String>::new(), "{what}");
        let passed = log.messages == ["GET /a a"] && heard.starts_with(b"HTTP/1.1 200");
        let refused = log.messages.is_empty()
            && (heard.is_empty()
                || [&b"HTTP/1.1 4"[..], b"HTTP/1.1 5"]
                    .iter()
                    .any(|a| heard.starts_with(a)));
        assert!(
            passed || refused,
            "{what}: {log:?}, {:?}",
            String::from_utf8_lossy(&heard)
        );
    }
}

/// A request over HTTP/2 as a proxy of the mesh sends it for an HTTP/1 client.
struct Http2Case {
    name: &'static str,
    headers: &'static [(&'static str, &'static str)],
    data: Option<&'static str>,
    trailers: &'static [(&'static str, &'static str)],
    /// What the HTTP/1 server sees, if it sees anything.
    message: Option<&'static str>,
}

const fn post(
    name: &'static str,
    headers: &'static [(&'static str, &'static str)],
    data: Option<&'static str>,
    message: Option<&'static str>,
) -> Http2Case {
    Http2Case {
        name,
        headers,
        data,
        trailers: &[],
        message,
    }
}

const ORIG: (&str, &str) = ("l5d-orig-proto", "HTTP/1.1");
const POST: (&str, &str) = (":method", "POST");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "a");
const PATH: (&str, &str) = (":path", "/a");

const HTTP2_CASES: &[Http2Case] = &[
    post(
        "plain",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG],
        None,
        Some("POST /a a"),
    ),
    post(
        "a body",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG],
        Some("abc"),
        Some("POST /a a abc"),
    ),
    post(
        "a body of the length that is told",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("content-length", "3")],
        Some("abc"),
        Some("POST /a a abc"),
    ),
    // A content-length that is not the body's (RFC 9113 §8.1.1).
    post(
        "a body longer than told",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("content-length", "0")],
        Some("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
        None,
    ),
    post(
        "a body shorter than told",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("content-length", "9")],
        Some("abc"),
        None,
    ),
    post(
        "no body where one is told",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("content-length", "3")],
        None,
        None,
    ),
    post(
        "two lengths",
        &[
            POST,
            SCHEME,
            AUTHORITY,
            PATH,
            ORIG,
            ("content-length", "3"),
            ("content-length", "4"),
        ],
        Some("abc"),
        None,
    ),
    post(
        "a signed length",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("content-length", "+3")],
        Some("abc"),
        None,
    ),
    // Headers of a connection (RFC 9113 §8.2.2).
    post(
        "H2.TE",
        &[
            POST,
            SCHEME,
            AUTHORITY,
            PATH,
            ORIG,
            ("transfer-encoding", "chunked"),
        ],
        Some("0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
        None,
    ),
    post(
        "connection",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("connection", "close")],
        None,
        None,
    ),
    post(
        "keep-alive",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("keep-alive", "1")],
        None,
        None,
    ),
    post(
        "upgrade",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("upgrade", "websocket")],
        None,
        None,
    ),
    post(
        "te of codings",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("te", "gzip")],
        None,
        None,
    ),
    // Characters that end a line of HTTP/1 (RFC 9113 §8.2.1).
    post(
        "a line break in a value",
        &[
            POST,
            SCHEME,
            AUTHORITY,
            PATH,
            ORIG,
            ("x", "a\r\ntransfer-encoding: chunked"),
        ],
        None,
        None,
    ),
    post(
        "a line feed in a value",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("x", "a\nb: c")],
        None,
        None,
    ),
    post(
        "a NUL in a value",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("x", "a\0b")],
        None,
        None,
    ),
    post(
        "a line break in a name",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("x\r\ny", "a")],
        None,
        None,
    ),
    post(
        "a colon in a name",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("x:y", "a")],
        None,
        None,
    ),
    post(
        "a space in a name",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("x y", "a")],
        None,
        None,
    ),
    post(
        "a capital in a name",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("X", "a")],
        None,
        None,
    ),
    post(
        "a line break in the path",
        &[POST, SCHEME, AUTHORITY, (":path", "/a HTTP/1.1\r\nx: y"), ORIG],
        None,
        None,
    ),
    post(
        "a space in the path",
        &[POST, SCHEME, AUTHORITY, (":path", "/a b"), ORIG],
        None,
        None,
    ),
    post(
        "a line break in the method",
        &[(":method", "GET / HTTP/1.1\r\nx:"), SCHEME, AUTHORITY, PATH, ORIG],
        None,
        None,
    ),
    post(
        "a line break in the authority",
        &[POST, SCHEME, (":authority", "a\r\nx: y"), PATH, ORIG],
        None,
        None,
    ),
    post(
        "a space in the authority",
        &[POST, SCHEME, (":authority", "a b"), PATH, ORIG],
        None,
        None,
    ),
    // Pseudo-headers (RFC 9113 §8.3).
    post(
        "two paths",
        &[POST, SCHEME, AUTHORITY, PATH, (":path", "/b"), ORIG],
        None,
        None,
    ),
    post(
        "two authorities",
        &[POST, SCHEME, AUTHORITY, (":authority", "b"), PATH, ORIG],
        None,
        None,
    ),
    post(
        "a path after a header",
        &[POST, SCHEME, AUTHORITY, ORIG, PATH],
        None,
        None,
    ),
    post(
        "an unknown pseudo-header",
        &[POST, SCHEME, AUTHORITY, PATH, (":x", "y"), ORIG],
        None,
        None,
    ),
    post(
        "a response's pseudo-header",
        &[POST, SCHEME, AUTHORITY, PATH, (":status", "200"), ORIG],
        None,
        None,
    ),
    post("no path", &[POST, SCHEME, AUTHORITY, ORIG], None, None),
    post(
        "an empty path",
        &[POST, SCHEME, AUTHORITY, (":path", ""), ORIG],
        None,
        None,
    ),
    post("no method", &[SCHEME, AUTHORITY, PATH, ORIG], None, None),
    // Whose host counts (RFC 9113 §8.3.1).
    post(
        "the authority decides the host",
        &[POST, SCHEME, AUTHORITY, PATH, ORIG, ("host", "b")],
        None,
        Some("POST /a a"),
    ),
    post(
        "the authority's user is no host",
        &[POST, SCHEME, (":authority", "b@a"), PATH, ORIG],
        None,
        None,
    ),
    post(
        "two hosts and no authority",
        &[POST, SCHEME, PATH, ORIG, ("host", "a"), ("host", "b")],
        None,
        None,
    ),
    Http2Case {
        name: "trailers that frame",
        headers: &[POST, SCHEME, AUTHORITY, PATH, ORIG],
        data: Some("abc"),
        trailers: &[("content-length", "44"), ("transfer-encoding", "chunked")],
        message: None,
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_smuggled_from_http2_to_http1() {
    let recorder = Recorder::start().await;
    let path = rig::inbound_with(recorder.addr, None).await;
    let mut faults = Vec::new();
    for case in HTTP2_CASES {
        if let Err(fault) = check_http2(&recorder, path.addr, case).await {
            faults.push(format!("{}: {fault}", case.name));
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

async fn check_http2(recorder: &Recorder, addr: SocketAddr, case: &Http2Case) -> Result<(), String> {
    let mut connection = Connection::open(addr).await;
    for bytes in case.frames() {
        connection.write(&bytes).await;
    }
    let good = timeout(PATIENCE, good_answer(&mut connection))
        .await
        .map_err(|_| "no answer")?;
    let log = recorder.take();
    if !log.offences.is_empty() {
        return Err(format!("the server got {:?}", log.offences));
    }
    let seen: Vec<_> = log.messages.iter().map(String::as_str).collect();
    let as_told = match case.message {
        Some(message) => seen == [message] && good,
        None => seen.is_empty() && !good,
    };
    if as_told {
        return Ok(());
    }
    Err(format!(
        "the server saw {seen:?}, the client {good}; expected {:?}",
        case.message
    ))
}

/// Whether the first stream was answered with success; not when it or the connection was ended.
async fn good_answer(connection: &mut Connection) -> bool {
    while let Some(frame) = connection.read().await {
        match frame.kind {
            // `:status: 200` is the eighth entry of the static table.
            frames::HEADERS if frame.stream == 1 => return frame.payload.first() == Some(&0x88),
            frames::RST_STREAM if frame.stream == 1 => return false,
            frames::GO_AWAY => return false,
            _ => {}
        }
    }
    false
}

impl Http2Case {
    fn frames(&self) -> Vec<Vec<u8>> {
        let end = |last: bool| if last { END_STREAM } else { 0 };
        let of = |headers: &[(&str, &str)]| {
            let bytes: Vec<_> = headers
                .iter()
                .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
                .collect();
            block(&bytes)
        };
        let bare = self.trailers.is_empty();
        let head = END_HEADERS | end(self.data.is_none() && bare);
        let mut frames = vec![frame(frames::HEADERS, head, 1, &of(self.headers))];
        if let Some(data) = self.data {
            frames.push(frame(frames::DATA, end(bare), 1, data.as_bytes()));
        }
        if !bare {
            frames.push(frame(
                frames::HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &of(self.trailers),
            ));
        }
        frames
    }
}
