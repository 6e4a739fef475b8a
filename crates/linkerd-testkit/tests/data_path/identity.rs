//! Certificates that change under traffic.

use crate::rig::{Rig, SERVER_ID, SERVICE, count, echo, get, until_counted};
use linkerd_testkit::{Proxy, messages};
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    task::JoinSet,
};

/// Both proxies get a new certificate about every half second.
const FAST: [(&str, &str); 2] = [
    ("IDENTITY_MIN_REFRESH", "500ms"),
    ("IDENTITY_MAX_REFRESH", "500ms"),
];
const ROTATIONS: u64 = 5;

async fn rotations(proxy: &Proxy) -> u64 {
    count(proxy, "control_identity_cert_refreshes_total", &["result=\"ok\""]).await
}

/// Whether both proxies have rotated often enough; `until` bounds the wait.
async fn rotated(rig: &Rig, until: Instant) {
    for proxy in [&rig.client, &rig.servers[0].proxy] {
        while rotations(proxy).await <= ROTATIONS {
            assert!(Instant::now() < until, "certificates do not rotate");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_rotation_fails_no_request() {
    let rig = Rig::with_env(1, &FAST).await;
    let outbound = rig.client.bound.outbound;
    let (done, ended) = tokio::sync::watch::channel(false);
    let mut clients = JoinSet::new();
    for n in 0..4 {
        let ended = ended.clone();
        clients.spawn(async move {
            let mut sent = 0;
            while !*ended.borrow() {
                // A connection of the application for some requests, then another.
                let mut one = crate::rig::Http1::connect(outbound).await;
                let mut two = crate::rig::Http2::connect(outbound).await;
                for _ in 0..20 {
                    let answer = match n % 2 {
                        0 => one.ask(get("/status/200")).await,
                        _ => two.ask(get("/status/200")).await,
                    };
                    assert_eq!(answer.status, 200, "{:?}", answer.headers);
                    sent += 1;
                }
            }
            sent
        });
    }
    rotated(&rig, Instant::now() + Duration::from_secs(60)).await;
    done.send_replace(true);
    let sent: u64 = clients.join_all().await.into_iter().sum();
    assert!(sent > 100, "{sent}");
    let succeeded = ["direction=\"outbound\"", "classification=\"success\""];
    until_counted(&rig.client, "response_total", &succeeded, sent).await;
}

#[tokio::test]
async fn a_rotation_breaks_no_stream_of_bytes() {
    let rig = Rig::with_env(1, &FAST).await;
    let (addr, _tasks) = echo("").await;
    let endpoint = messages::meshed_endpoint(addr, SERVER_ID, rig.servers[0].proxy.bound.inbound.port());
    rig.plane
        .services
        .endpoints
        .set(SERVICE, messages::add(vec![endpoint]));
    let mut old = rig.tcp().await;
    let until = Instant::now() + Duration::from_secs(60);
    while rotations(&rig.client)
        .await
        .min(rotations(&rig.servers[0].proxy).await)
        <= ROTATIONS
    {
        assert!(Instant::now() < until, "certificates do not rotate");
        for io in [&mut old, &mut rig.tcp().await] {
            io.write_all(b"\0hello").await.unwrap();
            let mut heard = [0; 6];
            io.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"\0hello");
        }
    }
}
