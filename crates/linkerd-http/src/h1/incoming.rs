//! A body that is read from its connection when it is wanted, so that nothing waits in memory.

use super::decode::Event;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use linkerd_stack::Error;
use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// A connection as its body knows it.
pub(super) trait Source: Send + Sync {
    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Result<Event, Error>>;

    /// The body was read to its end.
    fn read(self: Arc<Self>);

    /// The body is given up before its end.
    fn leave(&self);
}

/// A body's reader.
pub(crate) struct Incoming {
    /// Until the end.
    source: Option<Arc<dyn Source>>,
    left: Option<u64>,
}

impl Incoming {
    pub(super) fn new(source: Arc<dyn Source>, left: Option<u64>) -> Self {
        Self {
            source: Some(source),
            left,
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(source) = &self.source else {
            return Poll::Ready(None);
        };
        let event = ready!(source.poll_event(cx));
        Poll::Ready(match event {
            Ok(Event::Data { data, last }) => {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                if last {
                    self.finish();
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Event::Trailers(trailers)) => {
                self.finish();
                Some(Ok(Frame::trailers(trailers)))
            }
            Ok(Event::End) => {
                self.finish();
                None
            }
            Err(error) => {
                self.leave();
                Some(Err(error))
            }
        })
    }

    pub(crate) const fn is_end_stream(&self) -> bool {
        self.source.is_none()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.source.is_none() => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }

    fn finish(&mut self) {
        if let Some(source) = self.source.take() {
            source.read();
        }
    }

    fn leave(&mut self) {
        if let Some(source) = self.source.take() {
            source.leave();
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}
