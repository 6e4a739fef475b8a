//! One connection, shared by those who read and write it at the same time: the one that serves it, the body that is
//! read from it, and the upload that outlives a response's head.

use super::{
    Framing, buffers,
    decode::{Decoder, Event},
    incoming::{Incoming, Source},
    outgoing::Out,
    parse::{self, Asked, Cutter, Limits, Refused, RequestHead, ResponseHead, take},
    pool::Pool,
};
use crate::Body;
use bytes::BytesMut;
use linkerd_stack::{Cause, Error};
use parking_lot::Mutex;
use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::AbortHandle,
};

pub(super) struct Conn<I> {
    state: Mutex<State<I>>,
    side: Side<I>,
}

/// Which end of the connection this proxy is.
enum Side<I> {
    Server,
    /// With the pool that the connection goes back to.
    Client(Weak<Pool<I>>),
}

struct State<I> {
    io: I,
    /// What was read too early. Empty most of the time, and then without a buffer.
    unread: BytesMut,
    /// The peer sends no more.
    eof: bool,
    cutter: Cutter,
    decoder: Decoder,
    body: Reader,
    /// Who serves the connection, waiting for the body's end.
    waiting: Option<Waker>,
    /// How much of `100 Continue` is still to be sent.
    interim: &'static [u8],
    /// A client's request that has not left completely.
    uploading: Option<AbortHandle>,
    /// The upload is over, well or not.
    sent: bool,
    keep_alive: bool,
}

/// Who reads the body.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Reader {
    /// Nobody: it is read.
    Done,
    Attached,
    /// Nobody any more, though it is not read to its end.
    Gone,
}

/// How the reading of a body ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Read,
    Left,
}

/// What an upgraded connection is from then on.
pub(super) struct Stream<I>(pub(super) Arc<Conn<I>>);

impl<I: AsyncRead + AsyncWrite + Send + Unpin + 'static> Conn<I> {
    pub(super) fn server(io: I) -> Arc<Self> {
        Self::new(io, Side::Server)
    }

    pub(super) fn client(io: I, pool: Weak<Pool<I>>) -> Arc<Self> {
        Self::new(io, Side::Client(pool))
    }

    fn new(io: I, side: Side<I>) -> Arc<Self> {
        let state = Mutex::new(State {
            io,
            unread: BytesMut::new(),
            eof: false,
            cutter: Cutter::default(),
            decoder: Decoder::default(),
            body: Reader::Done,
            waiting: None,
            interim: b"",
            uploading: None,
            sent: true,
            keep_alive: true,
        });
        Arc::new(Self { state, side })
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, out: &mut Out) -> Poll<io::Result<()>> {
        out.poll_write(cx, &mut self.state.lock().io)
    }

    pub(super) fn poll_flush(&self, cx: &mut Context<'_>, out: &mut Out) -> Poll<io::Result<()>> {
        out.poll_flush(cx, &mut self.state.lock().io)
    }

    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.state.lock().io).poll_shutdown(cx)
    }

    /// Whether bytes wait that nobody has read.
    pub(super) fn has_unread(&self) -> bool {
        !self.state.lock().unread.is_empty()
    }

    /// The message's body, of which some may have come along with the head.
    fn body(self: &Arc<Self>, framing: Framing) -> Body {
        let mut state = self.state.lock();
        state.decoder = Decoder::new(framing);
        if let Some(left) = state.decoder.left() {
            let left = usize::try_from(left).unwrap_or(usize::MAX);
            if left <= state.unread.len() {
                state.decoder = Decoder::Ended;
                return Body::full(take(&mut state.unread, left));
            }
        }
        state.body = Reader::Attached;
        Body::http1(Incoming::new(self.clone(), state.decoder.left()))
    }

    /// Throws away what comes, until nothing comes any more.
    pub(super) fn poll_drained(&self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        let state = &mut *self.state.lock();
        loop {
            *left = left.saturating_sub(state.unread.len());
            state.unread = BytesMut::new();
            if *left == 0 || state.eof {
                return Poll::Ready(());
            }
            if !matches!(ready!(state.poll_fill(cx)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
    }
}

/// The server's end.
impl<I: AsyncRead + AsyncWrite + Send + Unpin + 'static> Conn<I> {
    /// The next request; nothing when the client has sent its last one.
    pub(super) fn poll_request(
        &self,
        cx: &mut Context<'_>,
        limits: Limits,
    ) -> Poll<Result<Option<Box<RequestHead>>, Fault>> {
        let state = &mut *self.state.lock();
        loop {
            if let Some(head) = state.cutter.cut(&mut state.unread, limits)? {
                return Poll::Ready(Ok(Some(Box::new(parse::request(&head, limits)?))));
            }
            if state.eof || ready!(state.poll_fill(cx))? == 0 {
                return Poll::Ready(if state.unread.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
                });
            }
        }
    }

    pub(super) fn request_body(self: &Arc<Self>, framing: Framing, expects_continue: bool) -> Body {
        let body = self.body(framing);
        let mut state = self.state.lock();
        if expects_continue && state.body == Reader::Attached && state.unread.is_empty() {
            state.interim = CONTINUE;
        }
        body
    }

    /// The response begins: the client is no longer told to go on, unless it has read half of that already.
    /// Returns whether the client may still wait for it.
    pub(super) fn end_interim(&self, out: &mut Out) -> bool {
        let mut state = self.state.lock();
        let interim = std::mem::take(&mut state.interim);
        if interim.len() == CONTINUE.len() {
            return true;
        }
        out.buf().extend_from_slice(interim);
        false
    }

    /// Resolves when the client will never send again: well (it may still read) or not.
    pub(super) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state.lock();
        if state.body == Reader::Attached {
            state.wait(cx);
            return Poll::Pending;
        }
        // A pipelined request is not read before its turn; as long as it waits the end cannot be seen either.
        if state.body == Reader::Gone || !state.unread.is_empty() {
            return Poll::Pending;
        }
        if state.eof || ready!(state.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Whether the request's body was given up before its end, and too much of it is still to come.
    pub(super) fn leaves_more_than(&self, short: usize) -> bool {
        let state = self.state.lock();
        let left = state.decoder.left().unwrap_or_default();
        state.body == Reader::Gone && left > short as u64
    }

    /// Resolves when nobody reads the request's body any more.
    pub(super) fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<Settled> {
        let mut state = self.state.lock();
        match state.body {
            Reader::Done => Poll::Ready(Settled::Read),
            Reader::Gone => Poll::Ready(Settled::Left),
            Reader::Attached => {
                state.wait(cx);
                Poll::Pending
            }
        }
    }

    /// Reads the rest of a body that nobody wants, when it is short. `true`: the next request follows.
    pub(super) fn poll_skip(&self, cx: &mut Context<'_>, left: &mut usize) -> Poll<bool> {
        loop {
            match ready!(self.poll_event(cx)) {
                Ok(Event::Data { data, last: false }) => {
                    *left = left.saturating_sub(data.len());
                    if *left == 0 {
                        return Poll::Ready(false);
                    }
                }
                Ok(Event::Data { last: true, .. } | Event::Trailers(_) | Event::End) => {
                    self.state.lock().body = Reader::Done;
                    return Poll::Ready(true);
                }
                Err(_) => return Poll::Ready(false),
            }
        }
    }
}

/// The client's end.
impl<I: AsyncRead + AsyncWrite + Send + Unpin + 'static> Conn<I> {
    /// Whether an idle connection is still what it was. Anything that its server sent unasked, the end included, makes
    /// it unfit: no request may be taken for the cause of it.
    pub(super) fn is_silent(&self) -> bool {
        let state = &mut *self.state.lock();
        let mut cx = Context::from_waker(Waker::noop());
        state.unread.is_empty() && !state.eof && state.poll_fill(&mut cx).is_pending()
    }

    /// A request begins.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        state.sent = false;
        state.keep_alive = false;
    }

    /// The next response's head, informational ones included.
    pub(super) fn poll_response(
        &self,
        cx: &mut Context<'_>,
        asked: Asked,
        limits: Limits,
    ) -> Poll<Result<ResponseHead, Fault>> {
        let state = &mut *self.state.lock();
        loop {
            if state.unread.starts_with(b"\r\n") {
                return Poll::Ready(Err(parse::EMPTY_LINE.into()));
            }
            if let Some(head) = state.cutter.cut(&mut state.unread, limits)? {
                return Poll::Ready(Ok(parse::response(&head, asked, limits)?));
            }
            if state.eof || ready!(state.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
            }
        }
    }

    /// The response's body. The connection goes back to its pool when this and the request are over.
    pub(super) fn response_body(self: Arc<Self>, framing: Framing, keep_alive: bool) -> Body {
        let body = self.body(framing);
        self.state.lock().keep_alive = keep_alive;
        self.reuse();
        body
    }

    /// The request goes on by itself; it ends when the response is given up.
    pub(super) fn uploads(&self, task: AbortHandle) {
        let mut state = self.state.lock();
        if state.body == Reader::Gone {
            task.abort();
        } else if !state.sent {
            state.uploading = Some(task);
        }
    }

    /// The request has left, completely or not.
    pub(super) fn request_sent(&self, complete: bool) {
        let mut state = self.state.lock();
        state.sent = true;
        state.uploading = None;
        state.keep_alive &= complete;
    }

    /// Gives the connection back when both messages are over.
    pub(super) fn reuse(self: Arc<Self>) {
        let Side::Client(pool) = &self.side else { return };
        let mut state = self.state.lock();
        let over = state.sent && state.keep_alive && state.body == Reader::Done;
        // More than the response is no part of it.
        let idle = over && state.unread.is_empty() && !state.eof;
        // Once only, whoever comes second.
        state.keep_alive &= !idle;
        drop(state);
        if idle && let Some(pool) = pool.upgrade() {
            pool.put(self);
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Send + Unpin + 'static> Source for Conn<I> {
    fn poll_event(&self, cx: &mut Context<'_>) -> Poll<Result<Event, Error>> {
        let state = &mut *self.state.lock();
        loop {
            match state.decoder.decode(&mut state.unread) {
                Ok(Some(event)) => return Poll::Ready(Ok(event)),
                Ok(None) => {}
                Err(refused) => return Poll::Ready(Err(self.side.blame(&refused.into()))),
            }
            if let Err(error) = ready!(state.poll_interim(cx)) {
                return Poll::Ready(Err(self.side.blame(&error.into())));
            }
            match ready!(state.poll_fill(cx)) {
                Ok(0) if state.decoder.close() => return Poll::Ready(Ok(Event::End)),
                Ok(0) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(self.side.blame(&error.into())));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.side.blame(&error.into()))),
            }
        }
    }

    fn read(self: Arc<Self>) {
        let waiting = self.end_body(Reader::Done);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        self.reuse();
    }

    fn leave(&self) {
        let waiting = self.end_body(Reader::Gone);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl<I> Conn<I> {
    fn end_body(&self, how: Reader) -> Option<Waker> {
        let mut state = self.state.lock();
        state.body = how;
        if how == Reader::Gone
            && let Some(task) = state.uploading.take()
        {
            task.abort();
        }
        state.waiting.take()
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> State<I> {
    /// Reads what there is, at most a worker's buffer full.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { io, unread, .. } = self;
        let read = buffers::with_read(|buf| {
            let mut buf = ReadBuf::new(buf);
            ready!(Pin::new(io).poll_read(cx, &mut buf))?;
            unread.extend_from_slice(buf.filled());
            Poll::Ready(Ok::<_, io::Error>(buf.filled().len()))
        });
        let read = ready!(read)?;
        self.eof |= read == 0;
        Poll::Ready(Ok(read))
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            self.waiting = Some(cx.waker().clone());
        }
    }

    /// Tells a client to send the body that is wanted now.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, self.interim))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.interim = self.interim.get(written..).unwrap_or_default();
            if self.interim.is_empty() {
                return Pin::new(&mut self.io).poll_flush(cx);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What went wrong with what the peer sends.
#[derive(Debug)]
pub(super) enum Fault {
    Refused(Refused),
    Io(io::Error),
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Fault {
    /// As the server's end names it.
    pub(super) fn of_client(&self) -> Error {
        match self {
            Self::Refused(refused) => refused.of_request(),
            Self::Io(error) => Error::new(Cause::DownstreamClosed, describe(error)),
        }
    }

    /// As the client's end names it.
    pub(super) fn of_server(&self) -> Error {
        match self {
            Self::Refused(refused) => refused.of_response(),
            Self::Io(error) => Error::new(Cause::UpstreamClosed, describe(error)),
        }
    }
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "connection closed before message completed".to_owned(),
        _ => error.to_string(),
    }
}

impl<I> Side<I> {
    fn blame(&self, fault: &Fault) -> Error {
        match self {
            Self::Server => fault.of_client(),
            Self::Client(_) => fault.of_server(),
        }
    }
}

impl<I> fmt::Debug for Conn<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").finish_non_exhaustive()
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.0.state.lock();
        if state.unread.is_empty() {
            return Pin::new(&mut state.io).poll_read(cx, buf);
        }
        let len = state.unread.len().min(buf.remaining());
        buf.put_slice(&take(&mut state.unread, len));
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.state.lock().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.state.lock().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.state.lock().io).poll_shutdown(cx)
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
