//! A whole proxy: its certificate, its admin server, its end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use linkerd_testkit::{Ca, ControlPlane, ProxyBuilder, messages};
use std::{collections::HashSet, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time,
};
use tonic::Status;

async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..200 {
        if holds().await {
            return;
        }
        time::sleep(Duration::from_millis(25)).await;
    }
    assert!(holds().await, "not in time");
}

#[tokio::test]
async fn it_is_ready_once_certified_and_not_before() {
    let plane = ControlPlane::start().await;
    plane.services.identity.lock().refuse = Some(Status::unavailable("no issuer yet"));
    let proxy = ProxyBuilder::new("a.test", &plane).start();
    eventually(async || !plane.services.identity.lock().requests.is_empty()).await;
    assert!(proxy.admin("/ready").await.unwrap().starts_with("HTTP/1.1 503"));
    assert!(proxy.admin("/live").await.unwrap().ends_with("live\n"));
    plane.services.identity.lock().refuse = None;
    proxy.ready().await;
    let written = std::fs::read_to_string(proxy.directory().join("certificate.crt")).unwrap();
    assert!(written.starts_with("-----BEGIN CERTIFICATE-----\n"));
    proxy.stopped().await;
}

#[tokio::test]
async fn each_renewal_has_a_new_key() {
    let plane = ControlPlane::start().await;
    plane.services.identity.lock().lifetime = Some(Duration::from_secs(1));
    let proxy = ProxyBuilder::new("a.test", &plane)
        .env("IDENTITY_MIN_REFRESH", "50ms")
        .start();
    eventually(async || plane.services.identity.lock().requests.len() >= 3).await;
    let requests = plane.services.identity.lock().requests.clone();
    let keys: HashSet<_> = requests
        .iter()
        .map(|request| &request.certificate_signing_request)
        .collect();
    assert_eq!(keys.len(), requests.len());
    assert!(
        requests
            .iter()
            .all(|request| request.identity == "a.test" && request.token == b"token")
    );
    proxy.stopped().await;
}

#[tokio::test]
async fn anchors_that_the_service_of_identity_tells_are_trusted() {
    let plane = ControlPlane::start().await;
    let both = format!("{}{}", plane.services.ca.pem(), Ca::new().pem());
    plane.services.identity.lock().anchors = Some(both);
    let proxy = ProxyBuilder::new("a.test", &plane).start();
    proxy.ready().await;
    // A service that tells anchors which do not verify its own certificate is not believed.
    let other = ControlPlane::start().await;
    other.services.identity.lock().anchors = Some(Ca::new().pem().into());
    let unready = ProxyBuilder::new("a.test", &other).start();
    eventually(async || other.services.identity.lock().requests.len() >= 2).await;
    assert!(unready.admin("/ready").await.unwrap().starts_with("HTTP/1.1 503"));
    // Nor remembered.
    other.services.identity.lock().anchors = None;
    unready.ready().await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_noticed_and_replaced() {
    let plane = ControlPlane::start().await;
    plane.services.identity.lock().lifetime = Some(Duration::from_secs(1));
    let proxy = ProxyBuilder::new("a.test", &plane)
        .env("IDENTITY_MIN_REFRESH", "50ms")
        .start();
    proxy.ready().await;
    plane.services.identity.lock().refuse = Some(Status::unavailable("the issuer is away"));
    eventually(async || proxy.admin("/ready").await.unwrap().starts_with("HTTP/1.1 503")).await;
    plane.services.identity.lock().refuse = None;
    proxy.ready().await;
}

#[tokio::test]
async fn a_token_that_changes_is_read_again() {
    let plane = ControlPlane::start().await;
    plane.services.identity.lock().lifetime = Some(Duration::from_secs(1));
    let proxy = ProxyBuilder::new("a.test", &plane)
        .env("IDENTITY_MIN_REFRESH", "50ms")
        .start();
    proxy.ready().await;
    std::fs::write(proxy.directory().join("token"), "another").unwrap();
    let shown = || {
        plane
            .services
            .identity
            .lock()
            .requests
            .last()
            .map(|request| request.token.clone())
    };
    eventually(async || shown().as_deref() == Some(b"another")).await;
}

#[tokio::test]
async fn the_admin_server_answers() {
    let plane = ControlPlane::start().await;
    let proxy = ProxyBuilder::new("a.test", &plane).start();
    proxy.ready().await;
    let metrics = proxy.admin("/metrics").await.unwrap();
    for family in [
        "process_start_time_seconds",
        "control_identity_cert_expiration_timestamp_seconds",
        "proxy_build_info",
    ] {
        assert!(metrics.contains(family), "{family}");
    }
    assert!(metrics.ends_with("# EOF\n"));
    let environment = proxy
        .admin("/env.json?LINKERD2_PROXY_IDENTITY_LOCAL_NAME")
        .await
        .unwrap();
    assert!(
        environment.ends_with(r#"{"LINKERD2_PROXY_IDENTITY_LOCAL_NAME":"a.test"}"#),
        "{environment}"
    );
    assert!(
        proxy
            .admin("/discovery.json")
            .await
            .unwrap()
            .contains(r#""certified":true"#)
    );
    assert!(proxy.admin("/nothing").await.unwrap().starts_with("HTTP/1.1 404"));
    let shutdown = proxy
        .admin_raw("POST /shutdown HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(shutdown.contains("shutdown endpoint is not enabled"));
}

#[tokio::test]
async fn the_admin_port_has_a_policy() {
    let plane = ControlPlane::start().await;
    let proxy = ProxyBuilder::new("a.test", &plane).start();
    proxy.ready().await;
    let nobody = messages::server(
        messages::inbound_detect(),
        vec![messages::identities(&["b.test"])],
    );
    plane
        .services
        .inbound
        .set(proxy.bound.admin.port().to_string(), nobody);
    eventually(async || proxy.admin("/live").await.unwrap().starts_with("HTTP/1.1 403")).await;
}

#[tokio::test]
async fn it_ends_when_asked_by_the_admin_server() {
    let plane = ControlPlane::start().await;
    let proxy = ProxyBuilder::new("a.test", &plane)
        .env("SHUTDOWN_ENDPOINT_ENABLED", "true")
        .start();
    proxy.ready().await;
    proxy
        .admin_raw("POST /shutdown HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let outbound = proxy.bound.outbound;
    proxy.ended().await;
    assert!(TcpStream::connect(outbound).await.is_err());
}

#[tokio::test]
async fn the_application_can_ask_others_while_its_requests_are_drained() {
    let plane = ControlPlane::start().await;
    let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = application.local_addr().unwrap();
    let mut proxy = ProxyBuilder::new("a.test", &plane)
        .inbound_to(addr)
        .outbound_to(addr)
        .start();
    proxy.ready().await;
    let mut request = TcpStream::connect(proxy.bound.inbound).await.unwrap();
    request
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let (mut taken, _) = application.accept().await.unwrap();
    proxy.drain();
    // Longer than a door without visitors stays open.
    time::sleep(Duration::from_millis(1500)).await;
    TcpStream::connect(proxy.bound.outbound).await.unwrap();
    taken
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await
        .unwrap();
    let mut answer = String::new();
    request.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
    proxy.ended().await;
}
