//! One HTTP/2 connection to a server.

use super::{
    DEFAULT_CONNECTION_WINDOW, DEFAULT_STREAM_WINDOW, KeepAlive, SEND_BUFFER, keepalive,
    pump::{Stopped, pump},
    upstream_error,
};
use crate::{
    Body, Failed, Request, Response,
    body::{Observe, Side},
};
use bytes::Bytes;
use h2::{
    Reason, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http_body::Body as _;
use linkerd_stack::{Cause, Error};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
};
use tracing::debug;

#[derive(Clone, Debug)]
pub struct ClientParams {
    pub stream_window: u32,
    pub connection_window: u32,
    pub max_frame_size: Option<u32>,
    pub keep_alive: Option<KeepAlive>,
}

impl Default for ClientParams {
    fn default() -> Self {
        Self {
            stream_window: DEFAULT_STREAM_WINDOW,
            connection_window: DEFAULT_CONNECTION_WINDOW,
            max_frame_size: None,
            keep_alive: None,
        }
    }
}

/// A connection that requests share. Clones use the same one.
#[derive(Clone, Debug)]
pub struct Client {
    sender: SendRequest<Bytes>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: AtomicBool,
    streams: AtomicUsize,
}

/// A request's place among those of its connection; dropped with the response's body.
#[derive(Debug)]
pub(crate) struct Slot(Arc<State>);

impl Slot {
    fn take(state: &Arc<State>) -> Self {
        state.streams.fetch_add(1, Relaxed);
        Self(state.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

impl Client {
    /// Greets the server. The connection lives until the last clone and the last stream are gone.
    ///
    /// # Errors
    /// When the server does not speak HTTP/2.
    pub async fn connect<I>(io: I, params: &ClientParams) -> Result<Self, Error>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(params.stream_window)
            .initial_connection_window_size(params.connection_window)
            .max_send_buffer_size(SEND_BUFFER)
            .enable_push(false);
        if let Some(size) = params.max_frame_size {
            builder.max_frame_size(size.clamp(16_384, 16_777_215));
        }
        let (sender, mut connection) = builder
            .handshake(io)
            .await
            .map_err(|e| Error::new(Cause::ConnectError, e.to_string()).unsent())?;
        let state = Arc::<State>::default();
        let (keep_alive, pings, of_task) = (params.keep_alive, connection.ping_pong(), state.clone());
        tokio::spawn(async move {
            tokio::select! {
                result = connection => {
                    if let Err(error) = result {
                        debug!(%error, "HTTP/2 client connection ended");
                    }
                }
                () = keepalive::lost(keep_alive, pings) => debug!("HTTP/2 server does not answer pings"),
            }
            of_task.closed.store(true, Relaxed);
        });
        Ok(Self { sender, state })
    }

    /// Whether new requests can no longer be sent.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.closed.load(Relaxed)
    }

    /// How many requests are under way.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.state.streams.load(Relaxed)
    }

    /// Whether one more request would stay within what the server takes at the same time, and within `limit`.
    #[must_use]
    pub fn has_room(&self, limit: usize) -> bool {
        self.streams() < limit.min(self.sender.current_max_send_streams())
    }

    /// Sends a request and waits for the response's head.
    ///
    /// # Errors
    /// With the request in it as long as nothing of it was sent.
    pub async fn send(self, request: Request) -> Result<Response, Failed> {
        let Self { mut sender, state } = self;
        let slot = Slot::take(&state);
        if let Err(error) = poll_fn(|cx| sender.poll_ready(cx)).await {
            state.closed.store(true, Relaxed);
            return Err(Failed::unsent(upstream_error(&error), request));
        }
        let (parts, body) = request.into_parts();
        let end = body.is_end_stream();
        let head = http::Request::from_parts(parts, ());
        let (response, stream) = sender.send_request(head, end).map_err(|error| {
            state.closed.store(true, Relaxed);
            Failed::new(upstream_error(&error).unsent())
        })?;
        if end {
            let response = response.await.map_err(|e| Failed::new(upstream_error(&e)))?;
            return Ok(response.map(|body| Body::http2(body, Side::Server, Some(slot))));
        }
        exchange(response, stream, body, slot).await
    }
}

/// Sends the body while it waits for the response; what is left to send then goes on in a task of its own.
async fn exchange(
    response: ResponseFuture,
    stream: SendStream<Bytes>,
    body: Body,
    slot: Slot,
) -> Result<Response, Failed> {
    let mut upload = Box::pin(upload(stream, body));
    let mut response = pin!(response);
    let mut uploading = true;
    let (response, failed) = poll_fn(|cx| {
        let mut failed = None;
        if uploading && let Poll::Ready(result) = upload.as_mut().poll(cx) {
            uploading = false;
            failed = result.err();
        }
        match response.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready((Some(response), failed)),
            Poll::Pending if failed.is_some() => Poll::Ready((None, failed)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    match response {
        None => Err(Failed::new(failed.unwrap_or_else(|| {
            Error::new(Cause::Internal, "no response and no reason")
        }))),
        Some(Err(error)) => Err(Failed::new(upstream_error(&error))),
        Some(Ok(response)) => Ok(response.map(|body| {
            let body = Body::http2(body, Side::Server, Some(slot));
            if !uploading {
                return body;
            }
            let task = tokio::spawn(async move {
                if let Err(error) = upload.await {
                    debug!(%error, "request body was not sent to its end");
                }
            });
            body.observe(Upload(task.abort_handle()))
        })),
    }
}

/// A stream that the server resets shows that in its response, so only the body's own failure is an error here.
async fn upload(mut stream: SendStream<Bytes>, body: Body) -> Result<(), Error> {
    match pump(body, &mut stream).await {
        Ok(()) | Err(Stopped::Peer(_)) => Ok(()),
        Err(Stopped::Body(error)) => {
            stream.send_reset(Reason::CANCEL);
            Err(error)
        }
    }
}

/// Ends the upload with the response: after it nobody reads the request any more (RFC 9113 §8.1).
struct Upload(AbortHandle);

impl Observe for Upload {}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
    }
}
