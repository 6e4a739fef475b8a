//! Asking the process to end.

use std::sync::Arc;
use tokio::sync::Notify;

/// Clones ask for and wait for the same thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown(Arc<Notify>);

impl Shutdown {
    pub(crate) fn start(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn requested(&self) {
        self.0.notified().await;
    }
}
