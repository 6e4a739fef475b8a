//! One request and its response, over each protocol that clients speak.

use crate::Outcome;
use bytes::{Buf as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{Method, Request, Uri};
use serde::Deserialize;
use std::{error::Error, future::poll_fn, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

#[derive(Copy, Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    H1,
    H2,
    Grpc,
}

/// What is asked for.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    pub(crate) protocol: Protocol,
    /// Sent in the request's body and wanted in the response's.
    #[serde(default)]
    pub(crate) body_bytes: usize,
}

/// A connection that carries exchanges. Clones of an HTTP/2 one share it.
pub(crate) enum Connection {
    H1(Box<Http1>),
    H2(Http2),
}

pub(crate) struct Http1 {
    io: TcpStream,
    buf: BytesMut,
    head: Vec<u8>,
    body_bytes: usize,
}

#[derive(Clone)]
pub(crate) struct Http2 {
    sender: SendRequest<Bytes>,
    target: Target,
}

impl Target {
    pub(crate) async fn connect(&self) -> Result<Connection, Box<dyn Error>> {
        let io = TcpStream::connect(self.addr).await?;
        io.set_nodelay(true)?;
        if self.protocol == Protocol::H1 {
            return Ok(Connection::H1(Box::new(Http1 {
                io,
                buf: BytesMut::with_capacity(4096),
                head: self.http1_head().into_bytes(),
                body_bytes: self.body_bytes,
            })));
        }
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake(io)
            .await?;
        tokio::task::spawn_local(connection);
        Ok(Connection::H2(Http2 {
            sender,
            target: self.clone(),
        }))
    }

    fn http1_head(&self) -> String {
        match self.body_bytes {
            0 => format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nuser-agent: rig\r\naccept: */*\r\n\r\n"),
            n => format!(
                "POST /bytes/{n} HTTP/1.1\r\nhost: {HOST}\r\nuser-agent: rig\r\ncontent-length: {n}\r\n\r\n"
            ),
        }
    }

    fn http2_head(&self) -> Result<Request<()>, Box<dyn Error>> {
        let (method, path) = match (self.protocol, self.body_bytes) {
            (Protocol::Grpc, _) => (Method::POST, "/bench.Echo/Unary".to_owned()),
            (_, 0) => (Method::GET, "/".to_owned()),
            (_, n) => (Method::POST, format!("/bytes/{n}")),
        };
        let uri: Uri = format!("http://{HOST}{path}").parse()?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("user-agent", "rig");
        Ok(match self.protocol {
            Protocol::Grpc => request
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())?,
            _ => request.header("accept", "*/*").body(())?,
        })
    }
}

impl Connection {
    pub(crate) async fn exchange(&mut self) -> Outcome {
        match self {
            Self::H1(connection) => connection.exchange().await,
            Self::H2(connection) => connection.exchange().await,
        }
    }

    /// Another user of the same connection; HTTP/1 has none.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::H1(_) => None,
            Self::H2(connection) => Some(Self::H2(connection.clone())),
        }
    }
}

impl Http1 {
    async fn exchange(&mut self) -> Outcome {
        self.io.write_all(&self.head).await?;
        let mut left = self.body_bytes;
        while left > 0 {
            let n = left.min(ZEROS.len());
            self.io.write_all(ZEROS.get(..n).unwrap_or_default()).await?;
            left -= n;
        }
        let mut body = self.response_head().await?;
        while body > 0 {
            if self.buf.is_empty() {
                self.read().await?;
            }
            let n = body.min(self.buf.len());
            self.buf.advance(n);
            body -= n;
        }
        Ok(())
    }

    /// Returns the length of the body.
    async fn response_head(&mut self) -> Result<usize, Box<dyn Error>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(head) = response.parse(&self.buf)? {
                if response.code != Some(200) {
                    return Err(format!("status {:?}", response.code).into());
                }
                let length = content_length(response.headers).ok_or("response without a content-length")?;
                self.buf.advance(head);
                return Ok(length);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Outcome {
        if self.buf.capacity() - self.buf.len() < 1024 {
            self.buf.reserve(READ);
        }
        match self.io.read_buf(&mut self.buf).await? {
            0 => Err("connection closed".into()),
            _ => Ok(()),
        }
    }
}

pub(crate) fn content_length(headers: &[httparse::Header<'_>]) -> Option<usize> {
    let found = headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(found.value).ok()?.parse().ok()
}

impl Http2 {
    async fn exchange(&mut self) -> Outcome {
        let grpc = self.target.protocol == Protocol::Grpc;
        let body_bytes = if grpc {
            GRPC_MESSAGE.len()
        } else {
            self.target.body_bytes
        };
        let mut sender = self.sender.clone().ready().await?;
        let (response, mut stream) = sender.send_request(self.target.http2_head()?, body_bytes == 0)?;
        if grpc {
            stream.send_data(Bytes::from_static(GRPC_MESSAGE), true)?;
        } else if body_bytes > 0 {
            send_zeros(&mut stream, body_bytes).await?;
        }
        let response = response.await?;
        if response.status() != 200 {
            return Err(format!("status {}", response.status()).into());
        }
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let released = data?.len();
            body.flow_control().release_capacity(released)?;
        }
        let trailers = body.trailers().await?;
        if grpc && trailers.is_none_or(|t| t.get("grpc-status").is_none_or(|s| s != "0")) {
            return Err("no grpc-status".into());
        }
        Ok(())
    }
}

/// Sends a body of `left` zeros, as the peer has room for them.
pub(crate) async fn send_zeros(stream: &mut h2::SendStream<Bytes>, mut left: usize) -> Outcome {
    while left > 0 {
        stream.reserve_capacity(left.min(ZEROS.len()));
        let room = poll_fn(|cx| stream.poll_capacity(cx))
            .await
            .ok_or("stream is gone")??;
        let n = room.min(left).min(ZEROS.len());
        left -= n;
        stream.send_data(Bytes::from_static(ZEROS.get(..n).unwrap_or_default()), left == 0)?;
    }
    Ok(())
}

/// Waits until an exchange succeeds.
pub(crate) async fn probe(target: Target) -> Outcome {
    loop {
        if let Ok(mut connection) = target.connect().await
            && connection.exchange().await.is_ok()
        {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) const HOST: &str = "web.bench.svc.cluster.local";
/// A frame of 33 bytes.
pub(crate) const GRPC_MESSAGE: &[u8] = b"\0\0\0\0\x21................................!";
pub(crate) static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
const READ: usize = 64 * 1024;
