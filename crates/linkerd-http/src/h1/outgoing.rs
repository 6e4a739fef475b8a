//! Sends a head and a body, no faster than the peer takes them.

use super::{Framing, buffers, conn::Conn, encode};
use crate::Body;
use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use linkerd_stack::{Cause, Error};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// Why a message was not sent to its end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The connection broke.
    Peer(io::Error),
    /// The body itself failed.
    Body(Error),
}

/// A message on its way out.
pub(super) struct Sending {
    out: Out,
    body: Body,
    framing: Left,
    ended: bool,
    /// The body waits for the server's word.
    held: bool,
    /// What was taken of the body before anything was sent is kept.
    returnable: bool,
    first: Option<Frame<Bytes>>,
    failed: Option<Error>,
}

/// What is left to send of a body, as its framing counts it.
enum Left {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Sending {
    /// `out` begins with the message's head.
    pub(super) fn new(out: Out, body: Body, framing: Framing) -> Self {
        let (left, ended) = match framing {
            Framing::None => (Left::Length(0), true),
            Framing::Length(length) => (Left::Length(length), false),
            Framing::Chunked => (Left::Chunked, false),
            Framing::UntilClose => (Left::UntilClose, false),
        };
        Self {
            out,
            body,
            framing: left,
            ended,
            held: false,
            returnable: false,
            first: None,
            failed: None,
        }
    }

    /// Keeps the body whole until something has left.
    pub(super) const fn keep(&mut self) {
        self.returnable = true;
    }

    /// Sends only the head until [`Sending::release`].
    pub(super) const fn hold(&mut self) {
        self.held = !self.ended;
    }

    pub(super) const fn release(&mut self) {
        self.held = false;
    }

    pub(super) const fn is_held(&self) -> bool {
        self.held
    }

    /// How many bytes have left.
    pub(super) const fn sent(&self) -> u64 {
        self.out.sent
    }

    /// The body as it was, when nothing has left.
    pub(super) fn into_unsent(self) -> Body {
        match self.first {
            Some(frame) => Body::pushed_back(frame, self.body),
            None => self.body,
        }
    }

    /// Resolves when all of it has left.
    pub(super) fn poll<I>(&mut self, cx: &mut Context<'_>, conn: &Conn<I>) -> Poll<Result<(), Stopped>>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        loop {
            if !self.held {
                self.fill(cx);
            }
            if self.out.is_empty() {
                if let Some(error) = self.failed.take() {
                    return Poll::Ready(Err(Stopped::Body(error)));
                }
                ready!(conn.poll_flush(cx, &mut self.out)).map_err(Stopped::Peer)?;
                return if self.ended {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            ready!(conn.poll_write(cx, &mut self.out)).map_err(Stopped::Peer)?;
            self.first = None;
        }
    }

    /// Takes of the body what there is and what there is room for.
    fn fill(&mut self, cx: &mut Context<'_>) {
        while !self.ended && self.failed.is_none() && self.first.is_none() && self.out.has_room() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return,
                Poll::Ready(None) => self.end(None),
                Poll::Ready(Some(Err(error))) => self.failed = Some(error),
                Poll::Ready(Some(Ok(frame))) => self.take(frame),
            }
        }
    }

    fn take(&mut self, frame: Frame<Bytes>) {
        if self.returnable && self.out.sent == 0 {
            self.first = copy_of(&frame);
        }
        match frame.into_data() {
            Ok(data) => {
                self.push(data);
                if self.body.is_end_stream() {
                    self.end(None);
                }
            }
            Err(frame) => self.end(frame.into_trailers().ok().as_ref()),
        }
    }

    fn push(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        match &mut self.framing {
            Left::Length(left) => match left.checked_sub(data.len() as u64) {
                Some(rest) => {
                    *left = rest;
                    self.out.push(data, b"");
                }
                None => self.fail("a body is longer than its content-length"),
            },
            Left::Chunked => {
                encode::chunk_size(self.out.buf(), data.len());
                self.out.push(data, b"\r\n");
            }
            Left::UntilClose => self.out.push(data, b""),
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.ended = true;
        match (&self.framing, trailers) {
            (Left::Length(0) | Left::UntilClose, _) => {}
            (Left::Length(_), _) => self.fail("a body is shorter than its content-length"),
            (Left::Chunked, None) => self.out.push_last_chunk(),
            (Left::Chunked, Some(trailers)) => encode::last_chunk(self.out.buf(), trailers),
        }
    }

    fn fail(&mut self, why: &'static str) {
        if self.failed.is_none() {
            self.failed = Some(Error::new(Cause::Internal, why));
        }
    }
}

fn copy_of(frame: &Frame<Bytes>) -> Option<Frame<Bytes>> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Some(Frame::data(data.clone())),
        (None, Some(trailers)) => Some(Frame::trailers(trailers.clone())),
        (None, None) => None,
    }
}

/// Bytes that wait to be written: some of our own making, then perhaps a piece of body that is not worth copying.
#[derive(Debug)]
pub(super) struct Out {
    buf: Vec<u8>,
    written: usize,
    data: Bytes,
    tail: &'static [u8],
    unflushed: bool,
    sent: u64,
}

impl Out {
    pub(super) fn new() -> Self {
        Self {
            buf: buffers::take_write(),
            written: 0,
            data: Bytes::new(),
            tail: b"",
            unflushed: false,
            sent: 0,
        }
    }

    /// Where heads and sizes are written.
    pub(super) fn buf(&mut self) -> &mut Vec<u8> {
        if self.buf.capacity() == 0 {
            self.buf = buffers::take_write();
        }
        &mut self.buf
    }

    fn is_empty(&self) -> bool {
        self.buf.is_empty() && self.data.is_empty() && self.tail.is_empty()
    }

    fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty() && self.buf.len() < MAX_BUFFERED
    }

    fn push(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= MAX_COPIED {
            let buf = self.buf();
            buf.extend_from_slice(&data);
            buf.extend_from_slice(tail);
        } else {
            self.data = data;
            self.tail = tail;
        }
    }

    fn push_last_chunk(&mut self) {
        if self.data.is_empty() {
            self.buf().extend_from_slice(b"0\r\n\r\n");
        } else {
            self.tail = b"\r\n0\r\n\r\n";
        }
    }

    /// Writes all of it, in one call where the stream can.
    pub(super) fn poll_write<I: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = ready!(self.poll_write_some(cx, io))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.sent += written as u64;
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_some<I: AsyncWrite + Unpin>(
        &self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(io);
        let buf = self.buf.get(self.written..).unwrap_or_default();
        if self.data.is_empty() && self.tail.is_empty() {
            return io.poll_write(cx, buf);
        }
        if io.is_write_vectored() {
            let slices = [
                IoSlice::new(buf),
                IoSlice::new(&self.data),
                IoSlice::new(self.tail),
            ];
            return io.poll_write_vectored(cx, &slices);
        }
        let first = [buf, &self.data, self.tail].into_iter().find(|s| !s.is_empty());
        io.poll_write(cx, first.unwrap_or_default())
    }

    fn advance(&mut self, written: usize) {
        let of_buf = written.min(self.buf.len() - self.written);
        self.written += of_buf;
        if self.written == self.buf.len() {
            self.written = 0;
            buffers::give_write(std::mem::take(&mut self.buf));
        }
        let written = written - of_buf;
        let of_data = written.min(self.data.len());
        self.data.advance(of_data);
        if self.data.is_empty() {
            self.data = Bytes::new();
        }
        let of_tail = (written - of_data).min(self.tail.len());
        self.tail = self.tail.get(of_tail..).unwrap_or_default();
    }

    pub(super) fn poll_flush<I: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut I,
    ) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        buffers::give_write(std::mem::take(&mut self.buf));
    }
}

/// How much may be gathered for one write.
const MAX_BUFFERED: usize = 16 * 1024;
/// Copying so much costs less than a slice of its own.
const MAX_COPIED: usize = 4 * 1024;
