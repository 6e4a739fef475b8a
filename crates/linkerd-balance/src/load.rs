//! How busy an endpoint is.

use linkerd_policy::client::{self, Penalty};
use parking_lot::Mutex;
use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};
use tokio::time::Instant;

/// Peak EWMA: an estimate of the latency that rises at once and falls slowly, times the requests in flight.
///
/// An endpoint that turns slow is avoided after its first slow answer; one that is not asked any more looks better
/// with time, so that it is tried again. Where the policy says so, a failure weighs like a slow answer: failing fast
/// must not make an endpoint look attractive.
#[derive(Debug)]
pub struct Load {
    decay_nanos: f64,
    estimate: Mutex<Estimate>,
    penalty: Option<Penalties>,
    pending: AtomicU32,
}

#[derive(Debug)]
struct Estimate {
    nanos: f64,
    at: Instant,
}

#[derive(Debug)]
struct Penalties {
    params: Penalty,
    current: Mutex<Estimate>,
}

impl Load {
    #[must_use]
    pub fn new(params: client::Load, now: Instant) -> Self {
        let penalty = params.penalty.map(|params| Penalties {
            params,
            current: Mutex::new(Estimate { nanos: 0.0, at: now }),
        });
        Self {
            decay_nanos: nanos(params.decay.max(MIN_DECAY)),
            estimate: Mutex::new(Estimate {
                nanos: nanos(params.default_rtt),
                at: now,
            }),
            penalty,
            pending: AtomicU32::new(0),
        }
    }

    /// The estimated cost of one more request. `share` is the endpoint's weight relative to the mean: one that
    /// should take twice the requests may have twice as many in flight.
    #[must_use]
    pub fn cost(&self, share: f64, now: Instant) -> f64 {
        let pending = f64::from(self.pending.load(Relaxed));
        // One nanosecond keeps requests in flight visible when the estimate has decayed to nothing.
        (self.nanos(now) + 1.0) * (pending / share + 1.0)
    }

    fn nanos(&self, now: Instant) -> f64 {
        let latency = self.estimate.lock().decayed(self.decay_nanos, now);
        let penalty = self.penalty.as_ref().map_or(0.0, |p| p.nanos(now));
        latency.max(penalty)
    }

    pub fn observe(&self, rtt: Duration, now: Instant) {
        let mut estimate = self.estimate.lock();
        let rtt = nanos(rtt);
        estimate.nanos = if rtt > estimate.nanos {
            rtt
        } else {
            let kept = kept(self.decay_nanos, estimate.at, now);
            estimate.nanos * kept + rtt * (1.0 - kept)
        };
        estimate.at = now;
    }

    /// A response failed; the server may have `asked` for a pause.
    pub fn penalize(&self, asked: Option<Duration>, now: Instant) {
        if let Some(penalties) = &self.penalty {
            penalties.add(asked, now);
        }
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
        Duration::from_secs_f64(self.nanos(now) / 1e9)
    }
}

impl Penalties {
    fn add(&self, asked: Option<Duration>, now: Instant) {
        let Penalty {
            rtt, max_retry_after, ..
        } = self.params;
        let asked = asked.unwrap_or_default().min(max_retry_after);
        let mut current = self.current.lock();
        let left = current.decayed(self.decay_nanos(), now);
        *current = Estimate {
            nanos: left.max(nanos(rtt.max(asked))),
            at: now,
        };
    }

    fn nanos(&self, now: Instant) -> f64 {
        self.current.lock().decayed(self.decay_nanos(), now)
    }

    fn decay_nanos(&self) -> f64 {
        nanos(self.params.decay.max(MIN_DECAY))
    }
}

impl Estimate {
    /// What is left of it.
    fn decayed(&self, decay_nanos: f64, now: Instant) -> f64 {
        self.nanos * kept(decay_nanos, self.at, now)
    }
}

/// How much of an old estimate still counts.
fn kept(decay_nanos: f64, at: Instant, now: Instant) -> f64 {
    (-nanos(now.saturating_duration_since(at)) / decay_nanos).exp()
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

    fn load(now: Instant) -> Load {
        Load::new(client::Load::default(), now)
    }

    #[test]
    fn a_failure_weighs_like_a_slow_answer_and_fades_at_its_own_pace() {
        let start = Instant::now();
        let penalty = Penalty {
            rtt: 5 * SECOND,
            max_retry_after: 300 * SECOND,
            decay: 2 * SECOND,
        };
        let params = client::Load {
            penalty: Some(penalty),
            ..client::Load::default()
        };
        let penalized = |asked| {
            let load = Load::new(params, start);
            load.observe(Duration::from_millis(1), start);
            load.penalize(asked, start);
            load
        };
        assert_eq!(penalized(None).rtt(start), 5 * SECOND);
        assert_eq!(penalized(Some(SECOND)).rtt(start), 5 * SECOND);
        assert_eq!(penalized(Some(60 * SECOND)).rtt(start), 60 * SECOND);
        assert_eq!(penalized(Some(Duration::MAX)).rtt(start), 300 * SECOND);
        let faded = penalized(None).rtt(start + 2 * SECOND).as_secs_f64();
        assert!((faded - 5.0 / std::f64::consts::E).abs() < 1e-6, "{faded}");
    }

    #[test]
    fn without_a_penalty_failures_do_not_weigh() {
        let now = Instant::now();
        let load = load(now);
        let before = load.cost(1.0, now);
        load.penalize(Some(60 * SECOND), now);
        assert!(load.cost(1.0, now) <= before);
    }

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let start = Instant::now();
        let load = load(start);
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
        let load = load(start);
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
            let params = client::Load { default_rtt: 5 * SECOND, ..client::Load::default() };
            let load = Load::new(params, start);
            for (i, rtt) in rtts.iter().enumerate() {
                load.observe(Duration::from_millis(*rtt), start + SECOND * u32::try_from(i).unwrap());
            }
            let now = start + SECOND * u32::try_from(rtts.len() - 1).unwrap();
            let cost = load.cost(1.0, now);
            prop_assert!(cost.is_finite() && cost > 0.0 && cost <= 1e10 + 1.0);
        }
    }
}
