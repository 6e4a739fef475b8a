//! Choosing an endpoint for each request.

use crate::{Accrual, Circuit, Load, Outcome};
use linkerd_policy::{
    Endpoint, EndpointSet,
    client::{self, Backoff, FailureAccrual},
    endpoint::WEIGHT_ONE,
};
use linkerd_stack::{Cause, Error};
use parking_lot::Mutex;
use rand::Rng;
use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How a balancer waits and judges.
#[derive(Clone, Debug)]
pub struct Params {
    /// How long no endpoint may be available before requests fail at once.
    pub failfast: Duration,
    /// How many requests may wait for an endpoint.
    pub queue: usize,
    pub load: client::Load,
    pub accrual: FailureAccrual,
    /// Between attempts to connect to an unreachable endpoint.
    pub reconnect: Backoff,
}

/// A destination's endpoints, each with the caller's `E` to reach it.
#[derive(Debug)]
pub struct Balancer<E> {
    params: Params,
    roster: Arc<Roster<E>>,
    changed: Arc<Notify>,
    waiting: AtomicUsize,
    /// Since when no endpoint has been available.
    stuck_since: Mutex<Option<Instant>>,
}

/// The current endpoints, known to each of them, because whether one may be left out depends on the others.
#[derive(Debug)]
struct Roster<E> {
    members: Mutex<Arc<Members<E>>>,
    min_ready: usize,
    /// Held while it is decided who is left out, so that two do not count on each other.
    deciding: Mutex<()>,
}

/// One set of endpoints. A pick works on the set it began with, an update replaces it.
#[derive(Debug)]
struct Members<E> {
    all: Vec<Arc<Member<E>>>,
    /// Sums of the weights up to and including each member; empty when all weights are equal.
    cumulative: Vec<u64>,
    known: bool,
}

#[derive(Debug)]
struct Member<E> {
    spec: Arc<Endpoint>,
    /// The weight relative to the mean.
    share: f64,
    shared: Arc<Shared<E>>,
}

/// What survives a change of weights.
#[derive(Debug)]
struct Shared<E> {
    endpoint: E,
    load: Load,
    health: Mutex<Health>,
    roster: Weak<Roster<E>>,
    since: Instant,
    /// Wakes the requests that wait for an endpoint.
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Health {
    /// Whether it can be connected to.
    reach: Circuit,
    /// Whether its responses are good enough.
    breaker: Option<Circuit>,
    accrual: Accrual,
}

/// An endpoint as it is now, for people to look at.
#[derive(Clone, Debug)]
pub struct Status {
    pub endpoint: Arc<Endpoint>,
    pub state: State,
    /// When the next attempt may begin, if the endpoint is being left alone.
    pub retry_in: Option<Duration>,
    /// The estimated latency.
    pub load: Duration,
    /// Requests under way.
    pub pending: u32,
    /// How long it has been known.
    pub age: Duration,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// Its responses are too bad.
    Ejected,
    /// It cannot be connected to.
    Unreachable,
}

impl State {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Ejected => "ejected",
            Self::Unreachable => "unreachable",
        }
    }
}

/// An endpoint, chosen for one request. Dropping it ends the request in the endpoint's load.
#[derive(Debug)]
pub struct Picked<E> {
    shared: Arc<Shared<E>>,
    addr: SocketAddr,
    /// The circuits that wait for this request's outcome.
    probes: Probes,
}

#[derive(Copy, Clone, Debug, Default)]
struct Probes {
    reach: bool,
    breaker: bool,
}

/// Why nothing could be picked, and when the next endpoint may be tried.
struct Stuck {
    retry_at: Option<Instant>,
}

impl<E: Clone> Balancer<E> {
    #[must_use]
    pub fn new(params: Params) -> Self {
        let roster = Arc::new(Roster {
            members: Mutex::new(Arc::new(Members::empty())),
            min_ready: params.accrual.min_ready,
            deciding: Mutex::default(),
        });
        Self {
            params,
            roster,
            changed: Arc::default(),
            waiting: AtomicUsize::new(0),
            stuck_since: Mutex::new(None),
        }
    }

    /// Takes over what discovery says. Endpoints that stay keep their load, health and connections; removed ones get
    /// no further request.
    pub fn update(&self, set: &EndpointSet, mut make: impl FnMut(&Arc<Endpoint>) -> E) {
        let now = Instant::now();
        let old = self.members();
        let by_addr: HashMap<SocketAddr, &Arc<Member<E>>> =
            old.all.iter().map(|m| (m.spec.addr, m)).collect();
        let total: u64 = set.endpoints.values().map(|e| u64::from(e.weight)).sum();
        let count = set.endpoints.len();
        let all: Vec<Arc<Member<E>>> = set
            .endpoints
            .values()
            .map(|spec| {
                let shared = match by_addr.get(&spec.addr) {
                    Some(member) if same_but_weight(&member.spec, spec) => member.shared.clone(),
                    _ => Arc::new(self.shared(make(spec), now)),
                };
                Arc::new(Member {
                    spec: spec.clone(),
                    share: share(spec.weight, total, count),
                    shared,
                })
            })
            .collect();
        let cumulative = cumulative_weights(&all);
        *self.roster.members.lock() = Arc::new(Members {
            all,
            cumulative,
            known: true,
        });
        self.roster.readmit(now);
        self.changed.notify_waiters();
    }

    fn members(&self) -> Arc<Members<E>> {
        self.roster.members.lock().clone()
    }

    fn shared(&self, endpoint: E, now: Instant) -> Shared<E> {
        let accrual = Accrual::new(self.params.accrual.trip);
        Shared {
            endpoint,
            load: Load::new(self.params.load, now),
            health: Mutex::new(Health {
                reach: Circuit::new(self.params.reconnect),
                breaker: accrual.backoff().map(Circuit::new),
                accrual,
            }),
            roster: Arc::downgrade(&self.roster),
            since: now,
            changed: self.changed.clone(),
        }
    }

    /// Chooses an endpoint, waiting for one if need be. Those in `avoid` are taken only when there is no other.
    ///
    /// # Errors
    /// [`Cause::FailFast`] when none has been available for too long, [`Cause::LoadShed`] when too many wait.
    pub async fn pick(&self, avoid: &[SocketAddr]) -> Result<Picked<E>, Error> {
        if let Ok(picked) = self.try_pick(avoid, Instant::now()) {
            return Ok(picked);
        }
        let _waiting = self.enqueue()?;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Instant::now();
            let retry_at = match self.try_pick(avoid, now) {
                Ok(picked) => return Ok(picked),
                Err(stuck) => stuck.retry_at,
            };
            let deadline = *self.stuck_since.lock().get_or_insert(now) + self.params.failfast;
            if now >= deadline {
                return Err(Error::new(Cause::FailFast, self.why_stuck()));
            }
            tokio::select! {
                () = changed => {}
                () = sleep_until(retry_at.map_or(deadline, |at| at.min(deadline))) => {}
            }
        }
    }

    /// Chooses an endpoint that is available now, if there is one.
    #[must_use]
    pub fn pick_now(&self, avoid: &[SocketAddr]) -> Option<Picked<E>> {
        self.try_pick(avoid, Instant::now()).ok()
    }

    fn enqueue(&self) -> Result<Waiting<'_>, Error> {
        if self.waiting.fetch_add(1, Relaxed) >= self.params.queue {
            self.waiting.fetch_sub(1, Relaxed);
            return Err(Error::new(
                Cause::LoadShed,
                "too many requests wait for an endpoint",
            ));
        }
        Ok(Waiting(&self.waiting))
    }

    fn try_pick(&self, avoid: &[SocketAddr], now: Instant) -> Result<Picked<E>, Stuck> {
        let members = self.members();
        let usable = |m: &Member<E>| m.shared.is_available(now);
        let chosen = members
            .two_choices(now, |m| usable(m) && !avoid.contains(&m.spec.addr))
            .or_else(|| members.any(|m| usable(m) && !avoid.contains(&m.spec.addr)))
            .or_else(|| members.any(usable));
        match chosen {
            Some(member) => {
                let picked = Picked::new(member);
                // An attempt to find out whether an endpoint is back does not end the fail-fast state.
                if !picked.probes.reach {
                    self.stuck_since.lock().take();
                }
                Ok(picked)
            }
            None => Err(Stuck {
                retry_at: members.all.iter().filter_map(|m| m.shared.ready_at(now)).min(),
            }),
        }
    }

    /// Whether requests would fail at once: routes then prefer another backend.
    #[must_use]
    pub fn is_failfast(&self) -> bool {
        let since = *self.stuck_since.lock();
        since.is_some_and(|since| since.elapsed() >= self.params.failfast)
            && self
                .members()
                .all
                .iter()
                .all(|m| !m.shared.is_available(Instant::now()))
    }

    /// Whether discovery has said anything yet.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.members().known
    }

    fn why_stuck(&self) -> String {
        let members = self.members();
        if !members.known {
            return "service in fail-fast: discovery has not answered".into();
        }
        let (mut unreachable, mut ejected) = (0, 0);
        for member in &members.all {
            let health = member.shared.health.lock();
            unreachable += usize::from(!health.reach.is_closed());
            ejected += usize::from(health.breaker.as_ref().is_some_and(|b| !b.is_closed()));
        }
        match members.all.len() {
            0 => "service in fail-fast: it has no endpoints".into(),
            n => {
                format!("service in fail-fast: of {n} endpoints {unreachable} unreachable, {ejected} ejected")
            }
        }
    }

    /// How many requests wait for an endpoint.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// The endpoints as they are now, for people to look at.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let now = Instant::now();
        self.members().all.iter().map(|m| m.status(now)).collect()
    }
}

impl<E> Roster<E> {
    /// Leaves an endpoint out, unless too few would be left.
    fn eject(&self, shared: &Shared<E>, now: Instant, asked: Option<Duration>) {
        let _deciding = self.deciding.lock();
        let members = self.members.lock().clone();
        let others = members
            .all
            .iter()
            .filter(|m| !std::ptr::eq(&raw const *m.shared, shared));
        if others.filter(|m| m.shared.state() == State::Ready).count() < self.min_ready {
            return;
        }
        if let Some(breaker) = &mut shared.health.lock().breaker {
            breaker.open(now, rand::rng().random(), asked);
        }
    }

    /// Takes endpoints back when too few are ready: others have gone or cannot be reached any more.
    fn readmit(&self, now: Instant) {
        if self.min_ready == 0 {
            return;
        }
        let _deciding = self.deciding.lock();
        let members = self.members.lock().clone();
        let ready = members.all.iter().filter(|m| m.shared.state() == State::Ready);
        let missing = self.min_ready.saturating_sub(ready.count());
        let mut ejected: Vec<_> = members
            .all
            .iter()
            .filter(|m| m.shared.state() == State::Ejected)
            .collect();
        // The one that would be tried next has had the longest time to recover.
        ejected.sort_by_key(|m| m.shared.ready_at(now));
        for member in ejected.into_iter().take(missing) {
            member.shared.health.lock().take_back();
        }
    }
}

fn same_but_weight(a: &Arc<Endpoint>, b: &Arc<Endpoint>) -> bool {
    if Arc::ptr_eq(a, b) || a == b {
        return true;
    }
    let mut a = (**a).clone();
    a.weight = b.weight;
    a == **b
}

/// The weight relative to the mean; never zero, because loads are divided by it.
fn share(weight: u32, total: u64, count: usize) -> f64 {
    if total == 0 {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "weights and counts are far below 2^52")]
    let mean = total as f64 / count.max(1) as f64;
    (f64::from(weight) / mean).max(1e-4)
}

fn cumulative_weights<E>(all: &[Arc<Member<E>>]) -> Vec<u64> {
    let first = all.first().map_or(WEIGHT_ONE, |m| m.spec.weight);
    if all.iter().all(|m| m.spec.weight == first) {
        return Vec::new();
    }
    all.iter()
        .scan(0, |sum, m| {
            *sum += u64::from(m.spec.weight);
            Some(*sum)
        })
        .collect()
}

impl<E> Members<E> {
    const fn empty() -> Self {
        Self {
            all: Vec::new(),
            cumulative: Vec::new(),
            known: false,
        }
    }

    /// Draws two members by weight and takes the less loaded one.
    fn two_choices(&self, now: Instant, usable: impl Fn(&Member<E>) -> bool) -> Option<&Arc<Member<E>>> {
        if self.all.len() == 1 {
            return self.all.first().filter(|m| usable(m));
        }
        let mut rng = rand::rng();
        let mut first: Option<usize> = None;
        for _ in 0..DRAWS {
            let drawn = self.draw(&mut rng)?;
            if !usable(&self.all[drawn]) {
                continue;
            }
            match first {
                None => first = Some(drawn),
                // With equal weights the two must differ, else the choice is wasted. With weights a repeated draw is
                // what keeps a light endpoint's share small when all loads are equal.
                Some(other) if other == drawn && self.cumulative.is_empty() => {}
                Some(other) => return Some(self.lighter(other, drawn, now)),
            }
        }
        first.map(|i| &self.all[i])
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<usize> {
        match self.cumulative.last() {
            None if self.all.is_empty() => None,
            None => Some(rng.random_range(0..self.all.len())),
            Some(0) => None,
            Some(total) => {
                let point = rng.random_range(0..*total);
                Some(self.cumulative.partition_point(|sum| *sum <= point))
            }
        }
    }

    fn lighter(&self, a: usize, b: usize, now: Instant) -> &Arc<Member<E>> {
        let (a, b) = (&self.all[a], &self.all[b]);
        if b.cost(now) < a.cost(now) { b } else { a }
    }

    /// Any usable member, from a random start; weight zero only when there is nothing else.
    fn any(&self, usable: impl Fn(&Member<E>) -> bool) -> Option<&Arc<Member<E>>> {
        if self.all.is_empty() {
            return None;
        }
        let start = rand::rng().random_range(0..self.all.len());
        let from_start = || {
            self.all[start..]
                .iter()
                .chain(&self.all[..start])
                .filter(|m| usable(m))
        };
        from_start()
            .find(|m| m.spec.weight > 0)
            .or_else(|| from_start().next())
    }
}

impl<E> Member<E> {
    fn cost(&self, now: Instant) -> f64 {
        self.shared.load.cost(self.share, now)
    }

    fn status(&self, now: Instant) -> Status {
        let shared = &self.shared;
        let state = shared.state();
        Status {
            endpoint: self.spec.clone(),
            state,
            retry_in: shared
                .ready_at(now)
                .filter(|_| state != State::Ready)
                .map(|at| at.saturating_duration_since(now)),
            load: shared.load.rtt(now),
            pending: shared.load.pending(),
            age: now.saturating_duration_since(shared.since),
        }
    }
}

impl<E> Shared<E> {
    fn is_available(&self, now: Instant) -> bool {
        let health = self.health.lock();
        let ready = |c: &Circuit| c.ready_at(now).is_some_and(|at| at <= now);
        ready(&health.reach) && health.breaker.as_ref().is_none_or(ready)
    }

    fn ready_at(&self, now: Instant) -> Option<Instant> {
        let health = self.health.lock();
        let reach = health.reach.ready_at(now)?;
        match &health.breaker {
            None => Some(reach),
            Some(breaker) => Some(reach.max(breaker.ready_at(now)?)),
        }
    }

    fn state(&self) -> State {
        let health = self.health.lock();
        if !health.reach.is_closed() {
            State::Unreachable
        } else if health.breaker.as_ref().is_some_and(|b| !b.is_closed()) {
            State::Ejected
        } else {
            State::Ready
        }
    }
}

impl Health {
    /// Forgets what was held against the endpoint's responses.
    fn take_back(&mut self) {
        if let Some(breaker) = &mut self.breaker {
            breaker.close();
        }
        self.accrual.reset();
    }
}

impl<E: Clone> Picked<E> {
    fn new(member: &Member<E>) -> Self {
        let shared = member.shared.clone();
        shared.load.begin();
        let mut health = shared.health.lock();
        let probes = Probes {
            reach: health.reach.begin(),
            breaker: health.breaker.as_mut().is_some_and(Circuit::begin),
        };
        drop(health);
        Self {
            shared,
            addr: member.spec.addr,
            probes,
        }
    }
}

impl<E> Picked<E> {
    pub fn endpoint(&self) -> &E {
        &self.shared.endpoint
    }

    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether others wait for this request to show that the endpoint is back.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.probes.reach
    }

    /// The endpoint can be reached.
    pub fn reached(&mut self) {
        if std::mem::take(&mut self.probes.reach) {
            self.shared.health.lock().reach.close();
            self.shared.changed.notify_waiters();
        }
    }

    /// The endpoint cannot be reached; it is left alone for a while.
    pub fn unreachable(&mut self) {
        self.probes.reach = false;
        let now = Instant::now();
        self.shared
            .health
            .lock()
            .reach
            .open(now, rand::rng().random(), None);
        if let Some(roster) = self.shared.roster.upgrade() {
            roster.readmit(now);
        }
        self.shared.changed.notify_waiters();
    }

    /// The response began after `rtt`.
    pub fn answered(&self, rtt: Duration) {
        self.shared.load.observe(rtt, Instant::now());
    }

    /// The response, or a lack of one, makes the endpoint look slow; the server may have `asked` for a pause.
    pub fn penalize(&self, asked: Option<Duration>) {
        self.shared.load.penalize(asked, Instant::now());
    }

    /// Whether others wait for this request to show that the endpoint's responses are good again.
    #[must_use]
    pub const fn decides(&self) -> bool {
        self.probes.breaker
    }

    /// The response is known to be good or bad; the server may have `asked` to be left alone for a while.
    pub fn classified(&mut self, outcome: Outcome, asked: Option<Duration>) {
        let now = Instant::now();
        let decides = std::mem::take(&mut self.probes.breaker);
        let mut health = self.shared.health.lock();
        if health.breaker.is_none() {
            return;
        }
        if decides {
            if health.accrual.is_good(outcome) {
                health.take_back();
            } else if let Some(breaker) = &mut health.breaker {
                breaker.open(now, rand::rng().random(), asked);
            }
            drop(health);
            self.shared.changed.notify_waiters();
            return;
        }
        let trips = health.accrual.record(outcome, now);
        drop(health);
        if trips && let Some(roster) = self.shared.roster.upgrade() {
            roster.eject(&self.shared, now, asked);
        }
    }
}

impl<E> Drop for Picked<E> {
    fn drop(&mut self) {
        self.shared.load.end();
        if self.probes.reach || self.probes.breaker {
            let now = Instant::now();
            let mut health = self.shared.health.lock();
            if self.probes.reach {
                health.reach.abandon(now);
            }
            if let (true, Some(breaker)) = (self.probes.breaker, &mut health.breaker) {
                breaker.abandon(now);
            }
            drop(health);
            self.shared.changed.notify_waiters();
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl fmt::Debug for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waiting")
    }
}

/// How often a member is drawn before the pick settles for what it has.
const DRAWS: usize = 6;

#[cfg(test)]
mod tests;
