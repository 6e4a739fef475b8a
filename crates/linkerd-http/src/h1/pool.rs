//! Idle connections to one server.

use super::conn::Conn;
use parking_lot::Mutex;
use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

#[derive(Copy, Clone, Debug)]
pub struct PoolParams {
    pub max_idle: usize,
    pub idle_timeout: Duration,
}

/// Idle connections, the last used one last. No task watches them: they are looked at when they are taken.
pub(super) struct Pool<I> {
    params: PoolParams,
    state: Mutex<State<I>>,
}

struct State<I> {
    idle: Vec<Idle<I>>,
    /// A task closes what has been idle for too long.
    expiring: bool,
}

struct Idle<I> {
    conn: Arc<Conn<I>>,
    since: Instant,
}

impl<I: AsyncRead + AsyncWrite + Send + Unpin + 'static> Pool<I> {
    pub(super) fn new(params: PoolParams) -> Arc<Self> {
        let state = Mutex::new(State {
            idle: Vec::new(),
            expiring: false,
        });
        Arc::new(Self { params, state })
    }

    /// The connection that was used last and is still fit.
    pub(super) fn take(&self) -> Option<Arc<Conn<I>>> {
        let now = Instant::now();
        loop {
            let Idle { conn, since } = self.state.lock().idle.pop()?;
            if now.duration_since(since) < self.params.idle_timeout && conn.is_silent() {
                return Some(conn);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.state.lock().idle.len()
    }

    pub(super) fn put(self: Arc<Self>, conn: Arc<Conn<I>>) {
        let mut state = self.state.lock();
        if state.idle.len() >= self.params.max_idle {
            return;
        }
        let since = Instant::now();
        state.idle.push(Idle { conn, since });
        if !std::mem::replace(&mut state.expiring, true) {
            drop(state);
            tokio::spawn(expire(Arc::downgrade(&self), self.params.idle_timeout));
        }
    }
}

/// Closes connections when their time is over; ends when none is left.
async fn expire<I: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    pool: Weak<Pool<I>>,
    idle_timeout: Duration,
) {
    loop {
        tokio::time::sleep(idle_timeout).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = Instant::now();
        let mut state = pool.state.lock();
        state
            .idle
            .retain(|idle| now.duration_since(idle.since) < idle_timeout);
        if state.idle.is_empty() {
            state.idle = Vec::new();
            state.expiring = false;
            return;
        }
    }
}

impl<I> fmt::Debug for Pool<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}
