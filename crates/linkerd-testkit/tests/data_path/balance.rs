use crate::rig::{Rig, SERVICE, SERVICE_IP, Server, count, get};
use linkerd_proto::outbound::{EjectionConfig, FailureAccrual};
use linkerd_testkit::messages;

/// How many of 40 requests each server gets.
async fn shares(rig: &Rig, path: &str) -> Vec<u64> {
    let mut client = rig.http1().await;
    let mut before = Vec::new();
    for server in &rig.servers {
        before.push(count(&server.proxy, "request_total", &[]).await);
    }
    for _ in 0..40 {
        client.ask(get(path)).await;
    }
    let mut shares = Vec::new();
    for (server, before) in rig.servers.iter().zip(before) {
        shares.push(count(&server.proxy, "request_total", &[]).await - before);
    }
    shares
}

/// How many of 800 requests the first server gets.
async fn failures(rig: &Rig) -> u64 {
    let mut all = 0;
    for _ in 0..20 {
        all += shares(rig, "/broken").await[0];
    }
    all
}

/// Servers of which the first answers `/broken` with 503.
fn with_a_broken_server(rig: Rig, accrual: FailureAccrual) -> Rig {
    rig.servers[0].app.fails(usize::MAX);
    let policy = messages::breaking(messages::balanced(SERVICE), accrual);
    rig.plane.services.outbound.set(SERVICE_IP, policy);
    rig
}

#[tokio::test]
async fn an_endpoint_that_fails_is_left_out() {
    let rig = with_a_broken_server(Rig::new(2).await, messages::consecutive_failures(3));
    assert!(failures(&rig).await <= 3);
}

#[tokio::test]
async fn an_endpoint_of_a_profile_that_fails_is_left_out() {
    let profile = messages::profile("web.test.svc.cluster.local");
    let routed = linkerd_proto::destination::DestinationProfile {
        dst_overrides: vec![linkerd_proto::destination::WeightedDst {
            authority: SERVICE.into(),
            weight: 1,
            backend_ref: None,
        }],
        ..profile
    };
    let rig = Rig::with_profile(2, Some(routed)).await;
    let rig = with_a_broken_server(rig, messages::consecutive_failures(3));
    assert!(failures(&rig).await <= 3);
}

#[tokio::test]
async fn the_last_endpoint_stays_unless_the_policy_gives_it_up() {
    let rig = with_a_broken_server(Rig::new(1).await, messages::consecutive_failures(2));
    assert_eq!(shares(&rig, "/broken").await, [40]);
    let given_up = FailureAccrual {
        ejection: Some(EjectionConfig {
            min_ready_endpoints: 0,
        }),
        ..messages::consecutive_failures(2)
    };
    let env = [("OUTBOUND_HTTP_FAILFAST_TIMEOUT", "100ms")];
    let rig = with_a_broken_server(Rig::with(1, &env).await, given_up);
    assert_eq!(failures(&rig).await, 2);
    let answer = rig.http1().await.ask(get("/broken")).await;
    let error = answer.headers["l5d-proxy-error"].to_str().unwrap();
    assert!(
        error.ends_with("of 1 endpoints 0 unreachable, 1 ejected"),
        "{error}"
    );
}

#[tokio::test]
async fn weights_are_honoured() {
    let rig = Rig::new(2).await;
    let mut endpoints: Vec<_> = rig.servers.iter().map(Server::endpoint).collect();
    endpoints[0].weight = 1;
    rig.plane
        .services
        .endpoints
        .set(SERVICE, messages::add(endpoints));
    let mut light = u64::MAX;
    for _ in 0..20 {
        light = light.min(shares(&rig, "/status/200").await[0]);
    }
    assert!(light <= 1, "{light}");
}
