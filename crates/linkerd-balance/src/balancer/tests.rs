use super::*;
use std::collections::BTreeMap;

type Set = BTreeMap<SocketAddr, Arc<Endpoint>>;

fn params() -> Params {
    Params {
        failfast: Duration::from_secs(3),
        queue: 10,
        load: client::Load::default(),
        accrual: FailureAccrual::None,
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

#[tokio::test(start_paused = true)]
async fn a_breaker_ejects_and_probes() {
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 0.0).unwrap();
    let accrual = FailureAccrual::ConsecutiveFailures {
        max_failures: 2,
        backoff,
    };
    let balancer = balancer(Params { accrual, ..params() }, &[(1, 10_000), (2, 10_000)]);
    for _ in 0..40 {
        let mut picked = balancer.pick(&[]).await.unwrap();
        picked.answered(Duration::from_millis(1));
        let good = picked.addr() == addr(2);
        picked.classified(good);
    }
    assert_eq!(shares(&balancer, 20).await, HashMap::from([(addr(2), 20)]));
    tokio::time::sleep(Duration::from_millis(1_001)).await;
    assert_eq!(shares(&balancer, 40).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_endpoint_is_not_ejected() {
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 0.0).unwrap();
    let accrual = FailureAccrual::ConsecutiveFailures {
        max_failures: 1,
        backoff,
    };
    let balancer = balancer(Params { accrual, ..params() }, &[(1, 10_000)]);
    for _ in 0..5 {
        let mut picked = balancer.pick(&[]).await.unwrap();
        picked.classified(false);
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
