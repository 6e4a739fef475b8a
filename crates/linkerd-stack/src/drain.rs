//! Tells everything that serves traffic to finish, waits until it has, and in the end no longer.

use tokio::sync::watch;

/// The side that ends the traffic.
#[derive(Debug)]
pub struct Signal(watch::Sender<Phase>);

/// Held by whatever must finish before the process may end; dropping it says "finished".
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<Phase>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// What is under way may finish.
    Draining,
    /// Nothing may go on: the grace period is over.
    Over,
}

#[must_use]
pub fn channel() -> (Signal, Watch) {
    let (tx, rx) = watch::channel(Phase::Serving);
    (Signal(tx), Watch(rx))
}

impl Signal {
    /// Starts the drain and waits until every [`Watch`] is dropped. The caller bounds the wait.
    pub async fn drain(&self) {
        self.reach(Phase::Draining).await;
    }

    /// Ends what has not finished, and waits until it has. The caller bounds this wait as well.
    pub async fn end(&self) {
        self.reach(Phase::Over).await;
    }

    async fn reach(&self, phase: Phase) {
        self.0.send_replace(phase);
        self.0.closed().await;
    }
}

impl Watch {
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    /// Resolves when the drain starts. A dropped [`Signal`] means that nobody will ever drain.
    pub async fn signaled(&mut self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves when the grace period is over.
    pub async fn over(&mut self) {
        self.reached(Phase::Over).await;
    }

    async fn reached(&mut self, phase: Phase) {
        if self.0.wait_for(|current| *current >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time;

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_every_watch() {
        let (signal, mut watch) = channel();
        let other = watch.clone();
        let drained = tokio::spawn(async move { signal.drain().await });
        watch.signaled().await;
        assert!(other.is_draining());
        drop(watch);
        time::sleep(Duration::from_secs(1)).await;
        assert!(!drained.is_finished());
        drop(other);
        drained.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_after_the_drain() {
        let (signal, mut watch) = channel();
        assert!(
            time::timeout(Duration::from_secs(1), signal.drain())
                .await
                .is_err()
        );
        assert!(time::timeout(Duration::from_secs(1), watch.over()).await.is_err());
        let ended = tokio::spawn(async move { signal.end().await });
        watch.over().await;
        drop(watch);
        ended.await.unwrap();
    }
}
