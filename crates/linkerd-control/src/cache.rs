//! One watch for each key, shared by all who ask, kept for a while after the last one left.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fmt,
    future::Future,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch, time};

/// Clones share the entries.
pub(crate) struct Cache<K, V> {
    entries: Arc<Mutex<HashMap<K, Entry<V>>>>,
    idle: Duration,
    /// The connections to what feeds all entries.
    connected: Arc<AtomicUsize>,
    runtime: Handle,
}

struct Entry<V> {
    sender: watch::Sender<V>,
    link: Link,
}

/// Whether what feeds an entry hears of news. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link(Arc<AtomicU8>);

impl Link {
    pub(crate) fn up(&self) {
        self.0.store(UP, Relaxed);
    }

    /// Does nothing before it has been up: what was never told need not be kept.
    pub(crate) fn down(&self) {
        let _ = self.0.compare_exchange(UP, DOWN, Relaxed, Relaxed);
    }

    /// Whether what it has brought could not be had again now.
    fn is_lost(&self, connected: bool) -> bool {
        match self.0.load(Relaxed) {
            UP => !connected,
            state => state == DOWN,
        }
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

const UP: u8 = 1;
const DOWN: u8 = 2;

impl<K, V> Cache<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(idle: Duration, connected: Arc<AtomicUsize>, runtime: Handle) -> Self {
        Self {
            entries: Arc::default(),
            idle,
            connected,
            runtime,
        }
    }

    /// The watch of `key`. When there is none, it begins with `initial` and `feed` is what sends to it.
    ///
    /// `feed` may end: the last value then stays until nobody uses it. While its link is down, or nothing is
    /// connected, the entry stays also unused, because it could not be had again.
    pub(crate) fn get<F>(
        &self,
        key: K,
        initial: impl FnOnce() -> V,
        feed: impl FnOnce(watch::Sender<V>, Link) -> F,
    ) -> watch::Receiver<V>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(&key) {
            return entry.sender.subscribe();
        }
        let (sender, receiver) = watch::channel(initial());
        let link = Link::default();
        if entries.len() < MAX_ENTRIES || make_room(&mut entries) {
            let entry = Entry {
                sender: sender.clone(),
                link: link.clone(),
            };
            entries.insert(key.clone(), entry);
        }
        drop(entries);
        let feed = feed(sender.clone(), link.clone());
        let this = self.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                () = this.unused(key, sender, link) => {}
                () = async { feed.await; std::future::pending().await } => {}
            }
        });
        receiver
    }

    /// Resolves once the entry has had no receiver for the idle time, and is gone from the map. Lookups take the same
    /// lock, so that none can get a receiver of an entry that is being removed.
    async fn unused(&self, key: K, sender: watch::Sender<V>, link: Link) {
        loop {
            sender.closed().await;
            time::sleep(self.idle).await;
            let mut entries = self.entries.lock();
            let kept = entries.get(&key).is_some_and(|entry| entry.link.is(&link));
            if sender.receiver_count() > 0 || (kept && link.is_lost(self.connected.load(Relaxed) > 0)) {
                continue;
            }
            if kept {
                entries.remove(&key);
            }
            return;
        }
    }

    /// What is known now, for people to look at.
    pub(crate) fn snapshot<T>(&self, mut show: impl FnMut(&K, &V) -> T) -> Vec<T> {
        self.entries
            .lock()
            .iter()
            .map(|(key, entry)| show(key, &entry.sender.borrow()))
            .collect()
    }
}

/// Lets go of an entry that nobody uses, if there is one.
fn make_room<K: Clone + Eq + Hash, V>(entries: &mut HashMap<K, Entry<V>>) -> bool {
    let unused = entries
        .iter()
        .find(|(_, entry)| entry.sender.receiver_count() == 0)
        .map(|(key, _)| key.clone());
    unused.is_some_and(|key| entries.remove(&key).is_some())
}

/// As many entries are kept; what exceeds them is fed for as long as it is used, and shared with nobody.
const MAX_ENTRIES: usize = 10_000;

impl<K, V> Clone for Cache<K, V> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            idle: self.idle,
            connected: self.connected.clone(),
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

    const IDLE: Duration = Duration::from_secs(5);

    fn cache() -> Cache<&'static str, u32> {
        Cache::new(IDLE, connected(), Handle::current())
    }

    fn connected() -> Arc<AtomicUsize> {
        Arc::new(AtomicUsize::new(1))
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_ask_share_one_feed() {
        let (cache, feeds) = (cache(), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let feeds = feeds.clone();
            cache.get(
                "a",
                || 0,
                |sender, _| async move {
                    feeds.fetch_add(1, Relaxed);
                    sender.send_replace(7);
                },
            )
        };
        let (mut first, mut second) = (ask(), ask());
        assert_eq!(*first.wait_for(|v| *v == 7).await.unwrap(), 7);
        assert_eq!(*second.wait_for(|v| *v == 7).await.unwrap(), 7);
        assert_eq!(feeds.load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_lives_for_the_idle_time_after_its_last_use() {
        let cache = cache();
        let hold = |sender: watch::Sender<u32>, _| async move {
            sender.send_replace(1);
        };
        let mut receiver = cache.get("a", || 0, hold);
        receiver.wait_for(|v| *v == 1).await.unwrap();
        drop(receiver);
        time::sleep(IDLE / 2).await;
        assert_eq!(*cache.get("a", || 0, hold).borrow(), 1);
        time::sleep(IDLE * 3).await;
        assert!(cache.snapshot(|_, _| ()).is_empty());
        assert_eq!(*cache.get("a", || 9, |_, _| async {}).borrow(), 9);
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_had_again_is_kept() {
        let cache = cache();
        let links = Arc::new(Mutex::new(None));
        let link = links.clone();
        drop(cache.get(
            "known",
            || 1,
            move |_, heard: Link| async move {
                heard.up();
                *link.lock() = Some(heard);
            },
        ));
        drop(cache.get("unknown", || 2, |_, link: Link| async move { link.down() }));
        tokio::task::yield_now().await;
        let link = links.lock().clone().unwrap();
        link.down();
        time::sleep(IDLE * 100).await;
        assert_eq!(cache.snapshot(|key, value| (*key, *value)), [("known", 1)]);
        link.up();
        cache.connected.store(0, Relaxed);
        time::sleep(IDLE * 100).await;
        assert_eq!(cache.snapshot(|key, value| (*key, *value)), [("known", 1)]);
        cache.connected.store(1, Relaxed);
        time::sleep(IDLE * 2).await;
        assert!(cache.snapshot(|_, _| ()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_entries_is_bounded() {
        let cache: Cache<usize, usize> = Cache::new(IDLE, connected(), Handle::current());
        let get = |n| cache.get(n, || n, |_, _| async {});
        let used: Vec<_> = (0..MAX_ENTRIES - 1).map(get).collect();
        (0..10).for_each(|n| drop(get(MAX_ENTRIES + n)));
        assert_eq!(cache.snapshot(|_, _| ()).len(), MAX_ENTRIES);
        let more: Vec<_> = (0..3).map(|n| get(2 * MAX_ENTRIES + n)).collect();
        assert_eq!(cache.snapshot(|_, _| ()).len(), MAX_ENTRIES);
        assert_eq!(*more[2].borrow(), 2 * MAX_ENTRIES + 2);
        drop((used, more));
        time::sleep(IDLE * 3).await;
        assert!(cache.snapshot(|_, _| ()).is_empty());
    }
}
