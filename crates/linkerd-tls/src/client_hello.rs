//! Reading the server name from the first bytes of a TLS connection, without taking part in it.
//!
//! RFC 8446: records (5.1) carry handshake messages (4), a message may be cut into several records, and the first
//! message is the `ClientHello` (4.1.2) with its extensions (4.2); the server name is RFC 6066, 3.

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientHello {
    /// Not TLS, or TLS so odd that no server of ours would accept it.
    NotTls,
    /// The beginning of one.
    Incomplete,
    /// A whole one, with the server name if it names one.
    Complete { sni: Option<String> },
}

impl ClientHello {
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        match handshake(bytes).and_then(|message| server_name(&message)) {
            Ok(sni) => Self::Complete { sni },
            Err(Stop::Incomplete) => Self::Incomplete,
            Err(Stop::NotTls) => Self::NotTls,
        }
    }
}

/// The largest `ClientHello` that is waited for. Browsers with post-quantum key shares send about 2 KiB.
pub const MAX_HELLO: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Incomplete,
    NotTls,
}

const RECORD_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const NAME_TYPE_HOST: u8 = 0;
const MAX_RECORD: usize = 16 * 1024;

/// The body of the first handshake message, put together from as many records as it takes.
fn handshake(mut bytes: &[u8]) -> Result<Vec<u8>, Stop> {
    let mut fragments: Vec<u8> = Vec::new();
    loop {
        let whole = message_len(&fragments)?.and_then(|len| fragments.get(4..4 + len));
        if let Some(body) = whole {
            return Ok(body.to_vec());
        }
        let (payload, rest) = record(bytes)?;
        fragments.extend_from_slice(payload);
        bytes = rest;
    }
}

fn message_len(fragments: &[u8]) -> Result<Option<usize>, Stop> {
    let Some(&kind) = fragments.first() else {
        return Ok(None);
    };
    if kind != MESSAGE_CLIENT_HELLO {
        return Err(Stop::NotTls);
    }
    let Some(&[_, a, b, c]) = fragments.get(..4) else {
        return Ok(None);
    };
    let len = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    if len > MAX_HELLO {
        Err(Stop::NotTls)
    } else {
        Ok(Some(len))
    }
}

/// A record's payload (as much as is there) and what follows it.
fn record(bytes: &[u8]) -> Result<(&[u8], &[u8]), Stop> {
    for (at, want) in [(0, RECORD_HANDSHAKE), (1, 3)] {
        match bytes.get(at) {
            None => return Err(Stop::Incomplete),
            Some(have) if *have != want => return Err(Stop::NotTls),
            Some(_) => {}
        }
    }
    let Some(&[_, _, _, high, low]) = bytes.get(..5) else {
        return Err(Stop::Incomplete);
    };
    let len = usize::from(high) << 8 | usize::from(low);
    if len == 0 || len > MAX_RECORD {
        return Err(Stop::NotTls);
    }
    let rest = bytes.get(5..).unwrap_or_default();
    if rest.is_empty() {
        Err(Stop::Incomplete)
    } else {
        Ok(rest.split_at(len.min(rest.len())))
    }
}

fn server_name(hello: &[u8]) -> Result<Option<String>, Stop> {
    let mut fields = Fields(hello);
    fields.take(2 + 32)?; // version and random
    fields.vector8()?; // session
    fields.vector16()?; // cipher suites
    fields.vector8()?; // compression methods
    if fields.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = Fields(fields.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let body = extensions.vector16()?;
        if kind == EXTENSION_SERVER_NAME {
            return host_name(body);
        }
    }
    Ok(None)
}

fn host_name(extension: &[u8]) -> Result<Option<String>, Stop> {
    let mut list = Fields(Fields(extension).vector16()?);
    while !list.0.is_empty() {
        let kind = list.take(1)?;
        let name = list.vector16()?;
        if kind == [NAME_TYPE_HOST] {
            let name = std::str::from_utf8(name).map_err(|_| Stop::NotTls)?;
            if !linkerd_policy::id::is_dns_name(name) {
                return Err(Stop::NotTls);
            }
            return Ok(Some(name.to_ascii_lowercase()));
        }
    }
    Ok(None)
}

/// Reads fields of a whole message; one that ends too early is malformed.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Stop::NotTls)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Stop> {
        self.take(2)?
            .try_into()
            .map(u16::from_be_bytes)
            .map_err(|_| Stop::NotTls)
    }

    fn vector8(&mut self) -> Result<&'a [u8], Stop> {
        let len = self.take(1)?.first().copied().unwrap_or_default();
        self.take(len.into())
    }

    fn vector16(&mut self) -> Result<&'a [u8], Stop> {
        let len = self.u16()?;
        self.take(len.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use std::sync::Arc;

    fn hello(name: &'static str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    fn complete(sni: Option<&str>) -> ClientHello {
        ClientHello::Complete {
            sni: sni.map(Into::into),
        }
    }

    /// The same message in records of at most `size` bytes.
    fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
        let records = hello[5..].chunks(size).flat_map(|chunk| {
            let len = u16::try_from(chunk.len()).unwrap().to_be_bytes();
            [&[22, 3, 1][..], &len, chunk].concat()
        });
        records.collect()
    }

    #[test]
    fn the_server_name_is_read() {
        assert_eq!(
            ClientHello::parse(&hello("web.ns.svc")),
            complete(Some("web.ns.svc"))
        );
    }

    #[test]
    fn an_address_is_no_server_name() {
        assert_eq!(ClientHello::parse(&hello("10.0.0.1")), complete(None));
    }

    #[test]
    fn fragments_are_put_together() {
        for size in [1, 3, 4, 5, 100] {
            assert_eq!(
                ClientHello::parse(&fragmented(&hello("a.b"), size)),
                complete(Some("a.b")),
                "{size}"
            );
        }
    }

    #[test]
    fn every_beginning_is_incomplete() {
        for bytes in [hello("a.b"), fragmented(&hello("a.b"), 50)] {
            for len in 0..bytes.len() {
                assert_eq!(
                    ClientHello::parse(&bytes[..len]),
                    ClientHello::Incomplete,
                    "{len}"
                );
            }
        }
    }

    #[test]
    fn other_protocols_are_told_from_their_first_bytes() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"P",
            b"\x16\x02",
            b"\x16\x03\x01\x00\x04\x02",
            b"\x16\x03\x01\xff\xff\x01",
        ] {
            assert_eq!(ClientHello::parse(bytes), ClientHello::NotTls, "{bytes:?}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_not_waited_for() {
        assert_eq!(
            ClientHello::parse(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff"),
            ClientHello::NotTls
        );
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ClientHello::parse(&bytes);
            let _ = ClientHello::parse(&[&[22, 3, 1, 0, 200, 1, 0, 0, 150], &bytes[..]].concat());
        }

        #[test]
        fn a_damaged_hello_breaks_nothing(at in 0_usize..200, value: u8) {
            let mut bytes = hello("web.ns.svc");
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            let _ = ClientHello::parse(&bytes);
        }
    }
}
