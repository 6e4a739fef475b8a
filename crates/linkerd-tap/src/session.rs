//! One tap: what it asked for and how much of it is left.

use crate::matching::{Filter, Matcher};
use linkerd_proto::tap::TapEvent;
use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) base: u32,
    pub(crate) matcher: Matcher,
    pub(crate) filter: Filter,
    /// Whether heads are shown with their headers.
    pub(crate) headers: bool,
    remaining: AtomicU32,
    streams: AtomicU64,
    /// What was not shown since the last event.
    dropped: AtomicU64,
    /// When the next request would be exactly on time, with the filter's bound on the rate.
    due: Mutex<Option<Instant>>,
    events: mpsc::Sender<TapEvent>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Shown,
    Dropped,
    /// The limit is reached.
    Over,
}

impl Tap {
    pub(crate) fn new(
        base: u32,
        limit: u32,
        matcher: Matcher,
        filter: Filter,
        headers: bool,
    ) -> (Self, mpsc::Receiver<TapEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS);
        let tap = Self {
            base,
            matcher,
            filter,
            headers,
            remaining: AtomicU32::new(limit),
            streams: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            due: Mutex::default(),
            events,
        };
        (tap, receiver)
    }

    /// Takes one of the requests that the tap may still show.
    pub(crate) fn admit(&self) -> Admission {
        if !self.within_rate(Instant::now()) || self.events.capacity() < EVENTS_PER_REQUEST {
            self.dropped.fetch_add(1, Relaxed);
            return Admission::Dropped;
        }
        match self
            .remaining
            .fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1))
        {
            Ok(_) => Admission::Shown,
            Err(_) => Admission::Over,
        }
    }

    fn within_rate(&self, now: Instant) -> bool {
        let rate = self.filter.max_rps;
        if rate == 0 {
            return true;
        }
        let mut due = self.due.lock();
        let next = due.map_or(now, |d| d.max(now)) + Duration::from_secs(1) / rate;
        if next - now > Duration::from_secs(1) {
            return false;
        }
        *due = Some(next);
        true
    }

    pub(crate) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Relaxed)
    }

    /// Hands an event to the reader, without waiting for it. False when it had to be dropped.
    pub(crate) fn send(&self, mut event: TapEvent) -> bool {
        event.dropped = self.dropped.swap(0, Relaxed);
        let Err(error) = self.events.try_send(event) else {
            return true;
        };
        let lost = error.into_inner().dropped + 1;
        self.dropped.fetch_add(lost, Relaxed);
        false
    }

    pub(crate) fn is_done(&self) -> bool {
        self.remaining.load(Relaxed) == 0 || self.events.is_closed()
    }
}

/// How many events may wait for a reader.
const EVENTS: usize = 1_024;
/// Room that a request needs to be shown completely.
const EVENTS_PER_REQUEST: usize = 3;
