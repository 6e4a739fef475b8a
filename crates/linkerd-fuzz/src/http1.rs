//! Heads, chunks and pipelines of HTTP/1, read by the server that the proxy uses.

use crate::Target;
use http_body_util::BodyExt as _;
use linkerd_http::{Body, Handler, Request, Response, h1};
use linkerd_stack::{Error, drain};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Duration, timeout},
};

pub(crate) const TARGET: Target = Target {
    name: "http1",
    run,
    seeds: &[
        b"GET /a?b=c HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nhost: b\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nA;a=b\r\n0123456789\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET http://a/b HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nhost:a\r\nexpect: 100-continue\r\n\r\n",
    ],
};

/// However the bytes are cut, the requests are the same.
fn run(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let whole = requests(bytes, bytes.len().max(1)).await;
        for size in [1, 7] {
            assert_eq!(requests(bytes, size).await, whole, "in pieces of {size}");
        }
    });
}

/// What a handler sees of `bytes` that come in pieces of `size`.
async fn requests(bytes: &[u8], size: usize) -> Vec<String> {
    let recorder = Arc::new(Recorder::default());
    let (mut client, server) = tokio::io::duplex(4 * 1024);
    let (_signal, watch) = drain::channel();
    let params = h1::ServerParams::default();
    let serve = h1::serve(server, recorder.clone(), &params, watch);
    let send = async {
        for piece in bytes.chunks(size) {
            if client.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        // What can be answered is; then the server waits for more, or has closed.
        let _ = timeout(SETTLED, client.read_to_end(&mut Vec::new())).await;
        drop(client);
    };
    let _ = tokio::join!(serve, send);
    std::mem::take(&mut recorder.0.lock())
}

/// In memory nothing takes longer.
const SETTLED: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Handler for Recorder {
    async fn handle(&self, request: Request) -> Result<Response, Error> {
        let (parts, body) = request.into_parts();
        // A body that breaks off is the client's way of ending the request.
        let Ok(body) = body.collect().await else {
            return Ok(Response::new(Body::empty()));
        };
        let trailers = format!("{:?}", body.trailers());
        let seen = format!(
            "{} {} {:?} {:?} {:?} {trailers}",
            parts.method,
            parts.uri,
            parts.version,
            parts.headers,
            body.to_bytes()
        );
        self.0.lock().push(seen);
        Ok(Response::new(Body::empty()))
    }
}
