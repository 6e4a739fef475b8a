use super::*;
use linkerd_policy::client::Trip;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Set = BTreeMap<SocketAddr, Arc<Endpoint>>;

fn params() -> Params {
    Params {
        failfast: Duration::from_secs(3),
        queue: 10,
        load: client::Load::default(),
        accrual: FailureAccrual::NONE,
        reconnect: Backoff::new(Duration::from_millis(100), Duration::from_secs(60), 0.0).unwrap(),
    }
}

fn addr(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 80))
}

fn set(weights: &[(u8, u32)]) -> EndpointSet {
    let endpoints: Set = weights
        .iter()
        .map(|(n, weight)| {
            let mut endpoint = Endpoint::bare(addr(*n));
            endpoint.weight = *weight;
            (addr(*n), Arc::new(endpoint))
        })
        .collect();
    EndpointSet {
        endpoints,
        exists: true,
    }
}

fn balancer(params: Params, weights: &[(u8, u32)]) -> Balancer<SocketAddr> {
    let balancer = Balancer::new(params);
    balancer.update(&set(weights), |e| e.addr);
    balancer
}

/// How many of `n` sequential, equally fast requests each endpoint gets.
async fn shares(balancer: &Balancer<SocketAddr>, n: usize) -> HashMap<SocketAddr, usize> {
    let mut shares = HashMap::new();
    for _ in 0..n {
        let mut picked = balancer.pick(&[]).await.unwrap();
        picked.reached();
        picked.answered(Duration::from_millis(1));
        *shares.entry(picked.addr()).or_default() += 1;
    }
    shares
}

#[tokio::test(start_paused = true)]
async fn weights_are_honoured() {
    let balancer = balancer(params(), &[(1, 10_000), (2, 90_000)]);
    let shares = shares(&balancer, 5_000).await;
    let light = shares.get(&addr(1)).copied().unwrap_or(0);
    assert!((200..900).contains(&light), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn equal_endpoints_share_concurrent_requests() {
    let balancer = balancer(params(), &[(1, 10_000), (2, 10_000), (3, 10_000)]);
    let mut held = Vec::new();
    for _ in 0..90 {
        held.push(balancer.pick(&[]).await.unwrap());
    }
    for n in 1..=3 {
        let count = held.iter().filter(|p| p.addr() == addr(n)).count();
        assert!((20..40).contains(&count), "{n}: {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_slow_one_gets_less() {
    let balancer = balancer(params(), &[(1, 10_000), (2, 10_000)]);
    for _ in 0..20 {
        let mut picked = balancer.pick(&[]).await.unwrap();
        picked.reached();
        let slow = picked.addr() == addr(1);
        picked.answered(Duration::from_millis(if slow { 500 } else { 1 }));
    }
    let shares = shares(&balancer, 100).await;
    assert!(shares.get(&addr(2)).copied().unwrap_or(0) > 90, "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_gets_nothing_more() {
    let balancer = balancer(params(), &[(1, 10_000), (2, 10_000)]);
    balancer.update(&set(&[(2, 10_000)]), |e| e.addr);
    assert_eq!(shares(&balancer, 100).await, HashMap::from([(addr(2), 100)]));
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_endpoint_is_left_alone_and_tried_again() {
    let balancer = balancer(params(), &[(1, 10_000), (2, 10_000)]);
    let mut failed = loop {
        let picked = balancer.pick(&[]).await.unwrap();
        if picked.addr() == addr(1) {
            break picked;
        }
    };
    failed.unreachable();
    drop(failed);
    assert_eq!(shares(&balancer, 50).await, HashMap::from([(addr(2), 50)]));
    tokio::time::sleep(Duration::from_millis(101)).await;
    assert_eq!(shares(&balancer, 50).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_an_endpoint() {
    let balancer = Arc::new(Balancer::<SocketAddr>::new(params()));
    let waiting = tokio::spawn({
        let balancer = balancer.clone();
        async move { balancer.pick(&[]).await.map(|p| p.addr()) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    balancer.update(&set(&[(1, 10_000)]), |e| e.addr);
    assert_eq!(waiting.await.unwrap().unwrap(), addr(1));
}

#[tokio::test(start_paused = true)]
async fn without_endpoints_requests_fail_after_the_timeout_and_then_at_once() {
    let balancer = balancer(params(), &[]);
    let start = Instant::now();
    assert_eq!(balancer.pick(&[]).await.unwrap_err().cause(), Cause::FailFast);
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    assert!(balancer.is_failfast());
    assert_eq!(balancer.pick(&[]).await.unwrap_err().cause(), Cause::FailFast);
    assert_eq!(start.elapsed(), Duration::from_secs(3));
    balancer.update(&set(&[(1, 10_000)]), |e| e.addr);
    assert!(!balancer.is_failfast());
    assert!(balancer.pick(&[]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let balancer = Arc::new(Balancer::<SocketAddr>::new(params()));
    let waiting: Vec<_> = (0..11)
        .map(|_| {
            let balancer = balancer.clone();
            tokio::spawn(async move { balancer.pick(&[]).await.map(|p| p.addr()) })
        })
        .collect();
    let mut causes = Vec::new();
    for task in waiting {
        causes.push(task.await.unwrap().unwrap_err().cause());
    }
    assert_eq!(causes.iter().filter(|c| **c == Cause::LoadShed).count(), 1);
}

fn breaking(max_failures: u32, min_ready: usize) -> Params {
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 0.0).unwrap();
    let trip = Trip::ConsecutiveFailures {
        max_failures,
        backoff: backoff.heeding_server(true),
    };
    Params {
        accrual: FailureAccrual { trip, min_ready },
        ..params()
    }
}

/// One request to each ready endpoint, of which those in `bad` fail.
fn round(balancer: &Balancer<SocketAddr>, bad: &[u8]) {
    let mut seen = Vec::new();
    while let Some(mut picked) = balancer.pick_now(&seen).filter(|p| !seen.contains(&p.addr())) {
        let failed = bad.iter().any(|n| picked.addr() == addr(*n));
        let outcome = if failed {
            Outcome::Failure
        } else {
            Outcome::Success
        };
        picked.answered(Duration::from_millis(1));
        picked.classified(outcome, None);
        seen.push(picked.addr());
    }
}

fn states(balancer: &Balancer<SocketAddr>) -> Vec<State> {
    balancer.status().iter().map(|s| s.state).collect()
}

#[tokio::test(start_paused = true)]
async fn a_breaker_ejects_and_probes() {
    let balancer = balancer(breaking(2, 1), &[(1, 10_000), (2, 10_000)]);
    round(&balancer, &[1]);
    assert_eq!(states(&balancer), [State::Ready, State::Ready]);
    round(&balancer, &[1]);
    assert_eq!(shares(&balancer, 20).await, HashMap::from([(addr(2), 20)]));
    tokio::time::sleep(Duration::from_millis(1_001)).await;
    round(&balancer, &[]);
    assert_eq!(states(&balancer), [State::Ready, State::Ready]);
}

#[tokio::test(start_paused = true)]
async fn the_last_endpoint_is_not_ejected() {
    let balancer = balancer(breaking(1, 1), &[(1, 10_000), (2, 10_000)]);
    for _ in 0..5 {
        round(&balancer, &[1, 2]);
        assert_eq!(
            states(&balancer).iter().filter(|s| **s == State::Ready).count(),
            1
        );
    }
}

#[tokio::test(start_paused = true)]
async fn all_endpoints_are_ejected_where_the_policy_asks_for_it() {
    let balancer = balancer(breaking(1, 0), &[(1, 10_000), (2, 10_000)]);
    round(&balancer, &[1, 2]);
    assert_eq!(states(&balancer), [State::Ejected; 2]);
    let start = Instant::now();
    let mut probe = balancer.pick(&[]).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    assert!(probe.decides());
    probe.classified(Outcome::Success, None);
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_is_taken_back_when_the_others_go() {
    let balancer = balancer(breaking(1, 1), &[(1, 10_000), (2, 10_000), (3, 10_000)]);
    round(&balancer, &[1]);
    assert_eq!(states(&balancer)[0], State::Ejected);
    balancer.update(&set(&[(1, 10_000), (2, 10_000)]), |e| e.addr);
    assert_eq!(states(&balancer), [State::Ejected, State::Ready]);
    balancer.pick_now(&[addr(1)]).unwrap().unreachable();
    assert_eq!(states(&balancer), [State::Ready, State::Unreachable]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_may_ask_to_be_left_alone_for_longer() {
    let balancer = balancer(breaking(1, 1), &[(1, 10_000), (2, 10_000)]);
    let mut picked = balancer.pick_now(&[addr(2)]).unwrap();
    picked.classified(Outcome::Failure, Some(Duration::from_secs(30)));
    assert_eq!(balancer.status()[0].retry_in, Some(Duration::from_secs(30)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However endpoints fail, come, go and recover, ejection leaves as many ready as the policy wants, or all that can
    /// be reached.
    #[test]
    fn ejection_leaves_enough(min_ready in 0_usize..4, ops in proptest::collection::vec((0_u8..5, 0_u8..6), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let balancer = balancer(breaking(1, min_ready), &[(0, 1), (1, 1), (2, 1), (3, 1)]);
            for (op, n) in ops {
                let picked = balancer.pick_now(&[]);
                match (op, picked) {
                    (0 | 1, Some(mut picked)) => picked.classified(Outcome::Failure, None),
                    (2, Some(mut picked)) => { picked.reached(); picked.classified(Outcome::Success, None); }
                    (3, Some(mut picked)) => picked.unreachable(),
                    _ => balancer.update(&set(&(0..=n).map(|n| (n, 1)).collect::<Vec<_>>()), |e| e.addr),
                }
                tokio::time::advance(Duration::from_millis(u64::from(n) * 300)).await;
                let states = states(&balancer);
                let of = |state| states.iter().filter(|s| **s == state).count();
                prop_assert!(of(State::Ready) >= min_ready || of(State::Ejected) == 0, "{states:?}");
            }
            Ok(())
        })?;
    }

    /// Whatever the weights, only known endpoints are picked, and those of weight zero only when no other is usable.
    #[test]
    fn picks_are_members(weights in proptest::collection::vec(0_u32..3, 1..6), avoid in 0_u8..6) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let weights: Vec<_> = (0_u8..).zip(weights).collect();
            let balancer = balancer(params(), &weights);
            for _ in 0..20 {
                let picked = balancer.pick_now(&[addr(avoid)]).unwrap();
                let weight = weights.iter().find(|(n, _)| addr(*n) == picked.addr()).map(|(_, w)| *w);
                prop_assert!(weight.is_some());
                let other = weights.iter().any(|(n, w)| *n != avoid && *w > 0);
                prop_assert!(!other || (weight != Some(0) && picked.addr() != addr(avoid)));
            }
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_goes_elsewhere() {
    let balancer = balancer(params(), &[(1, 10_000), (2, 10_000)]);
    for _ in 0..20 {
        assert_eq!(balancer.pick(&[addr(1)]).await.unwrap().addr(), addr(2));
    }
    balancer.update(&set(&[(1, 10_000)]), |e| e.addr);
    assert_eq!(balancer.pick(&[addr(1)]).await.unwrap().addr(), addr(1));
}

#[tokio::test(start_paused = true)]
async fn a_new_weight_keeps_the_endpoint() {
    let balancer = balancer(params(), &[(1, 10_000)]);
    balancer.update(&set(&[(1, 20_000)]), |_| unreachable!("made again"));
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_follow_a_successful_probe_at_once() {
    let balancer = Arc::new(balancer(params(), &[(1, 10_000)]));
    let mut failed = balancer.pick(&[]).await.unwrap();
    failed.unreachable();
    drop(failed);
    let mut probe = balancer.pick(&[]).await.unwrap();
    assert!(probe.is_probe());
    let start = Instant::now();
    let waiting = tokio::spawn({
        let balancer = balancer.clone();
        async move { balancer.pick(&[]).await.map(|p| p.is_probe()) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    probe.reached();
    assert!(!waiting.await.unwrap().unwrap());
    assert_eq!(start.elapsed(), Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_leaves_the_next_one_to_others() {
    let balancer = balancer(params(), &[(1, 10_000)]);
    let mut failed = balancer.pick(&[]).await.unwrap();
    failed.unreachable();
    drop(failed);
    drop(balancer.pick(&[]).await.unwrap());
    assert!(balancer.pick(&[]).await.unwrap().is_probe());
}
