//! Keeps what was sent of a request's body, so that another attempt can begin where the first one did.

use crate::Body;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use linkerd_stack::{Cause, Error};
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// A request's body that can be sent several times.
#[derive(Clone, Debug)]
pub struct Replay(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    source: Body,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// More was sent than may be kept, or the source broke: this attempt is the last one.
    lost: bool,
    limit: usize,
    /// Which attempt reads the source. An earlier one may still be there for a while; if it read on, it would take
    /// away chunks and wake-ups from the one that counts.
    attempt: u64,
}

/// One attempt's view of the body.
pub(crate) struct ReplayBody {
    shared: Arc<Mutex<State>>,
    attempt: u64,
    /// How many kept chunks this attempt has sent.
    sent: usize,
    sent_trailers: bool,
    /// This attempt has passed what is kept and reads the source.
    live: bool,
}

impl Replay {
    /// Keeps at most `limit` bytes.
    #[must_use]
    pub fn new(source: Body, limit: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            source,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            ended: false,
            lost: false,
            limit,
            attempt: 0,
        })))
    }

    /// The body from its beginning. Earlier ones end with an error.
    #[must_use]
    pub fn body(&self) -> Body {
        let mut state = self.0.lock();
        state.attempt += 1;
        Body::replay(ReplayBody {
            shared: self.0.clone(),
            attempt: state.attempt,
            sent: 0,
            sent_trailers: false,
            live: false,
        })
    }

    /// Whether another attempt can still send all of it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.0.lock().lost
    }
}

impl ReplayBody {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self {
            shared,
            attempt,
            sent,
            sent_trailers,
            live,
        } = self;
        let state = &mut *shared.lock();
        if state.attempt != *attempt {
            let error = Error::new(Cause::Internal, "the request is being sent again");
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(chunk) = state.kept.get(*sent) {
            *sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if state.ended {
            let trailers = state.trailers.clone().filter(|_| !*sent_trailers);
            *sent_trailers = true;
            return Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))));
        }
        if state.lost && !*live {
            let error = Error::new(Cause::Internal, "a request body was sent again that is not kept");
            return Poll::Ready(Some(Err(error)));
        }
        *live = true;
        let frame = ready!(Pin::new(&mut state.source).poll_frame(cx));
        match &frame {
            None => state.ended = true,
            Some(Err(_)) => state.lost = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    state.keep(data);
                    *sent = state.kept.len();
                } else {
                    state.trailers = frame.trailers_ref().cloned();
                    state.ended = true;
                    *sent_trailers = true;
                }
            }
        }
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let state = self.shared.lock();
        let sent_all = state.kept.len() <= self.sent;
        let ended = state.ended || state.source.is_end_stream();
        sent_all && ended && (state.trailers.is_none() || self.sent_trailers)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let state = self.shared.lock();
        let unsent: usize = state.kept.iter().skip(self.sent).map(Bytes::len).sum();
        match state.source.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(rest + unsent as u64),
            None => SizeHint::default(),
        }
    }
}

impl State {
    fn keep(&mut self, data: &Bytes) {
        if self.lost {
            return;
        }
        self.kept_bytes += data.len();
        if self.kept_bytes > self.limit {
            self.lost = true;
            self.kept = Vec::new();
            return;
        }
        self.kept.push(data.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn collected(body: Body) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_second_attempt_sends_the_same() {
        let replay = Replay::new(Body::full("hello"), 64);
        let mut first = replay.body();
        assert_eq!(
            first.frame().await.unwrap().unwrap().into_data().unwrap(),
            "hello"
        );
        drop(first);
        assert!(replay.is_whole());
        assert_eq!(collected(replay.body()).await, "hello");
        assert_eq!(collected(replay.body()).await, "hello");
    }

    #[tokio::test]
    async fn only_the_newest_attempt_reads_the_source() {
        let (sender, source) = Body::channel(1);
        let replay = Replay::new(source, 64);
        let mut first = replay.body();
        let mut first = tokio_test_poll(&mut first);
        assert!(first().is_none());
        let second = tokio::spawn(collected(replay.body()));
        tokio::task::yield_now().await;
        // The first attempt looks again, and must not become the one that is woken.
        assert!(first().unwrap().is_err());
        sender.data("late".into()).await.unwrap();
        drop(sender);
        assert_eq!(second.await.unwrap(), "late");
    }

    /// Polls once at each call.
    fn tokio_test_poll(body: &mut Body) -> impl FnMut() -> Option<Result<Frame<Bytes>, Error>> {
        || {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            match Pin::new(&mut *body).poll_frame(&mut cx) {
                Poll::Pending => None,
                Poll::Ready(frame) => frame,
            }
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_sent_once() {
        let replay = Replay::new(Body::full("hello"), 4);
        assert_eq!(collected(replay.body()).await, "hello");
        assert!(!replay.is_whole());
    }
}
