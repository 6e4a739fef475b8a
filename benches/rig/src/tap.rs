//! A tap of everything, renewed as often as its limit asks for, which bounds the events of a second.

use crate::{Outcome, say};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkerd_policy::{Id, endpoint::EndpointTls};
use linkerd_proto::tap::{ObserveRequest, observe_request, tap_client::TapClient};
use linkerd_testkit::Ca;
use serde::Deserialize;
use std::{
    error::Error,
    fs,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    time::{Instant, interval},
};
use tonic::body::Body;

#[derive(Debug, Deserialize)]
pub(crate) struct Options {
    /// Where `rig certificates` wrote.
    directory: PathBuf,
    addr: SocketAddr,
    /// Whose tap it is, and who asks for it.
    server_id: String,
    client_id: String,
    /// Requests that are shown in a second.
    rate: u32,
    seconds: f64,
}

/// Linkerd's controllers tap in the same way: a limit per second, asked for anew each second.
pub(crate) async fn run(options: Options) -> Outcome {
    let mut client = connect(&options).await?;
    let mut seconds = interval(SLICE);
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    let mut events = 0_u64;
    say("begin")?;
    while Instant::now() < end {
        seconds.tick().await;
        let mut stream = client
            .observe(everything(options.rate / SLICES))
            .await?
            .into_inner();
        while stream.message().await?.is_some() {
            events += 1;
        }
    }
    say(serde_json::json!({ "events": events }))?;
    Ok(())
}

fn everything(limit: u32) -> ObserveRequest {
    let all = observe_request::r#match::Match::All(observe_request::r#match::Seq { matches: Vec::new() });
    ObserveRequest {
        limit,
        r#match: Some(observe_request::Match { r#match: Some(all) }),
        ..ObserveRequest::default()
    }
}

async fn connect(options: &Options) -> Result<TapClient<Channel>, Box<dyn Error>> {
    let read = |name| fs::read_to_string(options.directory.join(name));
    let ca = Ca::from_pem(&read("ca.pem")?, &read("ca.key")?)?;
    let server = EndpointTls {
        server_id: Id::dns(&options.server_id)?,
        server_name: options.server_id.clone().into(),
    };
    let io = TcpStream::connect(options.addr).await?;
    let (io, _) = ca.peer(&options.client_id).connect(io, &server, false).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
    tokio::spawn(connection);
    Ok(TapClient::with_origin(Channel(sender), "http://proxy".parse()?))
}

#[derive(Clone)]
struct Channel(http2::SendRequest<Body>);

impl tower_service::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

const SLICES: u32 = 10;
const SLICE: Duration = Duration::from_millis(100);
