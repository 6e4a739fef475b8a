//! The paths that bytes can take through proxies.

use linkerd_policy::endpoint::EndpointTls;
use linkerd_proto::{inbound, outbound};
use linkerd_testkit::{ControlPlane, Proxy, ProxyBuilder, messages};
use linkerd_transport::{SessionProtocol, TransportHeader};
use std::{net::SocketAddr, num::NonZeroU16};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

pub(crate) const SERVICE: &str = "web.test.svc.cluster.local:80";
pub(crate) const SERVICE_IP: &str = "10.1.2.3:80";
pub(crate) const SERVER_ID: &str = "web.test.serviceaccount.identity.linkerd.cluster.local";
pub(crate) const CLIENT_ID: &str = "client.test.serviceaccount.identity.linkerd.cluster.local";

/// Proxies in front of an application.
pub(crate) struct Path {
    /// Where a client connects to.
    pub(crate) addr: SocketAddr,
    _proxies: Vec<Proxy>,
    _plane: ControlPlane,
    _tasks: JoinSet<()>,
}

/// client → inbound → application, whatever the client speaks
pub(crate) async fn inbound(app: SocketAddr) -> Path {
    inbound_with(app, None).await
}

/// client → inbound → application, on a port that the control plane knows more about
pub(crate) async fn inbound_with(app: SocketAddr, policy: Option<inbound::Server>) -> Path {
    let plane = ControlPlane::start().await;
    if let Some(policy) = policy {
        plane.services.inbound.set(app.port().to_string(), policy);
    }
    let proxy = ProxyBuilder::new(SERVER_ID, &plane).inbound_to(app).start();
    proxy.ready().await;
    Path {
        addr: proxy.bound.inbound,
        _proxies: vec![proxy],
        _plane: plane,
        _tasks: JoinSet::new(),
    }
}

/// client → outbound ⇒ mTLS, HTTP/2 ⇒ inbound → application
pub(crate) async fn meshed(app: SocketAddr) -> Path {
    meshed_with(app, messages::balanced(SERVICE)).await
}

pub(crate) async fn meshed_with(app: SocketAddr, policy: outbound::OutboundPolicy) -> Path {
    let plane = ControlPlane::start().await;
    let server = ProxyBuilder::new(SERVER_ID, &plane).start();
    server.ready().await;
    let services = &plane.services;
    services.outbound.set(SERVICE_IP, policy);
    let endpoint = messages::meshed_endpoint(app, SERVER_ID, server.bound.inbound.port());
    services.endpoints.set(SERVICE, messages::add(vec![endpoint]));
    let client = ProxyBuilder::new(CLIENT_ID, &plane)
        .outbound_to(SERVICE_IP.parse().unwrap())
        .start();
    client.ready().await;
    Path {
        addr: client.bound.outbound,
        _proxies: vec![client, server],
        _plane: plane,
        _tasks: JoinSet::new(),
    }
}

/// A port of HTTP/1 only, so that no bytes pass for another protocol's.
pub(crate) fn inbound_http1() -> inbound::Server {
    let http1 = inbound::proxy_protocol::Http1 {
        routes: vec![messages::inbound_route()],
        local_rate_limit: None,
    };
    let kind = inbound::proxy_protocol::Kind::Http1(http1);
    messages::server(kind, vec![messages::all_unauthenticated()])
}

/// The same for a service.
pub(crate) fn outbound_http1() -> outbound::OutboundPolicy {
    use outbound::proxy_protocol::{Http1, Kind};
    let http1 = Http1 {
        routes: vec![messages::outbound_route(messages::balancer(SERVICE))],
        failure_accrual: None,
    };
    outbound::OutboundPolicy {
        protocol: Some(outbound::ProxyProtocol {
            kind: Some(Kind::Http1(http1)),
        }),
        ..messages::balanced(SERVICE)
    }
}

/// client → outbound → application
pub(crate) async fn unmeshed(app: SocketAddr, policy: outbound::OutboundPolicy) -> Path {
    let plane = ControlPlane::start().await;
    let services = &plane.services;
    services.outbound.set(SERVICE_IP, policy);
    services
        .endpoints
        .set(SERVICE, messages::add(vec![messages::endpoint(app)]));
    let proxy = ProxyBuilder::new(CLIENT_ID, &plane)
        .outbound_to(SERVICE_IP.parse().unwrap())
        .start();
    proxy.ready().await;
    Path {
        addr: proxy.bound.outbound,
        _proxies: vec![proxy],
        _plane: plane,
        _tasks: JoinSet::new(),
    }
}

/// client → bridge ⇒ mTLS, transport header ⇒ inbound → application
pub(crate) async fn direct(app: SocketAddr) -> Path {
    let plane = ControlPlane::start().await;
    let proxy = ProxyBuilder::new(SERVER_ID, &plane).start();
    proxy.ready().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (inbound, peer) = (proxy.bound.inbound, plane.services.ca.peer(CLIENT_ID));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            connections.spawn(bridge(client, inbound, peer.clone(), app.port()));
        }
    });
    Path {
        addr,
        _proxies: vec![proxy],
        _plane: plane,
        _tasks: tasks,
    }
}

/// Carries clear text to a proxy's direct listener, as another proxy would.
async fn bridge(mut client: TcpStream, inbound: SocketAddr, peer: linkerd_tls::Credentials, port: u16) {
    let io = TcpStream::connect(inbound).await.unwrap();
    io.set_nodelay(true).unwrap();
    client.set_nodelay(true).unwrap();
    let server = EndpointTls {
        server_id: SERVER_ID.parse().unwrap(),
        server_name: SERVER_ID.into(),
    };
    let (mut proxy, agreed) = peer.connect(io, &server, true).await.unwrap();
    assert!(agreed, "the direct listener takes a transport header");
    let header = TransportHeader {
        port: NonZeroU16::new(port).unwrap(),
        name: None,
        protocol: Some(SessionProtocol::Http2),
    };
    proxy.write_all(&header.encode()).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut proxy).await;
}
