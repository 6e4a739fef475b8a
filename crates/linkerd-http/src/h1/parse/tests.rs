use super::*;
use crate::h1::LIMITS;
use proptest::prelude::*;

fn read(head: &str) -> Result<RequestHead, Refused> {
    let mut unread = BytesMut::from(head.as_bytes());
    let mut cutter = Cutter::default();
    let head = cutter.cut(&mut unread, LIMITS)?.expect("an unfinished head");
    assert!(unread.is_empty());
    request(&head, LIMITS)
}

fn read_response(head: &str, asked: Asked) -> Result<ResponseHead, Refused> {
    response(&Bytes::copy_from_slice(head.as_bytes()), asked, LIMITS)
}

#[test]
fn a_request_is_read() {
    let head =
        read("POST /a?b=c HTTP/1.1\r\nHost: web\r\nX-A: 1\r\nX-A:\t2 \r\nContent-Length: 5\r\n\r\n").unwrap();
    assert_eq!(head.parts.method, "POST");
    assert_eq!(head.parts.uri, "/a?b=c");
    assert_eq!(head.parts.version, Version::HTTP_11);
    let values: Vec<_> = head.parts.headers.get_all("x-a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert_eq!(head.framing, Framing::Length(5));
    assert!(head.keep_alive && !head.expects_continue);
}

#[test]
fn framing_that_two_parsers_may_read_in_two_ways_is_refused() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length:",
        "Content-Length: 9223372036854775808",
        "Content-Length: 18446744073709551621",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: \r\n chunked",
        "Transfer-Encoding:",
        "X: a\r\n b",
        " X: a",
        "X: a\0b",
        "X: a\rb",
        "X a",
        ": a",
        "X\u{e4}: a",
        "Host: a\r\nHost: a",
    ] {
        let refused = read(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")).unwrap_err();
        assert_eq!(refused.status, 400, "{fields:?}");
    }
}

#[test]
fn codings_that_this_proxy_does_not_have_are_not_implemented() {
    for coding in ["gzip, chunked", "identity,chunked", ", chunked"] {
        let refused = read(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: {coding}\r\n\r\n")).unwrap_err();
        assert_eq!(refused.status, 501, "{coding}");
    }
}

#[test]
fn http_1_0_has_no_chunks() {
    let refused = read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap_err();
    assert_eq!(refused.status, 400);
}

#[test]
fn first_lines_that_are_none_are_refused() {
    for (line, status) in [
        ("GET / HTTP/1.2", 505),
        ("GET / HTTP/2.0", 505),
        ("GET / HTTP/1.1 x", 400),
        ("GET /", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET\t/\tHTTP/1.1", 400),
        ("G(T / HTTP/1.1", 400),
        (" GET / HTTP/1.1", 400),
        ("GET web:80 HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET http:// HTTP/1.1", 400),
        ("CONNECT / HTTP/1.1", 400),
        ("CONNECT http://web/ HTTP/1.1", 400),
        ("GET /\0 HTTP/1.1", 400),
    ] {
        let refused = read(&format!("{line}\r\n\r\n")).expect_err(line);
        assert_eq!(refused.status, status, "{line:?}");
    }
    for line in ["OPTIONS *", "CONNECT web:80", "GET http://web/x", "PROPFIND /"] {
        assert!(read(&format!("{line} HTTP/1.1\r\n\r\n")).is_ok(), "{line}");
    }
}

#[test]
fn lines_end_in_both_cr_and_lf() {
    for head in [
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\r\nX: a\n\r\n",
        "\nGET / HTTP/1.1\r\n\r\n",
    ] {
        let mut unread = BytesMut::from(head);
        assert!(Cutter::default().cut(&mut unread, LIMITS).is_err(), "{head:?}");
    }
}

#[test]
fn some_empty_lines_come_first_but_not_many() {
    let request = "GET / HTTP/1.1\r\n\r\n";
    assert!(read(&format!("\r\n\r\n{request}")).is_ok());
    let mut unread = BytesMut::from(format!("{}{request}", "\r\n".repeat(5)).as_str());
    assert!(Cutter::default().cut(&mut unread, LIMITS).is_err());
}

#[test]
fn heads_have_limits() {
    let limits = Limits {
        bytes: 100,
        fields: 3,
    };
    let cut = |head: &str| Cutter::default().cut(&mut BytesMut::from(head), limits);
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(100));
    assert_eq!(cut(&long).unwrap_err().status, 431);
    assert_eq!(cut(&format!("{long}\r\n")).unwrap_err().status, 431);
    let many = cut("GET / HTTP/1.1\r\na: 1\r\nb: 1\r\nc: 1\r\nd: 1\r\n\r\n")
        .unwrap()
        .unwrap();
    assert_eq!(request(&many, limits).unwrap_err().status, 431);
}

#[test]
fn who_keeps_the_connection() {
    for (version, connection, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let head = read(&format!("GET / HTTP/{version}\r\n{connection}\r\n")).unwrap();
        assert_eq!(head.keep_alive, kept, "{version} {connection}");
    }
}

#[test]
fn only_an_http_1_1_client_waits_to_be_told() {
    let expect = |version: &str| {
        let head = format!("POST / HTTP/{version}\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n");
        read(&head).unwrap().expects_continue
    };
    assert!(expect("1.1") && !expect("1.0"));
}

#[test]
fn a_response_is_framed_by_what_was_asked() {
    let (get, head, connect) = (
        Asked::default(),
        Asked::by(&Method::HEAD),
        Asked::by(&Method::CONNECT),
    );
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: Chunked\r\n";
    for (status, fields, asked, framing) in [
        ("200 OK", length, get, Framing::Length(5)),
        ("200 ", chunked, get, Framing::Chunked),
        ("200", "", get, Framing::UntilClose),
        ("200 OK", length, head, Framing::None),
        ("200 OK", chunked, head, Framing::None),
        ("200 OK", length, connect, Framing::None),
        ("404 Not Found", length, connect, Framing::Length(5)),
        ("204 No Content", length, get, Framing::None),
        ("304 Not Modified", length, get, Framing::None),
        ("103 Early Hints", "", get, Framing::None),
        ("200 OK", "Content-Length: 0\r\n", get, Framing::None),
    ] {
        let read = read_response(&format!("HTTP/1.1 {status}\r\n{fields}\r\n"), asked).unwrap();
        assert_eq!(read.framing, framing, "{status} {fields}");
        assert_eq!(read.keep_alive, framing != Framing::UntilClose);
    }
}

#[test]
fn a_response_that_contradicts_itself_is_refused() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
    ] {
        assert!(read_response(response, Asked::default()).is_err(), "{response:?}");
    }
}

#[test]
fn what_must_come_first_is_no_trailer() {
    let section =
        "X-Sum: 1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nl5d-client-id: me\r\nAuthorization: x\r\n\r\n";
    let read = trailers(&Bytes::from_static(section.as_bytes())).unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(read["x-sum"], "1");
}

prop_compose! {
    fn any_field()(name in "x-[a-z0-9]{1,8}", value in "[!-~]([ -~]{0,12}[!-~])?") -> (String, String) {
        (name, value)
    }
}

proptest! {
    /// Cut at any bytes, the same heads come out.
    #[test]
    fn pieces_make_the_same_head(
        fields in proptest::collection::vec(any_field(), 0..6),
        cuts in proptest::collection::vec(1_usize..40, 0..12),
    ) {
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let sent = format!("\r\nGET /x HTTP/1.1\r\n{fields}\r\nrest");
        let (mut cutter, mut unread, mut found) = (Cutter::default(), BytesMut::new(), None);
        let mut left = sent.as_bytes();
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (piece, rest) = left.split_at(cut.min(left.len()));
            unread.extend_from_slice(piece);
            left = rest;
            if found.is_none() {
                found = cutter.cut(&mut unread, LIMITS).unwrap();
            }
        }
        prop_assert_eq!(unread, "rest");
        let head = found.unwrap();
        prop_assert_eq!(&head[..], &sent.as_bytes()[2..sent.len() - 4]);
        prop_assert!(request(&head, LIMITS).is_ok());
    }

    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut unread = BytesMut::from(&bytes[..]);
        if let Ok(Some(head)) = Cutter::default().cut(&mut unread, LIMITS) {
            let _ = response(&head, Asked::default(), LIMITS);
            let _ = trailers(&head);
            let _ = request(&head, LIMITS);
        }
    }
}
