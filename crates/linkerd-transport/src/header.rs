//! The transport header: what a proxy says first on a TLS connection to another proxy's inbound port.
//!
//! `transport.l5d.io/v1\r\n\r\n`, a big-endian length, a protobuf message. It is only sent when both sides
//! negotiated it (ALPN), so a malformed one is an error and never somebody else's protocol.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use linkerd_proto::transport_header as proto;
use prost::Message as _;
use std::{io, num::NonZeroU16, sync::Arc};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The protocol by which both sides agree to it.
pub const ALPN: &[u8] = b"transport.l5d.io/v1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    pub port: NonZeroU16,
    /// Absent: the receiving pod itself. Otherwise a name that the receiver, a gateway, forwards to.
    pub name: Option<Arc<str>>,
    /// Absent: opaque bytes.
    pub protocol: Option<SessionProtocol>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionProtocol {
    Http1,
    Http2,
}

#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("not a transport header")]
    Preface,
    #[error("transport header of {0} bytes is too long")]
    TooLong(usize),
    #[error("malformed transport header: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("transport header without a valid port: {0}")]
    Port(i32),
    #[error("connection closed within the transport header")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl TransportHeader {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let message = self.message();
        let len = message.encoded_len();
        let mut buf = BytesMut::with_capacity(PREFACE.len() + LENGTH + len);
        buf.put_slice(PREFACE);
        buf.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
        buf.put_slice(&message.encode_to_vec());
        buf.freeze()
    }

    fn message(&self) -> proto::Header {
        use proto::session_protocol::{Http1, Http2, Kind};
        let kind = self.protocol.map(|protocol| match protocol {
            SessionProtocol::Http1 => Kind::Http1(Http1 {}),
            SessionProtocol::Http2 => Kind::Http2(Http2 {}),
        });
        proto::Header {
            port: i32::from(self.port.get()),
            name: self.name.as_deref().unwrap_or_default().to_string(),
            session_protocol: kind.map(|kind| proto::SessionProtocol { kind: Some(kind) }),
        }
    }

    /// Takes a header off the front of `buf`; `None` when there is not yet a whole one.
    ///
    /// # Errors
    /// When what is there can never become one.
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, HeaderError> {
        let known = buf.len().min(PREFACE.len());
        if buf.get(..known) != PREFACE.get(..known) {
            return Err(HeaderError::Preface);
        }
        let Some(mut after_preface) = buf.get(PREFACE.len()..).filter(|rest| rest.len() >= LENGTH) else {
            return Ok(None);
        };
        let len = usize::try_from(after_preface.get_u32()).unwrap_or(usize::MAX);
        if len > MAX_MESSAGE {
            return Err(HeaderError::TooLong(len));
        }
        if after_preface.len() < len {
            return Ok(None);
        }
        buf.advance(PREFACE.len() + LENGTH);
        let message = proto::Header::decode(buf.split_to(len))?;
        Self::from_message(message).map(Some)
    }

    fn from_message(message: proto::Header) -> Result<Self, HeaderError> {
        let port = u16::try_from(message.port)
            .ok()
            .and_then(NonZeroU16::new)
            .ok_or(HeaderError::Port(message.port))?;
        let protocol = message
            .session_protocol
            .and_then(|p| p.kind)
            .map(|kind| match kind {
                proto::session_protocol::Kind::Http1(_) => SessionProtocol::Http1,
                proto::session_protocol::Kind::Http2(_) => SessionProtocol::Http2,
            });
        let name = (!message.name.is_empty()).then(|| message.name.into());
        Ok(Self { port, name, protocol })
    }

    /// Reads one; what follows it stays in `buf`. The caller bounds the time.
    ///
    /// # Errors
    /// When the peer sends something else or closes.
    pub async fn read(io: &mut (impl AsyncRead + Unpin), buf: &mut BytesMut) -> Result<Self, HeaderError> {
        loop {
            if let Some(header) = Self::decode(buf)? {
                return Ok(header);
            }
            if io.read_buf(buf).await? == 0 {
                return Err(HeaderError::Closed);
            }
        }
    }
}

const PREFACE: &[u8] = b"transport.l5d.io/v1\r\n\r\n";
const LENGTH: usize = size_of::<u32>();
/// A name has at most 253 bytes; the rest is room for fields that a newer peer adds.
const MAX_MESSAGE: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{option, prelude::*};

    fn header() -> TransportHeader {
        TransportHeader {
            port: NonZeroU16::new(8080).unwrap(),
            name: Some("web.ns.svc.cluster.local".into()),
            protocol: Some(SessionProtocol::Http2),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let port = NonZeroU16::new(4143).unwrap();
        let bytes = TransportHeader {
            port,
            name: None,
            protocol: None,
        }
        .encode();
        assert_eq!(
            &bytes[..],
            b"transport.l5d.io/v1\r\n\r\n\x00\x00\x00\x03\x08\xaf\x20"
        );
    }

    #[test]
    fn every_beginning_of_a_header_waits_for_more() {
        let bytes = header().encode();
        for len in 0..bytes.len() {
            let mut buf = BytesMut::from(&bytes[..len]);
            assert!(matches!(TransportHeader::decode(&mut buf), Ok(None)), "{len}");
            assert_eq!(buf.len(), len);
        }
    }

    #[test]
    fn what_cannot_become_a_header_is_refused() {
        let decode = |bytes: &[u8]| TransportHeader::decode(&mut BytesMut::from(bytes));
        assert!(matches!(decode(b"GET / HTTP/1.1"), Err(HeaderError::Preface)));
        let long = [PREFACE, &[0xff; 4]].concat();
        assert!(matches!(decode(&long), Err(HeaderError::TooLong(_))));
        let no_port = [PREFACE, &[0; 4]].concat();
        assert!(matches!(decode(&no_port), Err(HeaderError::Port(0))));
    }

    #[tokio::test]
    async fn what_follows_stays_in_the_buffer() {
        let bytes = [&header().encode()[..], b"payload"].concat();
        let mut buf = BytesMut::with_capacity(bytes.len());
        assert_eq!(
            TransportHeader::read(&mut &bytes[..], &mut buf).await.unwrap(),
            header()
        );
        assert_eq!(&buf[..], b"payload");
    }

    #[tokio::test]
    async fn a_peer_that_closes_early_is_an_error() {
        let bytes = header().encode();
        let read = TransportHeader::read(&mut &bytes[..10], &mut BytesMut::new()).await;
        assert!(matches!(read, Err(HeaderError::Closed)));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(port in 1_u16.., name in option::of("[a-z.]{1,253}"), http in option::of(any::<bool>())) {
            let header = TransportHeader {
                port: NonZeroU16::new(port).unwrap(),
                name: name.map(Into::into),
                protocol: http.map(|one| if one { SessionProtocol::Http1 } else { SessionProtocol::Http2 }),
            };
            let mut buf = BytesMut::from(&header.encode()[..]);
            prop_assert_eq!(TransportHeader::decode(&mut buf).unwrap(), Some(header));
            prop_assert!(buf.is_empty());
        }

        #[test]
        fn no_bytes_break_the_decoder(message in prop::collection::vec(any::<u8>(), 0..64), len in 0_u8..64) {
            let mut buf = BytesMut::from(PREFACE);
            buf.put_u32(len.into());
            buf.put_slice(&message);
            let _ = TransportHeader::decode(&mut buf);
        }
    }
}
