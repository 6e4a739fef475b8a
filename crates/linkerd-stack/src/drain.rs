//! Tells everything that serves traffic to finish, and waits until it has.

use tokio::sync::watch;

/// The side that ends the traffic.
#[derive(Debug)]
pub struct Signal(watch::Sender<bool>);

/// Held by whatever must finish before the process may end; dropping it says "finished".
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<bool>);

#[must_use]
pub fn channel() -> (Signal, Watch) {
    let (tx, rx) = watch::channel(false);
    (Signal(tx), Watch(rx))
}

impl Signal {
    /// Starts the drain and waits until every [`Watch`] is dropped. The caller bounds the wait.
    pub async fn drain(self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

impl Watch {
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when the drain starts. A dropped [`Signal`] means that nobody will ever drain.
    pub async fn signaled(&mut self) {
        if self.0.wait_for(|draining| *draining).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_every_watch() {
        let (signal, mut watch) = channel();
        let other = watch.clone();
        let drained = tokio::spawn(signal.drain());
        watch.signaled().await;
        assert!(other.is_draining());
        drop(watch);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!drained.is_finished());
        drop(other);
        drained.await.unwrap();
    }
}
