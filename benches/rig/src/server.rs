//! The application: small answers, large bodies, unary gRPC, and a source of bytes.

use crate::{
    Outcome,
    exchange::{GRPC_MESSAGE, ZEROS, content_length, send_zeros},
    say,
};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use serde::Deserialize;
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::spawn_local,
};

#[derive(Debug, Deserialize)]
pub(crate) struct Options {
    http: SocketAddr,
    /// Where connections get bytes as fast as they take them.
    sources: Vec<SocketAddr>,
}

pub(crate) async fn serve(options: Options) -> Outcome {
    for addr in options.sources {
        let listener = TcpListener::bind(addr).await?;
        spawn_local(async move {
            while let Ok((io, _)) = listener.accept().await {
                spawn_local(source(io));
            }
        });
    }
    let listener = TcpListener::bind(options.http).await?;
    say("begin")?;
    loop {
        let (io, _) = listener.accept().await?;
        io.set_nodelay(true)?;
        spawn_local(async move {
            // Clients come and go; what goes wrong is theirs to tell.
            let _ = http(io).await;
        });
    }
}

async fn source(mut io: TcpStream) {
    while io.write_all(&ZEROS).await.is_ok() {}
}

async fn http(io: TcpStream) -> Outcome {
    let mut first = [0; 3];
    while io.peek(&mut first).await? < first.len() {
        io.readable().await?;
    }
    if &first == b"PRI" {
        http2(io).await
    } else {
        http1(io).await
    }
}

async fn http1(mut io: TcpStream) -> Outcome {
    let mut buf = BytesMut::with_capacity(4096);
    let mut answer = Vec::new();
    loop {
        let Head {
            wanted,
            length: mut body,
        } = loop {
            if let Some(head) = request_head(&mut buf)? {
                break head;
            }
            if io.read_buf(&mut buf).await? == 0 {
                return Ok(());
            }
        };
        while body > 0 {
            if buf.is_empty() && io.read_buf(&mut buf).await? == 0 {
                return Ok(());
            }
            let n = body.min(buf.len());
            buf.advance(n);
            body -= n;
            buf.reserve(64 * 1024);
        }
        answer.clear();
        match wanted {
            None => answer.extend_from_slice(SMALL_ANSWER.as_bytes()),
            Some(n) => {
                answer
                    .extend_from_slice(format!("HTTP/1.1 200 OK\r\ncontent-length: {n}\r\n\r\n").as_bytes());
            }
        }
        io.write_all(&answer).await?;
        let mut left = wanted.unwrap_or(0);
        while left > 0 {
            let n = left.min(ZEROS.len());
            io.write_all(ZEROS.get(..n).unwrap_or_default()).await?;
            left -= n;
        }
    }
}

struct Head {
    /// How large a body is wanted.
    wanted: Option<usize>,
    /// How large the request's own is.
    length: usize,
}

/// Takes the head off `buf`.
fn request_head(buf: &mut BytesMut) -> Result<Option<Head>, httparse::Error> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(buf)? else {
        return Ok(None);
    };
    let found = Head {
        wanted: wanted(request.path.unwrap_or("/")),
        length: content_length(request.headers).unwrap_or(0),
    };
    buf.advance(head);
    Ok(Some(found))
}

fn wanted(path: &str) -> Option<usize> {
    path.strip_prefix("/bytes/")?.parse().ok()
}

async fn http2(io: TcpStream) -> Outcome {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .max_concurrent_streams(1024)
        .handshake(io)
        .await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        spawn_local(async move {
            let _ = answer(request, respond).await;
        });
    }
    Ok(())
}

async fn answer(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) -> Outcome {
    let grpc = request
        .headers()
        .get("content-type")
        .is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    let wanted = wanted(request.uri().path());
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        let n = data?.len();
        body.flow_control().release_capacity(n)?;
    }
    let response = Response::builder().status(200);
    if grpc {
        let head = response.header("content-type", "application/grpc").body(())?;
        let mut stream = respond.send_response(head, false)?;
        stream.send_data(Bytes::from_static(GRPC_MESSAGE), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        stream.send_trailers(trailers)?;
        return Ok(());
    }
    let n = wanted.unwrap_or(SMALL_BODY.len());
    let head = response
        .header("content-type", "text/plain")
        .header("content-length", n)
        .body(())?;
    let mut stream = respond.send_response(head, false)?;
    match wanted {
        None => stream.send_data(Bytes::from_static(SMALL_BODY), true)?,
        Some(n) => send_zeros(&mut stream, n).await?,
    }
    Ok(())
}

const SMALL_BODY: &[u8] = b"a body of thirty-eight bytes, as said\n";
const SMALL_ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 38\r\n\r\n\
a body of thirty-eight bytes, as said\n";
