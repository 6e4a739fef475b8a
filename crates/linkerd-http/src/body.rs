//! The one body type of requests and responses.

use crate::{h1, h2::Slot, replay::ReplayBody};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use linkerd_stack::{Cause, Error};
use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::sync::mpsc;

/// A stream of data with trailers, from one of the servers or clients.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    observers: Observers,
}

/// Two have room, as many as a usual request has; further ones share the place of the second.
#[derive(Default)]
struct Observers {
    first: Option<Box<dyn Observe>>,
    second: Option<Box<dyn Observe>>,
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Http1(h1::Incoming),
    Http2(Http2),
    Replay(ReplayBody),
    Channel(mpsc::Receiver<Frame<Bytes>>),
    Wrapped(Box<dyn Wrapped>),
    /// A frame that was taken and put back.
    PushedBack(Option<Frame<Bytes>>, Box<Body>),
}

/// Another body with something done to it.
trait Wrapped: http_body::Body<Data = Bytes, Error = Error> + Send + Unpin {}

impl<B: http_body::Body<Data = Bytes, Error = Error> + Send + Unpin> Wrapped for B {}

/// Writes a body made by [`Body::channel`]. Dropping it ends the body.
#[derive(Debug)]
pub struct BodySender(mpsc::Sender<Frame<Bytes>>);

/// The body's reader has gone.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ReaderGone;

impl BodySender {
    /// Waits until there is room for the data.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub async fn data(&self, data: Bytes) -> Result<(), ReaderGone> {
        self.0.send(Frame::data(data)).await.map_err(|_| ReaderGone)
    }

    /// Ends the body with trailers.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub async fn trailers(self, trailers: HeaderMap) -> Result<(), ReaderGone> {
        self.0
            .send(Frame::trailers(trailers))
            .await
            .map_err(|_| ReaderGone)
    }

    /// Resolves when nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// Whose data a body carries, so that a broken one is blamed on the right peer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// A request's body.
    Client,
    /// A response's body.
    Server,
}

struct Http2 {
    stream: h2::RecvStream,
    data_ended: bool,
    side: Side,
    /// Of a response: the place that it takes on its connection.
    _slot: Option<Slot>,
}

/// Follows a body to its end.
pub trait Observe: Send {
    fn data(&mut self, _bytes: usize) {}

    /// Called exactly once, before the last frame is handed on.
    fn end(&mut self, _end: End<'_>) {}
}

/// How a body ended.
#[derive(Copy, Clone, Debug)]
pub enum End<'a> {
    Complete(Option<&'a HeaderMap>),
    Failed(&'a Error),
    /// Its reader went away.
    Dropped,
}

impl Body {
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn full(data: impl Into<Bytes>) -> Self {
        let data = data.into();
        let kind = if data.is_empty() {
            Kind::Empty
        } else {
            Kind::Full(data)
        };
        kind.into()
    }

    pub(crate) fn http1(body: h1::Incoming) -> Self {
        Kind::Http1(body).into()
    }

    /// A body that was begun and is to be read from its beginning.
    pub(crate) fn pushed_back(first: Frame<Bytes>, rest: Self) -> Self {
        Kind::PushedBack(Some(first), Box::new(rest)).into()
    }

    pub(crate) fn http2(stream: h2::RecvStream, side: Side, slot: Option<Slot>) -> Self {
        if stream.is_end_stream() {
            return Self::empty();
        }
        Kind::Http2(Http2 {
            stream,
            data_ended: false,
            side,
            _slot: slot,
        })
        .into()
    }

    /// A body that is written while it is read; `frames` of it may wait.
    #[must_use]
    pub fn channel(frames: usize) -> (BodySender, Self) {
        let (sender, receiver) = mpsc::channel(frames);
        (BodySender(sender), Kind::Channel(receiver).into())
    }

    /// Any other body, at the cost of an indirection.
    #[must_use]
    pub fn wrapped(body: impl http_body::Body<Data = Bytes, Error = Error> + Send + Unpin + 'static) -> Self {
        Kind::Wrapped(Box::new(body)).into()
    }

    pub(crate) fn replay(body: ReplayBody) -> Self {
        Kind::Replay(body).into()
    }

    /// Adds an observer; earlier ones hear of each event first.
    #[must_use]
    pub fn observe(mut self, observer: impl Observe + 'static) -> Self {
        self.observers.add(Box::new(observer));
        if http_body::Body::is_end_stream(&self.kind) {
            self.finish(End::Complete(None));
        }
        self
    }

    fn is_followed(&self) -> bool {
        self.observers.first.is_some()
    }

    fn finish(&mut self, end: End<'_>) {
        self.observers.end(end);
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            observers: Observers::default(),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.kind).poll_frame(cx));
        if this.is_followed() {
            match &frame {
                None => this.finish(End::Complete(None)),
                Some(Err(error)) => this.finish(End::Failed(error)),
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        this.finish(End::Complete(Some(trailers)));
                    } else if let Some(data) = frame.data_ref() {
                        this.observers.data(data.len());
                        if http_body::Body::is_end_stream(&this.kind) {
                            this.finish(End::Complete(None));
                        }
                    }
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.kind)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.kind)
    }
}

impl http_body::Body for Kind {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(data) => {
                let data = std::mem::take(data);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Self::Http1(body) => body.poll_frame(cx),
            Self::Http2(body) => body.poll_frame(cx),
            Self::Replay(body) => body.poll_frame(cx),
            Self::Channel(frames) => frames.poll_recv(cx).map(|frame| frame.map(Ok)),
            Self::Wrapped(body) => Pin::new(body).poll_frame(cx),
            Self::PushedBack(first, rest) => match first.take() {
                Some(first) => Poll::Ready(Some(Ok(first))),
                None => Pin::new(rest).poll_frame(cx),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.stream.is_end_stream(),
            Self::Replay(body) => body.is_end_stream(),
            Self::Channel(_) => false,
            Self::Wrapped(body) => body.is_end_stream(),
            Self::PushedBack(first, rest) => first.is_none() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(data) => SizeHint::with_exact(data.len() as u64),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(_) | Self::Channel(_) => SizeHint::default(),
            Self::Replay(body) => body.size_hint(),
            Self::Wrapped(body) => body.size_hint(),
            Self::PushedBack(first, rest) => {
                let data = first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
                match rest.size_hint().exact() {
                    Some(exact) => SizeHint::with_exact(exact + data as u64),
                    None => SizeHint::default(),
                }
            }
        }
    }
}

impl Http2 {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // The reader takes one frame at a time, so what is released here is what it is about to send on.
                    let released = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(
                        released
                            .map(|()| Frame::data(data))
                            .map_err(|e| self.side.blame_h2(&e)),
                    ));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.side.blame_h2(&error)))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|t| Ok(Frame::trailers(t))),
            Err(error) => Some(Err(self.side.blame_h2(&error))),
        })
    }
}

impl Side {
    fn blame_h2(self, error: &h2::Error) -> Error {
        match self {
            Self::Server => crate::h2::upstream_error(error),
            Self::Client => {
                crate::h2::with_reason(Error::new(Cause::DownstreamClosed, error.to_string()), error)
            }
        }
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.is_followed() {
            let end = if http_body::Body::is_end_stream(&self.kind) {
                End::Complete(None)
            } else {
                End::Dropped
            };
            self.finish(end);
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Empty => "Empty",
            Kind::Full(_) => "Full",
            Kind::Http1(..) => "Http1",
            Kind::Http2(_) => "Http2",
            Kind::Replay(_) => "Replay",
            Kind::Channel(_) => "Channel",
            Kind::Wrapped(_) => "Wrapped",
            Kind::PushedBack(..) => "PushedBack",
        };
        f.debug_tuple("Body").field(&kind).finish()
    }
}

impl Observers {
    fn add(&mut self, observer: Box<dyn Observe>) {
        if self.first.is_none() {
            self.first = Some(observer);
            return;
        }
        self.second = Some(match self.second.take() {
            None => observer,
            Some(second) => Box::new(Both(second, observer)),
        });
    }

    fn data(&mut self, bytes: usize) {
        for observer in [&mut self.first, &mut self.second].into_iter().flatten() {
            observer.data(bytes);
        }
    }

    fn end(&mut self, end: End<'_>) {
        for observer in [&mut self.first, &mut self.second] {
            if let Some(mut observer) = observer.take() {
                observer.end(end);
            }
        }
    }
}

struct Both(Box<dyn Observe>, Box<dyn Observe>);

impl Observe for Both {
    fn data(&mut self, bytes: usize) {
        self.0.data(bytes);
        self.1.data(bytes);
    }

    fn end(&mut self, end: End<'_>) {
        self.0.end(end);
        self.1.end(end);
    }
}
