//! Connections of other proxies, which say themselves where they want to go.

use crate::rig::{App, Rig, SERVER_ID, count, get, until_counted};
use linkerd_policy::{Id, endpoint::EndpointTls};
use linkerd_testkit::{ControlPlane, Proxy, ProxyBuilder};
use linkerd_tls::{ClientStream, Credentials};
use linkerd_transport::TransportHeader;
use std::num::NonZeroU16;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

async fn proxy() -> (ControlPlane, Proxy) {
    let plane = ControlPlane::start().await;
    let proxy = ProxyBuilder::new(SERVER_ID, &plane).start();
    proxy.ready().await;
    (plane, proxy)
}

async fn connect(proxy: &Proxy, peer: &Credentials, with_header: bool) -> ClientStream<TcpStream> {
    let server = EndpointTls {
        server_id: Id::dns(SERVER_ID).unwrap(),
        server_name: SERVER_ID.into(),
    };
    let io = TcpStream::connect(proxy.bound.inbound).await.unwrap();
    peer.connect(io, &server, with_header).await.unwrap().0
}

/// What comes back on a connection with this header: nothing, when it is refused.
async fn heard(proxy: &Proxy, peer: &Credentials, port: u16, name: Option<&str>) -> usize {
    let header = TransportHeader {
        port: NonZeroU16::new(port).unwrap(),
        name: name.map(Into::into),
        protocol: None,
    };
    let mut io = connect(proxy, peer, true).await;
    io.write_all(&header.encode()).await.unwrap();
    io.write_all(b"\0").await.unwrap();
    io.read(&mut [0; 1]).await.unwrap_or_default()
}

#[tokio::test]
async fn a_proxy_is_no_gateway() {
    let (plane, proxy) = proxy().await;
    let peer = plane.services.ca.peer("peer.test");
    assert_eq!(
        heard(&proxy, &peer, 80, Some("web.ns.svc.cluster.local")).await,
        0
    );
    until_counted(
        &proxy,
        "inbound_tcp_errors_total",
        &["error=\"gateway-domain\""],
        1,
    )
    .await;
}

#[tokio::test]
async fn a_connection_to_the_proxy_itself_is_a_loop() {
    let (plane, proxy) = proxy().await;
    let peer = plane.services.ca.peer("peer.test");
    assert_eq!(heard(&proxy, &peer, proxy.bound.inbound.port(), None).await, 0);
    until_counted(&proxy, "inbound_tcp_errors_total", &["error=\"loop\""], 1).await;
}

#[tokio::test]
async fn a_header_is_required() {
    let (plane, proxy) = proxy().await;
    let peer = plane.services.ca.peer("peer.test");
    let mut io = connect(&proxy, &peer, false).await;
    assert_eq!(io.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    until_counted(&proxy, "inbound_tcp_errors_total", &["error=\"forbidden\""], 1).await;
}

#[tokio::test]
async fn a_scan_of_ports_leaves_neither_streams_nor_series_behind() {
    let (plane, proxy) = proxy().await;
    let peer = plane.services.ca.peer("peer.test");
    // Below those that the kernel gives to other tests' listeners.
    let ports = 20_001_u16..=20_050;
    for port in ports.clone() {
        assert_eq!(heard(&proxy, &peer, port, None).await, 0);
    }
    let other = ["error=\"connect-refused\"", "target_port=\"other\""];
    until_counted(&proxy, "inbound_tcp_errors_total", &other, 50).await;
    let metrics = proxy.admin("/metrics").await.unwrap();
    for port in ports {
        assert_eq!(plane.services.inbound.opened(&port.to_string()), 0);
        assert!(!metrics.contains(&format!("port=\"{port}\"")), "{metrics}");
    }
}

#[tokio::test]
async fn an_application_that_starts_late_is_found_by_the_connections_that_are_there() {
    let mut rig = Rig::with(1, &[("OUTBOUND_HTTP_FAILFAST_TIMEOUT", "300ms")]).await;
    let server = rig.servers.remove(0);
    let addr = server.app.addr;
    drop(server.app);
    let mut client = rig.http1().await;
    assert!(client.ask(get("/status/200")).await.status.is_server_error());
    assert_eq!(rig.plane.services.inbound.opened(&addr.port().to_string()), 0);
    let _app = App::start_at(addr).await;
    let mut answer = client.ask(get("/status/200")).await;
    for _ in 0..100 {
        if answer.status == 200 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        answer = client.ask(get("/status/200")).await;
    }
    assert_eq!(answer.status, 200);
    let port = format!("srv_port=\"{}\"", addr.port());
    assert_eq!(
        count(&server.proxy, "inbound_http_authz_allow_total", &[&port]).await,
        1
    );
}
