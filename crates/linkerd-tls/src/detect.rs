//! Finding TLS on an accepted connection.

use crate::client_hello::{ClientHello, MAX_HELLO};
use bytes::BytesMut;
use linkerd_transport::PrefixedIo;
use std::io;
use tokio::{io::AsyncReadExt as _, net::TcpStream};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detected {
    Tls {
        sni: Option<String>,
    },
    NotTls,
    /// The client closed without having sent a byte.
    Closed,
}

/// Looks at the first bytes. Usually nothing is read: one look into the socket's buffer is enough, so that a
/// terminated connection is read by the TLS library alone. The caller bounds the time.
///
/// # Errors
/// Those of the socket.
pub async fn detect(io: TcpStream) -> io::Result<(Detected, PrefixedIo<TcpStream>)> {
    let mut peeked = [0; PEEK];
    let len = io.peek(&mut peeked).await?;
    if len == 0 {
        return Ok((Detected::Closed, io.into()));
    }
    match ClientHello::parse(peeked.get(..len).unwrap_or_default()) {
        ClientHello::NotTls => Ok((Detected::NotTls, io.into())),
        ClientHello::Complete { sni } => Ok((Detected::Tls { sni }, io.into())),
        ClientHello::Incomplete => read_on(io).await,
    }
}

/// Reads until the message is whole. A client that stops in the middle has sent no TLS that could be served.
async fn read_on(mut io: TcpStream) -> io::Result<(Detected, PrefixedIo<TcpStream>)> {
    let mut buf = BytesMut::with_capacity(2 * PEEK);
    loop {
        let ended = io.read_buf(&mut buf).await? == 0;
        let detected = match ClientHello::parse(&buf) {
            ClientHello::Incomplete if !ended && buf.len() < MAX_BUFFERED => continue,
            ClientHello::Incomplete | ClientHello::NotTls => Detected::NotTls,
            ClientHello::Complete { sni } => Detected::Tls { sni },
        };
        return Ok((detected, PrefixedIo::new(buf.freeze(), io)));
    }
}

/// Holds the hello of a proxy, whose identities are long names.
const PEEK: usize = 1024;
/// A hello in the smallest records is six times as long.
const MAX_BUFFERED: usize = 6 * MAX_HELLO;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn plain_text_is_left_in_the_socket() {
        let (mut client, server) = pair().await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let (detected, io) = detect(server).await.unwrap();
        assert_eq!(detected, Detected::NotTls);
        assert!(io.prefix().is_empty());
    }

    #[tokio::test]
    async fn a_client_that_stops_in_a_hello_is_not_tls() {
        let (mut client, server) = pair().await;
        client.write_all(b"\x16\x03\x01").await.unwrap();
        drop(client);
        let (detected, io) = detect(server).await.unwrap();
        assert_eq!(detected, Detected::NotTls);
        assert_eq!(&io.prefix()[..], b"\x16\x03\x01");
    }

    #[tokio::test]
    async fn a_client_that_only_closes_is_told() {
        let (client, server) = pair().await;
        drop(client);
        assert_eq!(detect(server).await.unwrap().0, Detected::Closed);
    }
}
