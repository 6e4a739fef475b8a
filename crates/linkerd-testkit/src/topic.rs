//! One scripted stream for each key.

use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

/// What is said on the streams of one method. Clones share it.
#[derive(Debug)]
pub struct Topic<M>(Arc<Mutex<Inner<M>>>, watch::Sender<usize>);

#[derive(Debug)]
struct Inner<M> {
    keys: HashMap<String, Key<M>>,
    /// What unknown keys get: silence, or a refusal.
    otherwise: Option<Status>,
}

#[derive(Debug)]
struct Key<M> {
    /// What each new stream begins with.
    opening: Vec<Result<M, Status>>,
    streams: Vec<mpsc::UnboundedSender<Result<M, Status>>>,
    opened: usize,
}

impl<M> Clone for Topic<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), self.1.clone())
    }
}

impl<M> Default for Topic<M> {
    fn default() -> Self {
        let inner = Inner {
            keys: HashMap::new(),
            otherwise: None,
        };
        Self(Arc::new(Mutex::new(inner)), watch::Sender::new(0))
    }
}

impl<M> Default for Key<M> {
    fn default() -> Self {
        Self {
            opening: Vec::new(),
            streams: Vec::new(),
            opened: 0,
        }
    }
}

impl<M: Clone + Send + 'static> Topic<M> {
    /// Tells `message` to all streams of `key`, and to new ones instead of what they began with before.
    pub fn set(&self, key: impl Into<String>, message: M) {
        self.begin_with(key, vec![Ok(message)]);
    }

    /// Ends the streams of `key` with `status`, and new ones too.
    pub fn refuse(&self, key: impl Into<String>, status: Status) {
        self.begin_with(key, vec![Err(status)]);
    }

    /// What is said on keys that nothing was set for: nothing (`None`) or `status`.
    pub fn otherwise(&self, status: Option<Status>) {
        self.0.lock().otherwise = status;
    }

    fn begin_with(&self, key: impl Into<String>, opening: Vec<Result<M, Status>>) {
        let mut inner = self.0.lock();
        let key = inner.keys.entry(key.into()).or_default();
        for message in &opening {
            key.streams.retain(|stream| stream.send(message.clone()).is_ok());
        }
        key.opening = opening;
    }

    /// Tells `message` to the streams that are open now.
    #[expect(clippy::needless_pass_by_value, reason = "as `set`, whose twin it is")]
    pub fn send(&self, key: &str, message: M) {
        let mut inner = self.0.lock();
        if let Some(key) = inner.keys.get_mut(key) {
            key.streams
                .retain(|stream| stream.send(Ok(message.clone())).is_ok());
        }
    }

    /// Ends the streams of `key`; what new ones begin with stays.
    pub fn close(&self, key: &str) {
        if let Some(key) = self.0.lock().keys.get_mut(key) {
            key.streams.clear();
        }
    }

    /// New streams of `key` stay silent.
    pub fn hush(&self, key: &str) {
        if let Some(key) = self.0.lock().keys.get_mut(key) {
            key.opening.clear();
        }
    }

    /// How many streams of `key` have been opened so far.
    #[must_use]
    pub fn opened(&self, key: &str) -> usize {
        self.0.lock().keys.get(key).map_or(0, |key| key.opened)
    }

    /// Waits until `count` streams of `key` have been opened.
    pub async fn wait_opened(&self, key: &str, count: usize) {
        let mut changes = self.1.subscribe();
        while self.opened(key) < count {
            changes.changed().await.expect("the topic lives");
        }
    }

    pub(crate) fn open(&self, key: String) -> UnboundedReceiverStream<Result<M, Status>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut inner = self.0.lock();
        let otherwise = inner.otherwise.clone();
        let known = inner.keys.contains_key(&key);
        let key = inner.keys.entry(key).or_default();
        for message in &key.opening {
            let _ = sender.send(message.clone());
        }
        if let Some(status) = otherwise.filter(|_| !known || key.opening.is_empty()) {
            let _ = sender.send(Err(status));
        }
        key.opened += 1;
        key.streams.push(sender);
        drop(inner);
        self.1.send_modify(|opened| *opened += 1);
        UnboundedReceiverStream::new(receiver)
    }
}
