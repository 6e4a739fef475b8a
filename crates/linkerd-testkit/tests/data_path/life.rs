use crate::rig::{Rig, SERVICE, Server, count, get};
use linkerd_testkit::messages;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_request_that_no_server_saw_goes_to_another_endpoint() {
    let rig = Rig::new(1).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoints = vec![messages::endpoint(dead), rig.servers[0].endpoint()];
    rig.plane
        .services
        .endpoints
        .set(SERVICE, messages::add(endpoints));
    let mut client = rig.http1().await;
    for _ in 0..50 {
        assert_eq!(client.ask(get("/status/200")).await.status, 200);
    }
    assert_eq!(
        count(&rig.client, "response_total", &["classification=\"success\""]).await,
        50
    );
    assert_eq!(count(&rig.client, "request_total", &[]).await, 50);
}

#[tokio::test]
async fn an_application_that_is_gone_is_told_by_its_cause() {
    let mut rig = Rig::new(1).await;
    let Server { proxy, app } = rig.servers.remove(0);
    let mut client = rig.http1().await;
    assert_eq!(client.ask(get("/status/200")).await.status, 200);
    drop(app);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = client.ask(get("/status/200")).await;
    assert_eq!(answer.status, 502);
    let error = answer.headers["l5d-proxy-error"].to_str().unwrap().to_owned();
    assert!(error.starts_with("connect-refused: "), "{error}");
    // It is asked again with growing pauses until the request is given up; both sides count each time.
    let refused = ["classification=\"failure\"", "status_code=\"502\""];
    let asked = count(&rig.client, "response_total", &refused).await;
    assert!((2..=6).contains(&asked), "{asked}");
    assert_eq!(count(&proxy, "response_total", &refused).await, asked);
}

#[tokio::test]
async fn a_request_waits_for_an_application_that_comes_back() {
    let mut rig = Rig::new(1).await;
    let Server { proxy: _proxy, app } = rig.servers.remove(0);
    let addr = app.addr;
    let mut client = rig.http1().await;
    assert_eq!(client.ask(get("/status/200")).await.status, 200);
    drop(app);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let back = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        crate::rig::App::start_at(addr).await
    });
    assert_eq!(client.ask(get("/status/200")).await.status, 200);
    back.await.unwrap();
}

#[tokio::test]
async fn an_application_that_is_gone_is_survived_with_a_second_endpoint() {
    let mut rig = Rig::new(2).await;
    let mut client = rig.http1().await;
    for _ in 0..20 {
        assert_eq!(client.ask(get("/status/200")).await.status, 200);
    }
    let Server { proxy: _proxy, app } = rig.servers.remove(0);
    drop(app);
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..50 {
        assert_eq!(client.ask(get("/status/200")).await.status, 200);
    }
}

#[tokio::test]
async fn a_service_without_endpoints_fails_fast() {
    let rig = Rig::with(0, &[("OUTBOUND_HTTP_FAILFAST_TIMEOUT", "300ms")]).await;
    rig.plane
        .services
        .endpoints
        .set(SERVICE, messages::no_endpoints(true));
    let mut client = rig.http1().await;
    let answer = client.ask(get("/status/200")).await;
    assert_eq!(answer.status, 504);
    assert!(
        answer.headers["l5d-proxy-error"]
            .to_str()
            .unwrap()
            .starts_with("failfast: ")
    );
    let start = Instant::now();
    assert_eq!(client.ask(get("/status/200")).await.status, 504);
    assert!(start.elapsed() < Duration::from_millis(200));
    let labels = [
        "dst_service=\"web\"",
        "dst_namespace=\"test\"",
        "status_code=\"504\"",
        "error=\"failfast\"",
    ];
    assert_eq!(count(&rig.client, "response_total", &labels).await, 2);
}

#[tokio::test]
async fn a_removed_endpoint_gets_no_new_request() {
    let rig = Rig::new(2).await;
    let mut client = rig.http1().await;
    for _ in 0..20 {
        client.ask(get("/status/200")).await;
    }
    let gone = &rig.servers[0];
    rig.plane
        .services
        .endpoints
        .set(SERVICE, messages::remove(&[gone.app.addr]));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = count(&gone.proxy, "request_total", &[]).await;
    for _ in 0..50 {
        assert_eq!(client.ask(get("/status/200")).await.status, 200);
    }
    assert_eq!(count(&gone.proxy, "request_total", &[]).await, before);
}

#[tokio::test]
async fn the_control_plane_may_be_gone_for_as_long_as_it_likes() {
    let Rig {
        plane,
        client,
        servers,
    } = Rig::with(1, &[("OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "50ms")]).await;
    let ask = async || {
        let mut connection = crate::rig::Http1::connect(client.bound.outbound).await;
        connection.ask(get("/status/200")).await.status
    };
    assert_eq!(ask().await, 200);
    let (place, services) = plane.stop().await;
    // Many times longer than what is unused is usually remembered.
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(ask().await, 200);
    // Once it is back, what it says counts.
    services.endpoints.set(
        SERVICE,
        messages::add(vec![messages::endpoint(servers[0].app.addr)]),
    );
    let _plane = linkerd_testkit::ControlPlane::start_at(place, services).await;
    let start = Instant::now();
    while count(&client, "request_total", &["tls=\"no_identity\""]).await == 0 {
        assert_eq!(ask().await, 200);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_rolling_restart_fails_no_request() {
    let mut rig = Rig::new(2).await;
    let mut clients = tokio::task::JoinSet::new();
    let until = Instant::now() + Duration::from_secs(3);
    for n in 0..8 {
        let (mut one, mut two) = (rig.http1().await, rig.http2().await);
        clients.spawn(async move {
            let mut sent = 0;
            while Instant::now() < until {
                let answer = if n % 2 == 0 {
                    one.ask(get("/status/200")).await
                } else {
                    two.ask(get("/status/200")).await
                };
                assert_eq!(answer.status, 200, "{:?}", answer.headers);
                sent += 1;
            }
            sent
        });
    }
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let fresh = Server::new(&rig.plane).await;
        rig.plane
            .services
            .endpoints
            .set(SERVICE, messages::add(vec![fresh.endpoint()]));
        rig.servers.push(fresh);
        tokio::time::sleep(Duration::from_millis(100)).await;
        // The endpoint leaves discovery, then its proxy drains; its application stays as long as the proxy.
        let Server { proxy, app } = rig.servers.remove(0);
        rig.plane
            .services
            .endpoints
            .set(SERVICE, messages::remove(&[app.addr]));
        proxy.stopped().await;
        drop(app);
    }
    let mut sent = 0;
    while let Some(result) = clients.join_next().await {
        sent += result.unwrap();
    }
    assert_eq!(
        count(
            &rig.client,
            "response_total",
            &["direction=\"outbound\"", "classification=\"success\""]
        )
        .await,
        sent
    );
}

#[tokio::test]
async fn an_application_that_is_not_there_is_seldom_asked() {
    let mut rig = Rig::new(2).await;
    let Server { proxy, app } = rig.servers.remove(0);
    drop(app);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut client = rig.http1().await;
    for _ in 0..200 {
        assert_eq!(client.ask(get("/status/200")).await.status, 200);
    }
    let refused = count(&proxy, "response_total", &["status_code=\"502\""]).await;
    assert!(refused <= 5, "{refused}");
}
