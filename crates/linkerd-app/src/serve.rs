//! Accept loops.

use crate::application::Application;
use linkerd_stack::drain;
use linkerd_transport::{Accepted, Listener};
use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{self, Instant};

/// Serves every connection in a task of its own.
///
/// A drain does not close the door at once: clients learn of this pod's end a little later than it does, and what
/// they open until then is still served, with `drain` telling each connection to take one request only. [`Door`]
/// says how long.
pub(crate) async fn accept<F>(
    name: &'static str,
    listener: Listener,
    mut drain: drain::Watch,
    door: Door,
    serve: impl Fn(Accepted, drain::Watch) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let open = Arc::<AtomicUsize>::default();
    let mut began = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = door.closing(&mut drain, &mut began) => return,
        };
        match accepted {
            Ok(_) if open.load(Ordering::Relaxed) >= MAX_CONNECTIONS => {
                tracing::warn!(
                    listener = name,
                    limit = MAX_CONNECTIONS,
                    "too many connections, one is closed"
                );
            }
            Ok(accepted) => {
                let counted = Open::new(&open);
                let served = serve(accepted, drain.clone());
                tokio::spawn(async move {
                    served.await;
                    drop(counted);
                });
            }
            Err(error) => pause_after(name, &error).await,
        }
    }
}

/// Until when connections are accepted once a drain has begun.
#[derive(Clone)]
pub(crate) enum Door {
    /// Nobody has come for a while.
    Quiet,
    /// That, and the application takes no connections itself; or after a while anyway, when it cannot be told.
    Behind(Arc<Application>),
}

impl Door {
    /// Resolves when the door has to be closed. Begun anew for each connection that comes.
    async fn closing(&self, drain: &mut drain::Watch, began: &mut Option<Instant>) {
        drain.signaled().await;
        let began = *began.get_or_insert_with(Instant::now);
        let quiet = Instant::now() + QUIET;
        let Self::Behind(application) = self else {
            return time::sleep_until(quiet).await;
        };
        time::sleep_until(quiet.min(began + LINGER)).await;
        while application.listens() {
            time::sleep(QUIET / 4).await;
        }
    }
}

/// Without a pause, a process that is out of file descriptors would spin.
async fn pause_after(listener: &'static str, error: &io::Error) {
    tracing::warn!(%error, %listener, "cannot accept");
    time::sleep(Duration::from_millis(100)).await;
}

struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Of one listener in one worker: above what a pod's file descriptors usually allow, below what memory does.
const MAX_CONNECTIONS: usize = 65_536;
/// Endpoints leave the clients' balancers within a second.
const QUIET: Duration = Duration::from_secs(1);
/// Inbound connections that still come then are of clients that have not heard of the end at all.
const LINGER: Duration = Duration::from_secs(5);
