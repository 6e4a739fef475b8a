//! Serves HTTP/2 connections.

use super::{
    DEFAULT_CONNECTION_WINDOW, DEFAULT_STREAM_WINDOW, KeepAlive, SEND_BUFFER, keepalive,
    pump::{Stopped, pump, send_trailers},
};
use crate::{Body, Handler, Response, body::Side};
use bytes::Bytes;
use h2::{Reason, server::SendResponse};
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use linkerd_stack::{Error, Retry, drain, grpc_status_of, is_grpc};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

/// What an HTTP/2 server allows.
#[derive(Clone, Debug)]
pub struct ServerParams {
    pub stream_window: u32,
    pub connection_window: u32,
    pub max_concurrent_streams: u32,
    pub max_frame_size: Option<u32>,
    pub max_header_list_size: u32,
    pub max_pending_accept_reset_streams: Option<usize>,
    pub keep_alive: Option<KeepAlive>,
}

impl Default for ServerParams {
    fn default() -> Self {
        Self {
            stream_window: DEFAULT_STREAM_WINDOW,
            connection_window: DEFAULT_CONNECTION_WINDOW,
            max_concurrent_streams: 4_096,
            max_frame_size: None,
            max_header_list_size: 64 * 1024,
            max_pending_accept_reset_streams: None,
            keep_alive: None,
        }
    }
}

/// Serves one connection until it ends or is drained.
///
/// # Errors
/// The connection's error, for the log.
pub async fn serve<I, H>(
    io: I,
    handler: Arc<H>,
    params: &ServerParams,
    mut drain: drain::Watch,
) -> Result<(), h2::Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let mut connection = builder(params).handshake(io).await?;
    let pings = connection.ping_pong();
    let mut lost = pin!(keepalive::lost(params.keep_alive, pings));
    let mut draining = false;
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = connection.accept() => accepted,
            () = drain.signaled(), if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
            () = &mut lost => {
                debug!("HTTP/2 client does not answer pings");
                return Ok(());
            }
        };
        match accepted {
            None => return Ok(()),
            Some(accepted) => {
                let (request, respond) = accepted?;
                tokio::spawn(serve_stream(request, respond, handler.clone()));
            }
        }
    }
}

fn builder(params: &ServerParams) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(params.stream_window)
        .initial_connection_window_size(params.connection_window)
        .max_concurrent_streams(params.max_concurrent_streams)
        .max_header_list_size(params.max_header_list_size)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(MAX_RESET)
        .max_local_error_reset_streams(Some(MAX_FAULTY))
        .max_pending_accept_reset_streams(
            params
                .max_pending_accept_reset_streams
                .unwrap_or(MAX_RESET_UNSEEN),
        );
    if let Some(size) = params.max_frame_size {
        builder.max_frame_size(size.clamp(16_384, 16_777_215));
    }
    builder
}

async fn serve_stream<H: Handler>(
    request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    handler: Arc<H>,
) {
    let request = request.map(|body| Body::http2(body, Side::Client, None));
    let response = {
        let mut handled = pin!(handler.handle(request));
        poll_fn(|cx| {
            // A client that resets its stream ends the request, wherever it is.
            if respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            handled.as_mut().poll(cx).map(Some)
        })
        .await
    };
    match response {
        None => {}
        Some(Ok(response)) => send_response(response, respond).await,
        Some(Err(error)) => respond.send_reset(reset_reason(&error)),
    }
}

async fn send_response(response: Response, mut respond: SendResponse<Bytes>) {
    let (mut parts, body) = response.into_parts();
    parts.version = http::Version::HTTP_2;
    let end = body.is_end_stream();
    let grpc = is_grpc(&parts.headers);
    let head = http::Response::from_parts(parts, ());
    let mut stream = match respond.send_response(head, end) {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%error, "response head was not sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
            return;
        }
    };
    if end {
        return;
    }
    match pump(body, &mut stream).await {
        Ok(()) => {}
        Err(Stopped::Peer(reason)) => debug!(?reason, "client ended the stream"),
        // A gRPC client understands trailers better than a reset.
        Err(Stopped::Body(error)) if grpc && send_trailers(&mut stream, grpc_trailers(&error)).is_ok() => {}
        Err(Stopped::Body(error)) => stream.send_reset(reset_reason(&error)),
    }
}

fn grpc_trailers(error: &Error) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(grpc_status_of(error.cause())));
    if let Ok(message) = HeaderValue::from_str(&error.to_string()) {
        trailers.insert("grpc-message", message);
    }
    trailers
}

fn reset_reason(error: &Error) -> Reason {
    if error.retry() == Retry::Unsent {
        // RFC 9113 §8.7: tells the client that it may send the request again.
        return Reason::REFUSED_STREAM;
    }
    error.reset().map_or(Reason::INTERNAL_ERROR, Reason::from)
}

/// How many streams that were reset here are remembered, for frames that are still under way.
const MAX_RESET: usize = 50;
/// How many streams a client may reset before they are looked at (CVE-2023-44487), then its connection ends.
const MAX_RESET_UNSEEN: usize = 20;
/// How many streams a client may break by invalid frames (CVE-2025-8671), then its connection ends. Other proxies send
/// the requests of many clients on one connection, so a few faults must not end them all.
const MAX_FAULTY: usize = 512;
