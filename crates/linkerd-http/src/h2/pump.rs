//! Sends a body on a stream, no faster than the peer takes it.

use crate::Body;
use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::Body as _;
use linkerd_stack::Error;
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// Why a body was not sent to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The stream's peer reset it, or its connection is gone.
    Peer(Option<Reason>),
    /// The body itself failed.
    Body(Error),
}

/// Sends all of `body`. At most one of its frames waits for the peer's window.
pub(super) async fn pump(mut body: Body, stream: &mut SendStream<Bytes>) -> Result<(), Stopped> {
    loop {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(reset) = stream.poll_reset(cx) {
                return Poll::Ready(Err(Stopped::Peer(reset.ok())));
            }
            Pin::new(&mut body).poll_frame(cx).map(Ok)
        })
        .await?;
        match frame {
            None => return send(stream, Bytes::new(), true),
            Some(Err(error)) => return Err(Stopped::Body(error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    if body.is_end_stream() {
                        // The last one may as well wait for its window there.
                        return send(stream, data, true);
                    }
                    send_within_window(stream, data).await?;
                }
                Err(frame) => return send_trailers(stream, frame.into_trailers().unwrap_or_default()),
            },
        }
    }
}

async fn send_within_window(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), Stopped> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let enough = data.len().min(WORTHWHILE);
        let mut capacity = stream.capacity();
        if capacity == 0 {
            capacity = poll_fn(|cx| poll_capacity(stream, cx)).await?;
        }
        if capacity < enough {
            capacity = gather_capacity(stream, capacity, enough).await?;
        }
        let chunk = data.split_to(capacity.min(data.len()));
        send(stream, chunk, false)?;
    }
    Ok(())
}

/// Waits a moment for more than a sliver of window: a peer that opens it byte by byte would have each byte sent in a
/// frame of its own. One that means well opens it by thousands, and what is left of its window goes with them.
async fn gather_capacity(
    stream: &mut SendStream<Bytes>,
    mut capacity: usize,
    enough: usize,
) -> Result<usize, Stopped> {
    let more = async {
        while capacity < enough {
            capacity = poll_fn(|cx| poll_capacity(stream, cx)).await?;
        }
        Ok(())
    };
    // Late is what the peer gets for its slivers.
    tokio::time::timeout(SLIVER_PAUSE, more).await.unwrap_or(Ok(()))?;
    Ok(capacity)
}

/// The least that is sent at once, unless the peer's window stays smaller.
const WORTHWHILE: usize = 256;
const SLIVER_PAUSE: Duration = Duration::from_millis(5);

fn poll_capacity(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<usize, Stopped>> {
    if let Poll::Ready(reset) = stream.poll_reset(cx) {
        return Poll::Ready(Err(Stopped::Peer(reset.ok())));
    }
    loop {
        return match stream.poll_capacity(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(0))) => continue,
            Poll::Ready(Some(Ok(n))) => Poll::Ready(Ok(n)),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(Stopped::Peer(error.reason()))),
            Poll::Ready(None) => Poll::Ready(Err(Stopped::Peer(None))),
        };
    }
}

fn send(stream: &mut SendStream<Bytes>, data: Bytes, end: bool) -> Result<(), Stopped> {
    stream.send_data(data, end).map_err(|e| Stopped::Peer(e.reason()))
}

pub(super) fn send_trailers(stream: &mut SendStream<Bytes>, trailers: HeaderMap) -> Result<(), Stopped> {
    stream
        .send_trailers(trailers)
        .map_err(|e| Stopped::Peer(e.reason()))
}
