//! The way of a connection from the client's end, where a server has granted an upgrade, to the server's end, where
//! it becomes a tunnel.

use parking_lot::Mutex;
use std::{fmt, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};

/// Whether the response has turned its connections into a tunnel. What is put into its extensions is then kept for as
/// long as the tunnel lasts.
#[must_use]
pub fn is_tunnel(extensions: &http::Extensions) -> bool {
    extensions.get::<Switched>().is_some()
}

/// Marks such a response.
#[derive(Copy, Clone, Debug)]
pub(super) struct Switched;

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<I: AsyncRead + AsyncWrite + Send + Unpin> Duplex for I {}

/// Goes with a request that asks for an upgrade, and takes the connection of the server that grants it.
#[derive(Clone, Default)]
pub(super) struct Upgrade(Arc<Mutex<Option<Box<dyn Duplex>>>>);

impl Upgrade {
    pub(super) fn grant(&self, io: impl Duplex + 'static) {
        *self.0.lock() = Some(Box::new(io));
    }

    pub(super) fn take(&self) -> Option<Box<dyn Duplex>> {
        self.0.lock().take()
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").finish_non_exhaustive()
    }
}
