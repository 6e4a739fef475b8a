use crate::rig::{Rig, SERVER_ID, SERVICE, count, echo};
use linkerd_testkit::messages;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn rig_to(greeting: &'static str) -> (Rig, tokio::task::JoinSet<()>) {
    let rig = Rig::new(1).await;
    let (addr, tasks) = echo(greeting).await;
    let endpoint = messages::meshed_endpoint(addr, SERVER_ID, rig.servers[0].proxy.bound.inbound.port());
    rig.plane
        .services
        .endpoints
        .set(SERVICE, messages::add(vec![endpoint]));
    (rig, tasks)
}

#[tokio::test]
async fn a_connection_goes_to_another_backend_before_it_is_established() {
    use linkerd_proto::outbound::opaque_route::{Distribution, RouteBackend, distribution};
    let rig = Rig::with(1, &[("OUTBOUND_HTTP_FAILFAST_TIMEOUT", "100ms")]).await;
    let (addr, _server) = echo("").await;
    let (gone, there) = ("gone.test.svc.cluster.local:80", SERVICE);
    let endpoints = |addr| messages::add(vec![messages::endpoint(addr)]);
    let dead = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    rig.plane.services.endpoints.set(gone, endpoints(dead));
    rig.plane.services.endpoints.set(there, endpoints(addr));
    let backends = [gone, there].map(|authority| RouteBackend {
        backend: Some(messages::balancer(authority)),
        filters: Vec::new(),
    });
    let first = distribution::FirstAvailable {
        backends: backends.into(),
    };
    let mut route = messages::opaque_route(messages::balancer(gone));
    route.rules[0].backends = Some(Distribution {
        kind: Some(distribution::Kind::FirstAvailable(first)),
    });
    let opaque = linkerd_proto::outbound::proxy_protocol::Opaque { routes: vec![route] };
    let mut policy = messages::balanced(gone);
    policy.protocol.as_mut().unwrap().kind =
        Some(linkerd_proto::outbound::proxy_protocol::Kind::Opaque(opaque));
    rig.plane.services.outbound.set(crate::rig::SERVICE_IP, policy);
    for _ in 0..3 {
        let mut io = rig.tcp().await;
        io.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        io.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }
}

#[tokio::test]
async fn bytes_that_are_not_http_pass_unchanged() {
    let (rig, _server) = rig_to("").await;
    let mut io = rig.tcp().await;
    io.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    let mut heard = [0; 14];
    io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"*1\r\n$4\r\nPING\r\n");
    io.shutdown().await.unwrap();
    assert_eq!(io.read(&mut heard).await.unwrap(), 0);
    drop(io);
    for _ in 0..100 {
        if count(&rig.client, "tcp_close_total", &["peer=\"dst\""]).await == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sent = count(
        &rig.client,
        "tcp_write_bytes_total",
        &["peer=\"dst\"", "tls=\"true\""],
    )
    .await;
    let read = count(
        &rig.servers[0].proxy,
        "tcp_read_bytes_total",
        &["peer=\"src\"", "tls=\"true\""],
    )
    .await;
    assert_eq!((sent, read), (14, 14));
    assert_eq!(
        count(&rig.servers[0].proxy, "inbound_tcp_authz_allow_total", &[]).await,
        1
    );
}

#[tokio::test]
async fn a_server_that_speaks_first_is_not_kept_waiting() {
    let (rig, _server) = rig_to("220 mail ready\r\n").await;
    let mut fastest = Duration::MAX;
    // Other work on the machine can only make it slower.
    for _ in 0..10 {
        let start = Instant::now();
        let mut io = rig.tcp().await;
        let mut greeting = [0; 16];
        io.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 mail ready\r\n");
        fastest = fastest.min(start.elapsed());
        io.write_all(b"EHLO x\r\n").await.unwrap();
        let mut heard = [0; 8];
        io.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"EHLO x\r\n");
    }
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
}

#[tokio::test]
async fn a_client_that_thinks_before_it_speaks_http_is_http() {
    let short = [
        ("INBOUND_DETECT_TIMEOUT", "50ms"),
        ("OUTBOUND_DETECT_TIMEOUT", "50ms"),
    ];
    let rig = Rig::with_env(1, &short).await;
    let mut io = rig.tcp().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for part in [
        "GET /status/200 HT",
        "TP/1.1\r\nhost: we",
        "b\r\nconnection: close\r\n\r\n",
    ] {
        io.write_all(part.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(
        count(&rig.client, "response_total", &["classification=\"success\""]).await,
        1
    );
}

#[tokio::test]
async fn a_large_stream_passes_both_ways() {
    let (rig, _server) = rig_to("").await;
    let io = rig.tcp().await;
    let (mut read, mut write) = io.into_split();
    let sent: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 251) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut heard = Vec::new();
    read.read_to_end(&mut heard).await.unwrap();
    writer.await.unwrap();
    assert!(heard == expected);
}
