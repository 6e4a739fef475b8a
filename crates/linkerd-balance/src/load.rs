//! How busy an endpoint is.

use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::Instant;

/// Peak EWMA: an estimate of the latency that rises at once and falls slowly, times the requests in flight.
///
/// An endpoint that turns slow is avoided after its first slow answer; one that is not asked any more looks better
/// with time, so that it is tried again.
#[derive(Debug)]
pub struct Load {
    decay_nanos: f64,
    estimate: Mutex<Estimate>,
    pending: AtomicU32,
}

#[derive(Debug)]
struct Estimate {
    rtt_nanos: f64,
    at: Instant,
}

impl Load {
    #[must_use]
    pub fn new(default_rtt: Duration, decay: Duration, now: Instant) -> Self {
        Self {
            decay_nanos: nanos(decay.max(MIN_DECAY)),
            estimate: Mutex::new(Estimate {
                rtt_nanos: nanos(default_rtt),
                at: now,
            }),
            pending: AtomicU32::new(0),
        }
    }

    /// The estimated cost of one more request. `share` is the endpoint's weight relative to the mean: one that
    /// should take twice the requests may have twice as many in flight.
    #[must_use]
    pub fn cost(&self, share: f64, now: Instant) -> f64 {
        let estimate = self.estimate.lock();
        let rtt = estimate.rtt_nanos * self.kept(estimate.at, now);
        let pending = f64::from(self.pending.load(Relaxed));
        // One nanosecond keeps requests in flight visible when the estimate has decayed to nothing.
        (rtt + 1.0) * (pending / share + 1.0)
    }

    pub fn observe(&self, rtt: Duration, now: Instant) {
        let mut estimate = self.estimate.lock();
        let rtt = nanos(rtt);
        let kept = self.kept(estimate.at, now);
        estimate.rtt_nanos = if rtt > estimate.rtt_nanos {
            rtt
        } else {
            estimate.rtt_nanos * kept + rtt * (1.0 - kept)
        };
        estimate.at = now;
    }

    pub(crate) fn begin(&self) {
        self.pending.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self) {
        self.pending.fetch_sub(1, Relaxed);
    }

    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending.load(Relaxed)
    }

    /// The current estimate, for diagnostics.
    #[must_use]
    pub fn rtt(&self, now: Instant) -> Duration {
        let estimate = self.estimate.lock();
        Duration::from_secs_f64(estimate.rtt_nanos * self.kept(estimate.at, now) / 1e9)
    }

    /// How much of an old estimate still counts.
    fn kept(&self, at: Instant, now: Instant) -> f64 {
        (-nanos(now.saturating_duration_since(at)) / self.decay_nanos).exp()
    }
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

const MIN_DECAY: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let start = Instant::now();
        let load = Load::new(Duration::from_millis(30), 10 * SECOND, start);
        let before = load.cost(1.0, start);
        load.observe(SECOND, start);
        let peak = load.cost(1.0, start);
        assert!(peak > 30.0 * before);
        load.observe(Duration::from_millis(1), start + 10 * SECOND);
        let later = load.cost(1.0, start + 10 * SECOND);
        assert!(later < 0.4 * peak && later > 0.3 * peak, "{later} of {peak}");
    }

    #[test]
    fn requests_in_flight_weigh() {
        let start = Instant::now();
        let load = Load::new(Duration::from_millis(30), 10 * SECOND, start);
        let idle = load.cost(1.0, start);
        load.begin();
        assert!(load.cost(1.0, start) > 1.9 * idle);
        assert!(load.cost(2.0, start) < 1.6 * idle);
        load.end();
        assert!(load.cost(1.0, start) <= idle);
    }

    proptest! {
        #[test]
        fn the_estimate_stays_within_what_was_observed(rtts in proptest::collection::vec(1u64..10_000, 1..50)) {
            let start = Instant::now();
            let load = Load::new(Duration::from_millis(5_000), 10 * SECOND, start);
            for (i, rtt) in rtts.iter().enumerate() {
                load.observe(Duration::from_millis(*rtt), start + SECOND * u32::try_from(i).unwrap());
            }
            let now = start + SECOND * u32::try_from(rtts.len() - 1).unwrap();
            let cost = load.cost(1.0, now);
            prop_assert!(cost.is_finite() && cost > 0.0 && cost <= 1e10 + 1.0);
        }
    }
}
