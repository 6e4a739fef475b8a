use super::*;
use crate::h1::{LIMITS, parse};
use bytes::Bytes;
use proptest::prelude::*;

fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = http::Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn written(parts: &request::Parts, framing: Framing) -> String {
    let mut out = Vec::new();
    request_head(&mut out, parts, framing);
    String::from_utf8(out).unwrap()
}

#[test]
fn targets_keep_their_form() {
    for (method, uri, line) in [
        ("GET", "/a?b", "GET /a?b HTTP/1.1"),
        ("GET", "http://web/a?b", "GET http://web/a?b HTTP/1.1"),
        ("GET", "http://web?b", "GET http://web/?b HTTP/1.1"),
        ("CONNECT", "web:80", "CONNECT web:80 HTTP/1.1"),
        ("OPTIONS", "*", "OPTIONS * HTTP/1.1"),
    ] {
        let head = written(&parts(method, uri, &[]), Framing::None);
        assert_eq!(head.lines().next().unwrap(), line);
    }
}

#[test]
fn the_framing_is_the_bodys_own() {
    let said = [("transfer-encoding", "gzip"), ("content-length", "7"), ("a", "b")];
    let request = parts("POST", "/", &said);
    let head = |framing| written(&request, framing);
    assert_eq!(
        head(Framing::None),
        "POST / HTTP/1.1\r\na: b\r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(
        head(Framing::Length(7)),
        "POST / HTTP/1.1\r\na: b\r\ncontent-length: 7\r\n\r\n"
    );
    assert_eq!(
        head(Framing::Chunked),
        "POST / HTTP/1.1\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n"
    );
}

#[test]
fn a_length_that_is_not_the_bodys_is_an_error() {
    let framing = |said: &str| {
        request_framing(
            &parts("POST", "/", &[("content-length", said)]),
            &Body::full("abc"),
        )
    };
    assert_eq!(framing("3").unwrap(), Framing::Length(3));
    for said in ["4", "-3", "x"] {
        assert!(framing(said).is_err(), "{said}");
    }
}

#[test]
fn an_old_peer_gets_no_chunks() {
    let (_sender, body) = Body::channel(1);
    let mut request = parts("POST", "/", &[]);
    assert_eq!(request_framing(&request, &body).unwrap(), Framing::Chunked);
    request.version = Version::HTTP_10;
    assert!(request_framing(&request, &body).is_err());
    let (response, ()) = http::Response::new(()).into_parts();
    let framing = |version| response_framing(&response, &body, Asked::default(), version).unwrap();
    assert_eq!(framing(Version::HTTP_11), Framing::Chunked);
    assert_eq!(framing(Version::HTTP_10), Framing::UntilClose);
}

#[test]
fn responses_say_what_becomes_of_the_connection() {
    let mut response = http::Response::new(());
    response.headers_mut().insert("connection", "x".parse().unwrap());
    response
        .headers_mut()
        .insert("content-length", "9".parse().unwrap());
    let (mut parts, ()) = response.into_parts();
    let head = |parts: &response::Parts, asked, persistence| {
        let mut out = Vec::new();
        response_head(
            &mut out,
            parts,
            Version::HTTP_11,
            Framing::None,
            asked,
            persistence,
        );
        String::from_utf8(out).unwrap()
    };
    let get = Asked::default();
    assert_eq!(
        head(&parts, get, Persistence::Silent),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    );
    assert_eq!(
        head(&parts, get, Persistence::Close),
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(
        head(&parts, Asked::by(&Method::HEAD), Persistence::Silent),
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
    );
    parts.status = StatusCode::SWITCHING_PROTOCOLS;
    assert_eq!(
        head(&parts, get, Persistence::Tunnel),
        "HTTP/1.1 101 Switching Protocols\r\nconnection: x\r\n\r\n"
    );
    parts.status = StatusCode::NO_CONTENT;
    assert_eq!(
        head(&parts, get, Persistence::Silent),
        "HTTP/1.1 204 No Content\r\n\r\n"
    );
}

#[test]
fn numbers_are_written_as_they_are_read() {
    for number in [0_usize, 1, 9, 10, 15, 16, 255, 256, 4_096, 65_535, 1 << 40] {
        let (mut tens, mut sixteens) = (Vec::new(), Vec::new());
        decimal(&mut tens, number as u64);
        chunk_size(&mut sixteens, number);
        assert_eq!(String::from_utf8(tens).unwrap(), number.to_string());
        assert_eq!(String::from_utf8(sixteens).unwrap(), format!("{number:x}\r\n"));
    }
}

proptest! {
    /// A head that was written is read as what it was.
    #[test]
    fn heads_come_back(
        method in "[A-Z]{3,7}",
        path in "/[a-z0-9/%?=&.]{0,20}",
        fields in proptest::collection::vec(("x-[a-z]{1,6}", "[!-~]{1,12}"), 0..6),
        length in 1_u64..1_000_000,
    ) {
        prop_assume!(method != "CONNECT");
        let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let sent = parts(&method, &path, &fields);
        let head = written(&sent, Framing::Length(length));
        let read = parse::request(&Bytes::from(head), LIMITS).unwrap();
        prop_assert_eq!(read.framing, Framing::Length(length));
        prop_assert_eq!(&read.parts.method, &sent.method);
        prop_assert_eq!(&read.parts.uri, &sent.uri);
        let mut headers = read.parts.headers;
        headers.remove("content-length");
        prop_assert_eq!(headers, sent.headers);
    }
}
