//! How many requests of a profile may be sent again: a share of those sent, and a minimum each second.

use linkerd_policy::profile::RetryBudget;
use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// Counts requests and retries of the last `ttl`. Retries never exceed the share of requests plus the minimum, so
/// that a failing server is not asked ever more.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: RetryBudget,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    slices: [Slice; SLICES],
    current: usize,
    began: Instant,
}

#[derive(Copy, Clone, Debug, Default)]
struct Slice {
    requests: u32,
    retries: u32,
}

impl Budget {
    pub(crate) fn new(limits: RetryBudget, now: Instant) -> Self {
        let state = State {
            slices: [Slice::default(); SLICES],
            current: 0,
            began: now,
        };
        Self {
            limits,
            state: Mutex::new(state),
        }
    }

    /// Counts a request that may be retried later.
    pub(crate) fn deposit(&self, now: Instant) {
        let mut state = self.state.lock();
        let slice = state.at(now, self.limits.ttl);
        slice.requests = slice.requests.saturating_add(1);
    }

    /// Takes one retry, if there is one.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.at(now, self.limits.ttl);
        let sum = |f: fn(&Slice) -> u32| state.slices.iter().map(|s| u64::from(f(s))).sum::<u64>();
        let (requests, retries) = (sum(|s| s.requests), sum(|s| s.retries));
        if retries as f64 + 1.0 > self.allowed(requests) {
            return false;
        }
        let slice = state.at(now, self.limits.ttl);
        slice.retries = slice.retries.saturating_add(1);
        true
    }

    fn allowed(&self, requests: u64) -> f64 {
        let minimum = f64::from(self.limits.min_per_second) * self.limits.ttl.as_secs_f64();
        requests as f64 * f64::from(self.limits.ratio) + minimum
    }
}

impl State {
    fn at(&mut self, now: Instant, ttl: Duration) -> &mut Slice {
        let length = (ttl / 10).max(Duration::from_millis(1));
        let passed = now.saturating_duration_since(self.began).as_nanos() / length.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        for _ in 0..passed.min(10) {
            self.current = (self.current + 1) % SLICES;
            self.slices[self.current] = Slice::default();
        }
        if passed > 0 {
            self.began = if passed >= 10 {
                now
            } else {
                self.began + length * passed
            };
        }
        &mut self.slices[self.current]
    }
}

const SLICES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn budget(min_per_second: u32, ratio: f32, start: Instant) -> Budget {
        Budget::new(
            RetryBudget::new(Duration::from_secs(10), min_per_second, ratio).unwrap(),
            start,
        )
    }

    #[test]
    fn retries_are_a_share_of_requests() {
        let start = Instant::now();
        let budget = budget(0, 0.2, start);
        assert!(!budget.withdraw(start));
        (0..100).for_each(|_| budget.deposit(start));
        assert_eq!((0..100).filter(|_| budget.withdraw(start)).count(), 20);
        assert!(!budget.withdraw(start + Duration::from_secs(20)));
    }

    #[test]
    fn a_minimum_is_always_there() {
        let start = Instant::now();
        let budget = budget(1, 0.0, start);
        assert_eq!((0..100).filter(|_| budget.withdraw(start)).count(), 10);
        assert!(budget.withdraw(start + Duration::from_secs(11)));
    }

    proptest! {
        #[test]
        fn never_more_than_allowed(ops in proptest::collection::vec((any::<bool>(), 0u64..50), 1..200)) {
            let start = Instant::now();
            let budget = budget(1, 0.5, start);
            let (mut now, mut requests, mut retries) = (start, 0_u32, 0_u32);
            for (deposit, gap) in ops {
                now += Duration::from_millis(gap);
                if deposit {
                    budget.deposit(now);
                    requests += 1;
                } else {
                    retries += u32::from(budget.withdraw(now));
                }
                prop_assert!(f64::from(retries) <= f64::from(requests) * 0.5 + 10.0 * 2.0);
            }
        }
    }
}
