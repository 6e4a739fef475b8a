//! When an endpoint is left alone, and when it is tried again.

use linkerd_policy::client::{Backoff, Trip};
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

    /// Opens after a failure, for at least as long as the server `asked` for where that counts. `draw` is a random
    /// number below one, for the jitter.
    pub fn open(&mut self, now: Instant, draw: f32, asked: Option<Duration>) {
        let attempt = match self.state {
            State::Closed => 0,
            // Late failures of requests that began before it opened tell nothing new.
            State::Open { .. } => return,
            State::Probing { attempt } => attempt.saturating_add(1),
        };
        let pause = self.backoff.pause(attempt, draw);
        let asked = self.backoff.heeded(asked).unwrap_or_default().min(MAX_ASKED);
        let until = now + pause.max(asked);
        self.state = State::Open { until, attempt };
    }

    /// Gives up an attempt that decided nothing, so that the next one can.
    pub fn abandon(&mut self, now: Instant) {
        if let State::Probing { attempt } = self.state {
            self.state = State::Open { until: now, attempt };
        }
    }
}

/// How good one response was.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
    /// 429 or gRPC's RESOURCE_EXHAUSTED: no failure of its own, but the endpoint has enough to do.
    Exhausted,
}

/// Counts failures of responses until they are too many.
#[derive(Debug)]
pub struct Accrual {
    trip: Trip,
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
    pub fn new(trip: Trip) -> Self {
        Self {
            trip,
            consecutive: 0,
            window: Window::default(),
        }
    }

    /// Counts a response. True when the endpoint must be left alone now.
    pub fn record(&mut self, outcome: Outcome, now: Instant) -> bool {
        let failed = outcome == Outcome::Failure;
        self.consecutive = if failed {
            self.consecutive.saturating_add(1)
        } else {
            0
        };
        match self.trip {
            Trip::Never => false,
            Trip::ConsecutiveFailures { max_failures, .. } => failed && self.consecutive >= max_failures,
            Trip::Unified {
                success_rate_threshold,
                window,
                min_requests,
                max_consecutive_failures,
                ..
            } => {
                let success = self.is_good(outcome);
                self.window.record(success, now, window);
                let in_a_row = max_consecutive_failures > 0 && self.consecutive >= max_consecutive_failures;
                !success && (in_a_row || self.window.rate_below(success_rate_threshold, min_requests))
            }
        }
    }

    /// Whether a response shows that an endpoint which was left alone can be used again.
    #[must_use]
    pub const fn is_good(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Success => true,
            Outcome::Failure => false,
            Outcome::Exhausted => !matches!(self.trip, Trip::Unified { .. }),
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
        match self.trip {
            Trip::Never => None,
            Trip::ConsecutiveFailures { backoff, .. } | Trip::Unified { backoff, .. } => Some(backoff),
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
/// No server can have itself left alone for longer.
const MAX_ASKED: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff() -> Backoff {
        Backoff::new(SECOND, Duration::from_secs(60), 0.0).unwrap()
    }

    fn unified(success_rate_threshold: f64, min_requests: u32, max_consecutive_failures: u32) -> Trip {
        Trip::Unified {
            success_rate_threshold,
            window: Duration::from_secs(10),
            min_requests,
            max_consecutive_failures,
            backoff: backoff(),
        }
    }

    #[test]
    fn one_attempt_decides_after_the_pause() {
        let start = Instant::now();
        let mut circuit = Circuit::new(backoff());
        circuit.open(start, 0.0, None);
        assert_eq!(circuit.ready_at(start), Some(start + SECOND));
        assert!(circuit.begin());
        assert_eq!(circuit.ready_at(start), None);
        circuit.open(start + SECOND, 0.0, None);
        assert_eq!(circuit.ready_at(start), Some(start + 3 * SECOND));
        assert!(circuit.begin());
        circuit.close();
        assert!(circuit.is_closed());
    }

    #[test]
    fn a_server_may_ask_for_a_longer_pause_where_it_is_heeded() {
        let start = Instant::now();
        let until = |heeds, asked| {
            let mut circuit = Circuit::new(backoff().heeding_server(heeds));
            circuit.open(start, 0.0, Some(asked));
            circuit.ready_at(start).unwrap() - start
        };
        assert_eq!(until(false, 30 * SECOND), SECOND);
        assert_eq!(until(true, 30 * SECOND), 30 * SECOND);
        assert_eq!(until(true, Duration::ZERO), SECOND);
        assert_eq!(until(true, Duration::from_secs(u64::MAX)), MAX_ASKED);
    }

    #[test]
    fn failures_in_a_row_trip() {
        let now = Instant::now();
        let mut accrual = Accrual::new(Trip::ConsecutiveFailures {
            max_failures: 3,
            backoff: backoff(),
        });
        use Outcome::{Exhausted, Failure, Success};
        let trips = [
            Failure, Failure, Success, Failure, Failure, Exhausted, Failure, Failure, Failure,
        ]
        .map(|outcome| accrual.record(outcome, now));
        assert_eq!(trips.iter().position(|t| *t), Some(8));
    }

    #[test]
    fn a_low_rate_trips_and_old_failures_are_forgotten() {
        let start = Instant::now();
        let mut accrual = Accrual::new(unified(0.8, 5, 0));
        for _ in 0..4 {
            assert!(!accrual.record(Outcome::Failure, start));
        }
        assert!(accrual.record(Outcome::Failure, start));
        let later = start + Duration::from_secs(11);
        assert!(!accrual.record(Outcome::Failure, later));
    }

    #[test]
    fn too_many_requests_lower_the_rate_but_are_no_failures_in_a_row() {
        let now = Instant::now();
        let mut in_a_row = Accrual::new(unified(0.0, 1, 2));
        let mut rate = Accrual::new(unified(0.8, 2, 0));
        let trips = [Outcome::Exhausted; 2].map(|o| (in_a_row.record(o, now), rate.record(o, now)));
        assert_eq!(trips, [(false, false), (false, true)]);
        assert!(!rate.is_good(Outcome::Exhausted));
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Success),
            Just(Outcome::Failure),
            Just(Outcome::Exhausted)
        ]
    }

    proptest! {
        /// Against a slow model that remembers every response. Slices make the window up to a tenth longer or shorter,
        /// so the model judges at both ends.
        #[test]
        fn the_rate_is_that_of_the_window(
            responses in proptest::collection::vec((outcome(), 0_u64..2_000), 1..120),
            threshold in 0.1_f64..1.0, min_requests in 1_u32..20
        ) {
            let start = Instant::now();
            let mut accrual = Accrual::new(unified(threshold, min_requests, 0));
            let (mut now, mut seen) = (start, Vec::new());
            for (outcome, gap) in responses {
                now += Duration::from_millis(gap);
                seen.push((outcome, now));
                let trips = accrual.record(outcome, now);
                let rate_below = |window| {
                    let recent: Vec<_> = seen.iter().filter(|(_, at)| now - *at < window).collect();
                    let good = recent.iter().filter(|(o, _)| *o == Outcome::Success).count();
                    recent.len() >= min_requests as usize && (good as f64 / recent.len() as f64) < threshold
                };
                let ages = seen.iter().map(|(_, at)| now - *at);
                let edges = ages.filter(|age| (9 * SECOND..10 * SECOND).contains(age));
                let windows: Vec<_> = edges
                    .flat_map(|age| [age, age + Duration::from_millis(1)])
                    .chain([9 * SECOND, 10 * SECOND])
                    .collect();
                let low = windows.iter().filter(|w| rate_below(**w)).count();
                if low == 0 || low == windows.len() {
                    prop_assert_eq!(trips, low > 0 && outcome != Outcome::Success);
                }
            }
        }

        /// Whatever happens to a circuit, at most one attempt is under way while it is not closed.
        #[test]
        fn one_probe_at_a_time(ops in proptest::collection::vec((0_u8..4, 0_u64..3_000), 1..200)) {
            let (mut circuit, mut now, mut probing) = (Circuit::new(backoff()), Instant::now(), false);
            for (op, gap) in ops {
                now += Duration::from_millis(gap);
                match op {
                    0 if circuit.ready_at(now).is_some_and(|at| at <= now) => {
                        let decides = circuit.begin();
                        prop_assert!(!(decides && probing));
                        probing |= decides;
                    }
                    1 if probing => { circuit.close(); probing = false; }
                    2 => { circuit.open(now, 0.5, None); probing = false; }
                    3 if probing => { circuit.abandon(now); probing = false; }
                    _ => {}
                }
                prop_assert_eq!(circuit.ready_at(now).is_none(), probing);
            }
        }
    }
}
