//! One watch for each key, shared by all who ask, kept for a while after the last one left.

use parking_lot::Mutex;
use std::{collections::HashMap, fmt, future::Future, hash::Hash, sync::Arc, time::Duration};
use tokio::{runtime::Handle, sync::watch, time};

/// Clones share the entries.
pub(crate) struct Cache<K, V> {
    entries: Arc<Mutex<HashMap<K, watch::Sender<V>>>>,
    idle: Duration,
    runtime: Handle,
}

impl<K, V> Cache<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(idle: Duration, runtime: Handle) -> Self {
        Self {
            entries: Arc::default(),
            idle,
            runtime,
        }
    }

    /// The watch of `key`. When there is none, it begins with `initial` and `feed` is what sends to it.
    ///
    /// `feed` may end: the last value then stays until nobody uses it.
    pub(crate) fn get<F>(
        &self,
        key: K,
        initial: impl FnOnce() -> V,
        feed: impl FnOnce(watch::Sender<V>) -> F,
    ) -> watch::Receiver<V>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(&key) {
            return entry.subscribe();
        }
        let (sender, receiver) = watch::channel(initial());
        entries.insert(key.clone(), sender.clone());
        drop(entries);
        let feed = feed(sender.clone());
        let this = self.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                () = this.unused(key, sender) => {}
                () = async { feed.await; std::future::pending().await } => {}
            }
        });
        receiver
    }

    /// Resolves once the entry has had no receiver for the idle time, and is gone from the map. Lookups take the same
    /// lock, so that none can get a receiver of an entry that is being removed.
    async fn unused(&self, key: K, sender: watch::Sender<V>) {
        loop {
            sender.closed().await;
            time::sleep(self.idle).await;
            let mut entries = self.entries.lock();
            if sender.receiver_count() == 0 {
                entries.remove(&key);
                return;
            }
        }
    }

    /// What is known now, for people to look at.
    pub(crate) fn snapshot<T>(&self, mut show: impl FnMut(&K, &V) -> T) -> Vec<T> {
        self.entries
            .lock()
            .iter()
            .map(|(key, sender)| show(key, &sender.borrow()))
            .collect()
    }
}

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            idle: self.idle,
            runtime: self.runtime.clone(),
        }
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("entries", &self.entries.lock().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const IDLE: Duration = Duration::from_secs(5);

    fn cache() -> Cache<&'static str, u32> {
        Cache::new(IDLE, Handle::current())
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_ask_share_one_feed() {
        let (cache, feeds) = (cache(), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let feeds = feeds.clone();
            cache.get(
                "a",
                || 0,
                |sender| async move {
                    feeds.fetch_add(1, Ordering::Relaxed);
                    sender.send_replace(7);
                },
            )
        };
        let (mut first, mut second) = (ask(), ask());
        assert_eq!(*first.wait_for(|v| *v == 7).await.unwrap(), 7);
        assert_eq!(*second.wait_for(|v| *v == 7).await.unwrap(), 7);
        assert_eq!(feeds.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_lives_for_the_idle_time_after_its_last_use() {
        let cache = cache();
        let hold = |sender: watch::Sender<u32>| async move {
            sender.send_replace(1);
        };
        let mut receiver = cache.get("a", || 0, hold);
        receiver.wait_for(|v| *v == 1).await.unwrap();
        drop(receiver);
        time::sleep(IDLE / 2).await;
        assert_eq!(*cache.get("a", || 0, hold).borrow(), 1);
        time::sleep(IDLE * 3).await;
        assert!(cache.snapshot(|_, _| ()).is_empty());
        assert_eq!(*cache.get("a", || 9, |_| async {}).borrow(), 9);
    }
}
