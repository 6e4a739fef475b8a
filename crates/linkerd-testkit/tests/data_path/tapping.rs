//! Asking a proxy for its tap.

use crate::rig::{CLIENT_ID, Rig, SERVER_ID};
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkerd_policy::{Id, endpoint::EndpointTls};
use linkerd_proto::tap::{
    Filter, ObserveRequest, TapEvent,
    observe_request::{Match, r#match as pb},
    tap_client::TapClient,
};
use linkerd_testkit::Proxy;
use tokio::net::TcpStream;
use tonic::{Status, Streaming};

pub const TAPPER: &str = "tap.linkerd-viz.serviceaccount.identity.linkerd.cluster.local";

/// Asks a proxy for its tap as `caller`.
pub async fn observe(
    rig: &Rig,
    proxy: &Proxy,
    caller: &str,
    request: ObserveRequest,
) -> Result<Streaming<TapEvent>, Status> {
    let name = if std::ptr::eq(proxy, &raw const rig.client) {
        CLIENT_ID
    } else {
        SERVER_ID
    };
    let server = EndpointTls {
        server_id: Id::dns(name).unwrap(),
        server_name: name.into(),
    };
    let io = TcpStream::connect(proxy.bound.tap.unwrap()).await.unwrap();
    let (io, _) = rig
        .plane
        .services
        .ca
        .peer(caller)
        .connect(io, &server, false)
        .await
        .unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(connection);
    let service = tower_service_from(sender);
    let mut client = TapClient::with_origin(service, "http://proxy".parse().unwrap());
    client.observe(request).await.map(tonic::Response::into_inner)
}

#[derive(Clone)]
struct Sender(hyper::client::conn::http2::SendRequest<tonic::body::Body>);

fn tower_service_from(sender: hyper::client::conn::http2::SendRequest<tonic::body::Body>) -> Sender {
    Sender(sender)
}

impl tower_service::Service<::http::Request<tonic::body::Body>> for Sender {
    type Response = ::http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: ::http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

pub fn everything(limit: u32, filter: Option<Filter>) -> ObserveRequest {
    let all = pb::Match::All(pb::Seq { matches: Vec::new() });
    ObserveRequest {
        limit,
        r#match: Some(Match { r#match: Some(all) }),
        filter,
        ..ObserveRequest::default()
    }
}
