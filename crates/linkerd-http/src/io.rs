//! Streams whose bytes are counted.

use bytes::Bytes;
use linkerd_metrics::TcpOpen;
use linkerd_transport::PrefixedIo;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that counts what passes it, from its opening to its end.
#[derive(Debug)]
pub struct Counted<I> {
    io: I,
    open: TcpOpen,
}

impl<I> Counted<I> {
    #[must_use]
    pub const fn new(io: I, open: TcpOpen) -> Self {
        Self { io, open }
    }
}

impl<I> Counted<PrefixedIo<I>> {
    /// Puts back bytes that were read and counted; whatever was put back before must be among them.
    #[must_use]
    pub fn with_prefix(self, prefix: Bytes) -> Self {
        let (unread, io) = self.io.into_parts();
        let prefix = if unread.is_empty() {
            prefix
        } else {
            [prefix, unread].concat().into()
        };
        Self {
            io: PrefixedIo::new(prefix, io),
            open: self.open,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Counted<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut this.io).poll_read(cx, buf));
        match &result {
            Ok(()) => this.open.read((buf.filled().len() - before) as u64),
            Err(error) => this.open.failed(error),
        }
        Poll::Ready(result)
    }
}

impl<I: AsyncWrite + Unpin> Counted<I> {
    fn wrote(&mut self, result: io::Result<usize>) -> Poll<io::Result<usize>> {
        match &result {
            Ok(n) => self.open.wrote(*n as u64),
            Err(error) => self.open.failed(error),
        }
        Poll::Ready(result)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Counted<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = ready!(Pin::new(&mut this.io).poll_write(cx, buf));
        this.wrote(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs));
        this.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
