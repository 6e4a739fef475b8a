//! Rate limits of a server's policy: the generic cell rate algorithm.

use linkerd_policy::{Id, server::RateLimit};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Which limit refused a request.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    pub(crate) scope: &'static str,
    pub(crate) requests_per_second: u32,
}

/// The limits' state. It starts anew when the policy's limits change.
#[derive(Debug, Default)]
pub(crate) struct Limiter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    limit: Option<Arc<RateLimit>>,
    total: Cell,
    identities: HashMap<Option<Id>, Cell>,
}

/// When the next request would be exactly on time: the theoretical arrival time.
#[derive(Copy, Clone, Debug, Default)]
struct Cell(Option<Instant>);

impl Limiter {
    /// Admits a request of `client`, or says which limit it exceeds.
    pub(crate) fn admit(
        &self,
        limit: &Arc<RateLimit>,
        client: Option<&Id>,
        now: Instant,
    ) -> Result<(), Exceeded> {
        let state = &mut *self.0.lock();
        if state.limit.as_ref().is_none_or(|l| l != limit) {
            *state = State {
                limit: Some(limit.clone()),
                ..State::default()
            };
        }
        if let Some(rate) = limit.total
            && !state.total.admit(rate, now)
        {
            return Err(exceeded("total", rate));
        }
        let Some(rate) = rate_of(limit, client) else {
            return Ok(());
        };
        if state.identities.len() >= MAX_IDENTITIES {
            state
                .identities
                .retain(|_, cell| cell.0.is_some_and(|tat| tat > now));
        }
        if state
            .identities
            .entry(client.cloned())
            .or_default()
            .admit(rate, now)
        {
            return Ok(());
        }
        Err(exceeded("identity", rate))
    }
}

/// The limit of one client: the first override that names it, else the default of all.
fn rate_of(limit: &RateLimit, client: Option<&Id>) -> Option<u32> {
    let named = client.and_then(|id| limit.overrides.iter().find(|o| o.clients.contains(id)));
    named.map(|o| o.requests_per_second).or(limit.identity)
}

const fn exceeded(scope: &'static str, requests_per_second: u32) -> Exceeded {
    Exceeded {
        scope,
        requests_per_second,
    }
}

impl Cell {
    /// `rate` requests a second, in bursts of as many.
    fn admit(&mut self, rate: u32, now: Instant) -> bool {
        if rate == 0 {
            return false;
        }
        let spacing = Duration::from_secs(1) / rate;
        let due = self.0.map_or(now, |tat| tat.max(now));
        let next = due + spacing;
        if next.saturating_duration_since(now) > Duration::from_secs(1) {
            return false;
        }
        self.0 = Some(next);
        true
    }
}

const MAX_IDENTITIES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use linkerd_policy::{Meta, server::RateLimitOverride};
    use proptest::prelude::*;

    fn limit(total: Option<u32>, identity: Option<u32>, overrides: Vec<RateLimitOverride>) -> Arc<RateLimit> {
        Arc::new(RateLimit {
            meta: Meta::default_named("x"),
            total,
            identity,
            overrides,
        })
    }

    #[test]
    fn a_burst_then_the_rate() {
        let limiter = Limiter::default();
        let limit = limit(Some(10), None, vec![]);
        let start = Instant::now();
        let admitted = |at| {
            (0..100)
                .filter(|_| limiter.admit(&limit, None, at).is_ok())
                .count()
        };
        assert_eq!(admitted(start), 10);
        assert_eq!(admitted(start + Duration::from_millis(500)), 5);
    }

    #[test]
    fn identities_have_their_own() {
        let limiter = Limiter::default();
        let (a, b) = (Id::dns("a.x").unwrap(), Id::dns("b.x").unwrap());
        let override_b = RateLimitOverride {
            requests_per_second: 2,
            clients: vec![b.clone()],
        };
        let limit = limit(None, Some(1), vec![override_b]);
        let now = Instant::now();
        let admitted = |id: Option<&Id>| (0..10).filter(|_| limiter.admit(&limit, id, now).is_ok()).count();
        assert_eq!(
            [admitted(Some(&a)), admitted(Some(&b)), admitted(None)],
            [1, 2, 1]
        );
    }

    proptest! {
        #[test]
        fn never_more_than_rate_and_burst(rate in 1u32..200, gaps in proptest::collection::vec(0u64..50, 1..300)) {
            let mut cell = Cell::default();
            let start = Instant::now();
            let (mut now, mut admitted) = (start, 0_u64);
            for gap in gaps {
                now += Duration::from_millis(gap);
                admitted += u64::from(cell.admit(rate, now));
                let elapsed = u64::try_from((now - start).as_millis()).unwrap();
                prop_assert!(admitted <= u64::from(rate) + u64::from(rate) * elapsed / 1_000 + 1);
            }
        }
    }
}
