//! Bytes both ways, for what is not HTTP.

use std::io;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

/// How much passed a tunnel.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    pub to_server: u64,
    pub to_client: u64,
}

/// Copies both ways until both sides have ended; the end of one side is passed on as a half-close.
///
/// # Errors
/// The first error of either stream; both are then dropped.
pub async fn copy_duplex<C, S>(client: &mut C, server: &mut S) -> io::Result<Transferred>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (to_server, to_client) = copy_bidirectional_with_sizes(client, server, BUFFER, BUFFER).await?;
    Ok(Transferred { to_server, to_client })
}

const BUFFER: usize = 16 * 1024;
