//! Pings that find out whether the peer is still there.

use h2::{Ping, PingPong};
use std::time::Duration;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    pub interval: Duration,
    pub timeout: Duration,
}

/// Resolves when the peer no longer answers pings; never without keep-alive.
pub(super) async fn lost(keep_alive: Option<KeepAlive>, pings: Option<PingPong>) {
    let (Some(keep_alive), Some(mut pings)) = (keep_alive, pings) else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(keep_alive.interval).await;
        match tokio::time::timeout(keep_alive.timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
