//! When an endpoint is left alone, and when it is tried again.

use linkerd_policy::client::{Backoff, FailureAccrual};
use std::time::Duration;
use tokio::time::Instant;

/// Open after failures, for a growing time; then one attempt decides.
#[derive(Debug)]
pub struct Circuit {
    backoff: Backoff,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Instant,
        attempt: u32,
    },
    /// One attempt is under way; until it is decided there is no other.
    Probing {
        attempt: u32,
    },
}

impl Circuit {
    #[must_use]
    pub const fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            state: State::Closed,
        }
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// When the next attempt may begin; `None` while one is under way.
    #[must_use]
    pub const fn ready_at(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Closed => Some(now),
            State::Open { until, .. } => Some(until),
            State::Probing { .. } => None,
        }
    }

    /// Begins an attempt. True when it is the one that decides.
    pub fn begin(&mut self) -> bool {
        match self.state {
            State::Open { attempt, .. } => {
                self.state = State::Probing { attempt };
                true
            }
            State::Closed | State::Probing { .. } => false,
        }
    }

    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Opens after a failure. `draw` is a random number below one, for the jitter.
    pub fn open(&mut self, now: Instant, draw: f32) {
        let attempt = match self.state {
            State::Closed => 0,
            // Late failures of requests that began before it opened tell nothing new.
            State::Open { .. } => return,
            State::Probing { attempt } => attempt.saturating_add(1),
        };
        let until = now + self.backoff.pause(attempt, draw);
        self.state = State::Open { until, attempt };
    }

    /// Gives up an attempt that decided nothing, so that the next one can.
    pub fn abandon(&mut self, now: Instant) {
        if let State::Probing { attempt } = self.state {
            self.state = State::Open { until: now, attempt };
        }
    }
}

/// Counts failures of responses until they are too many.
#[derive(Debug)]
pub struct Accrual {
    kind: FailureAccrual,
    consecutive: u32,
    window: Window,
}

/// Successes and failures of the recent past, in slices of time.
#[derive(Debug, Default)]
struct Window {
    slices: [Slice; SLICES],
    current: usize,
    /// When the current slice began.
    began: Option<Instant>,
}

#[derive(Copy, Clone, Debug, Default)]
struct Slice {
    successes: u32,
    failures: u32,
}

impl Accrual {
    #[must_use]
    pub fn new(kind: FailureAccrual) -> Self {
        Self {
            kind,
            consecutive: 0,
            window: Window::default(),
        }
    }

    /// Counts a response. True when the endpoint must be left alone now.
    pub fn record(&mut self, success: bool, now: Instant) -> bool {
        self.consecutive = if success {
            0
        } else {
            self.consecutive.saturating_add(1)
        };
        match self.kind {
            FailureAccrual::None => false,
            FailureAccrual::ConsecutiveFailures { max_failures, .. } => {
                !success && self.consecutive >= max_failures
            }
            FailureAccrual::Unified {
                success_rate_threshold,
                window,
                min_requests,
                max_consecutive_failures,
                ..
            } => {
                self.window.record(success, now, window);
                let in_a_row = max_consecutive_failures > 0 && self.consecutive >= max_consecutive_failures;
                !success && (in_a_row || self.window.rate_below(success_rate_threshold, min_requests))
            }
        }
    }

    /// Forgets the past after the endpoint was tried successfully.
    pub fn reset(&mut self) {
        self.consecutive = 0;
        self.window = Window::default();
    }

    /// How the breaker's circuit waits.
    #[must_use]
    pub const fn backoff(&self) -> Option<Backoff> {
        match self.kind {
            FailureAccrual::None => None,
            FailureAccrual::ConsecutiveFailures { backoff, .. } | FailureAccrual::Unified { backoff, .. } => {
                Some(backoff)
            }
        }
    }
}

impl Window {
    fn record(&mut self, success: bool, now: Instant, length: Duration) {
        self.advance(now, (length / 10).max(MIN_SLICE));
        let slice = &mut self.slices[self.current];
        if success {
            slice.successes = slice.successes.saturating_add(1);
        } else {
            slice.failures = slice.failures.saturating_add(1);
        }
    }

    fn advance(&mut self, now: Instant, slice: Duration) {
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began).as_nanos() / slice.as_nanos().max(1);
        if passed >= SLICES as u128 {
            *self = Self {
                began: Some(now),
                ..Self::default()
            };
            return;
        }
        let passed = u32::try_from(passed).unwrap_or(0);
        for _ in 0..passed {
            self.current = (self.current + 1) % SLICES;
            self.slices[self.current] = Slice::default();
        }
        self.began = Some(began + slice * passed);
    }

    fn rate_below(&self, threshold: f64, min_requests: u32) -> bool {
        let successes: u64 = self.slices.iter().map(|s| u64::from(s.successes)).sum();
        let failures: u64 = self.slices.iter().map(|s| u64::from(s.failures)).sum();
        let total = successes + failures;
        #[expect(clippy::cast_precision_loss, reason = "ten slices of u32 are far below 2^52")]
        let rate = successes as f64 / total.max(1) as f64;
        threshold > 0.0 && total >= u64::from(min_requests) && rate < threshold
    }
}

const SLICES: usize = 10;
const MIN_SLICE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 0.0).unwrap()
    }

    #[test]
    fn one_attempt_decides_after_the_pause() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut circuit = Circuit::new(backoff());
        circuit.open(start, 0.0);
        assert_eq!(circuit.ready_at(start), Some(start + second));
        assert!(circuit.begin());
        assert_eq!(circuit.ready_at(start), None);
        circuit.open(start + second, 0.0);
        assert_eq!(circuit.ready_at(start), Some(start + 3 * second));
        assert!(circuit.begin());
        circuit.close();
        assert!(circuit.is_closed());
    }

    #[test]
    fn failures_in_a_row_trip() {
        let now = Instant::now();
        let mut accrual = Accrual::new(FailureAccrual::ConsecutiveFailures {
            max_failures: 3,
            backoff: backoff(),
        });
        let trips: Vec<bool> = [false, false, true, false, false, false]
            .iter()
            .map(|ok| accrual.record(*ok, now))
            .collect();
        assert_eq!(trips, [false, false, false, false, false, true]);
    }

    #[test]
    fn a_low_rate_trips_and_old_failures_are_forgotten() {
        let start = Instant::now();
        let unified = FailureAccrual::Unified {
            success_rate_threshold: 0.8,
            window: Duration::from_secs(10),
            min_requests: 5,
            max_consecutive_failures: 0,
            backoff: backoff(),
        };
        let mut accrual = Accrual::new(unified);
        for _ in 0..4 {
            assert!(!accrual.record(false, start));
        }
        assert!(accrual.record(false, start));
        let later = start + Duration::from_secs(11);
        assert!(!accrual.record(false, later));
    }
}
