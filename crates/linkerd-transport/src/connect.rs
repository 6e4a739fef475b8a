//! Opening connections.

use crate::listen::{Keepalive, set_options};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time};

#[derive(Clone, Copy, Debug)]
pub struct ConnectParams {
    pub timeout: Duration,
    pub keepalive: Option<Keepalive>,
    /// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("connect timed out after {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// # Errors
/// When the peer does not answer in time or refuses.
pub async fn connect(addr: SocketAddr, params: &ConnectParams) -> Result<TcpStream, ConnectError> {
    let io = time::timeout(params.timeout, TcpStream::connect(addr))
        .await
        .map_err(|_| ConnectError::Timeout(params.timeout))??;
    set_options(&io, params.keepalive, params.user_timeout)?;
    Ok(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_connection_is_an_io_error() {
        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let params = ConnectParams {
            timeout: Duration::from_secs(1),
            keepalive: None,
            user_timeout: None,
        };
        let error = connect(closed, &params).await.unwrap_err();
        assert!(matches!(error, ConnectError::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused));
    }
}
