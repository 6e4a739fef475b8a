//! What comes before and first in TLS between proxies.

use crate::Target;
use bytes::BytesMut;
use linkerd_tls::ClientHello;
use linkerd_transport::TransportHeader;

pub(crate) const CLIENT_HELLO: Target = Target {
    name: "client hello",
    run: client_hello,
    seeds: &[
        include_bytes!("../seeds/hello-name"),
        include_bytes!("../seeds/hello-address"),
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
};

/// A decision does not depend on how the bytes are cut, and what rustls takes for a hello asks for the same name here.
fn client_hello(bytes: &[u8]) {
    let whole = ClientHello::parse(bytes);
    for len in 0..bytes.len() {
        let part = ClientHello::parse(&bytes[..len]);
        assert!(
            part == ClientHello::Incomplete || part == whole,
            "{part:?} became {whole:?}"
        );
    }
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() && acceptor.read_tls(&mut rest).is_ok_and(|read| read > 0) {
        match acceptor.accept() {
            Ok(None) => {}
            Err(_) => return,
            Ok(Some(accepted)) => {
                let sni = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                let ClientHello::Complete { sni: ours } = whole else {
                    // What rustls lets pass and is refused here never reaches rustls.
                    assert_eq!(whole, ClientHello::NotTls, "rustls has read a whole hello");
                    return;
                };
                assert_eq!(ours, sni);
                return;
            }
        }
    }
}

pub(crate) const TRANSPORT_HEADER: Target = Target {
    name: "transport header",
    run: transport_header,
    seeds: &[
        b"transport.l5d.io/v1\r\n\r\n\x00\x00\x00\x03\x08\xaf\x20",
        b"transport.l5d.io/v1\r\n\r\n\x00\x00\x00\x0a\x08\x50\x12\x02a.\x1a\x02\x12\x00rest",
        b"transport.l5d.io/v1\r\n\r\n\xff\xff\xff\xff",
    ],
};

/// No beginning of a header is taken for one, and what is read can be written and read again.
fn transport_header(bytes: &[u8]) {
    let mut buf = BytesMut::from(bytes);
    let Ok(Some(header)) = TransportHeader::decode(&mut buf) else {
        return;
    };
    let len = bytes.len() - buf.len();
    for len in 0..len {
        let mut part = BytesMut::from(&bytes[..len]);
        assert!(matches!(TransportHeader::decode(&mut part), Ok(None)));
        assert_eq!(part, bytes[..len]);
    }
    let mut again = BytesMut::from(&header.encode()[..]);
    assert_eq!(TransportHeader::decode(&mut again).unwrap(), Some(header));
    assert!(again.is_empty());
}
