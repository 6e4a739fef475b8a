//! An application behind a meshed proxy, and a client behind another one.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Either, Empty, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use linkerd_proto::destination::DestinationProfile;
use linkerd_testkit::{ControlPlane, Proxy, ProxyBuilder, messages};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

pub const SERVICE: &str = "web.test.svc.cluster.local:80";
pub const SERVER_ID: &str = "web.test.serviceaccount.identity.linkerd.cluster.local";
pub const CLIENT_ID: &str = "client.test.serviceaccount.identity.linkerd.cluster.local";
pub const SERVICE_IP: &str = "10.1.2.3:80";

/// What the two proxies and the application between them share.
pub struct Rig {
    pub plane: ControlPlane,
    pub client: Proxy,
    pub servers: Vec<Server>,
}

pub struct Server {
    pub proxy: Proxy,
    pub app: App,
}

/// A server of HTTP/1 and HTTP/2; dropped, it is gone.
pub struct App {
    pub addr: SocketAddr,
    /// How many requests to `/broken` and `/grpc.broken` it will fail.
    failures: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Rig {
    /// `servers` meshed endpoints of one service.
    pub async fn new(servers: usize) -> Self {
        Self::with(servers, &[]).await
    }

    /// With environment variables for the client's proxy.
    pub async fn with(servers: usize, env: &[(&str, &str)]) -> Self {
        Self::start(servers, None, env, &[]).await
    }

    /// With environment variables for all proxies.
    pub async fn with_env(servers: usize, env: &[(&str, &str)]) -> Self {
        Self::start(servers, None, env, env).await
    }

    pub async fn with_profile(servers: usize, profile: Option<DestinationProfile>) -> Self {
        Self::start(servers, profile, &[], &[]).await
    }

    async fn start(
        count: usize,
        profile: Option<DestinationProfile>,
        client_env: &[(&str, &str)],
        server_env: &[(&str, &str)],
    ) -> Self {
        let plane = ControlPlane::start().await;
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(Server::with(&plane, server_env).await);
        }
        plane
            .services
            .outbound
            .set(SERVICE_IP, messages::balanced(SERVICE));
        if let Some(profile) = profile {
            plane.services.profiles.set(SERVICE_IP, profile);
        }
        let endpoints = servers.iter().map(Server::endpoint).collect();
        plane.services.endpoints.set(SERVICE, messages::add(endpoints));
        let builder = ProxyBuilder::new(CLIENT_ID, &plane).outbound_to(SERVICE_IP.parse().unwrap());
        let client = client_env
            .iter()
            .fold(builder, |b, (name, value)| b.env(name, value))
            .start();
        client.ready().await;
        Self {
            plane,
            client,
            servers,
        }
    }

    pub async fn http1(&self) -> Http1 {
        Http1::connect(self.client.bound.outbound).await
    }

    pub async fn http2(&self) -> Http2 {
        Http2::connect(self.client.bound.outbound).await
    }

    /// A connection of the client's application.
    pub async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.client.bound.outbound).await.unwrap()
    }
}

impl Server {
    pub async fn new(plane: &ControlPlane) -> Self {
        Self::with(plane, &[]).await
    }

    async fn with(plane: &ControlPlane, env: &[(&str, &str)]) -> Self {
        let app = App::start().await;
        let builder = ProxyBuilder::new(SERVER_ID, plane);
        let proxy = env
            .iter()
            .fold(builder, |b, (name, value)| b.env(name, value))
            .start();
        proxy.ready().await;
        Self { proxy, app }
    }

    pub fn endpoint(&self) -> linkerd_proto::destination::WeightedAddr {
        messages::meshed_endpoint(self.app.addr, SERVER_ID, self.proxy.bound.inbound.port())
    }
}

impl App {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let failures = Arc::new(AtomicUsize::new(0));
        let left = failures.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((io, _)) = listener.accept().await {
                connections.spawn(serve(io, left.clone()));
            }
        });
        Self {
            addr,
            failures,
            _tasks: tasks,
        }
    }

    /// The next `count` requests to `/broken` and `/grpc.broken` fail; others are echoed.
    pub fn fails(&self, count: usize) {
        self.failures.store(count, Relaxed);
    }
}

/// A server of bytes: it says `greeting`, then what it hears.
pub async fn echo(greeting: &'static str) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut io, _)) = listener.accept().await {
            connections.spawn(async move {
                io.write_all(greeting.as_bytes()).await.unwrap();
                let (mut read, mut write) = io.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    (addr, tasks)
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

async fn serve(io: TcpStream, failures: Arc<AtomicUsize>) {
    let mut first = [0; 14];
    while io.peek(&mut first).await.unwrap_or(0) < first.len() {
        if io.peek(&mut first).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let service = service_fn(|request: Request<Incoming>| {
        let may_fail = request.uri().path().ends_with("broken");
        let fails = may_fail
            && failures
                .fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1))
                .is_ok();
        async move { Ok::<_, Infallible>(answer(request, fails).await) }
    });
    let io = TokioIo::new(io);
    if first == *b"PRI * HTTP/2.0" {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(io, service)
            .with_upgrades()
            .await;
    }
}

async fn answer(mut request: Request<Incoming>, fails: bool) -> Answer {
    let path = request.uri().path().to_owned();
    if let Some(status) = path.strip_prefix("/status/") {
        return text(
            StatusCode::from_bytes(status.as_bytes()).unwrap(),
            status.to_owned(),
        );
    }
    match path.as_str() {
        "/broken" if fails => text(StatusCode::SERVICE_UNAVAILABLE, String::new()),
        "/stall" => stall(),
        "/echo" | "/broken" => Response::new(request.into_body().boxed()),
        "/headers" => text(
            StatusCode::OK,
            format!(
                "{:?} {} {:?}",
                request.version(),
                request.uri(),
                request.headers()
            ),
        ),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            text(StatusCode::OK, "slow".into())
        }
        "/upgrade" => upgrade(&mut request),
        "/grpc.broken" if fails => grpc_status(14),
        path if path.starts_with("/grpc.") => grpc(request),
        _ => text(StatusCode::NOT_FOUND, String::new()),
    }
}

fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)).map_err(|e| match e {}).boxed());
    *answer.status_mut() = status;
    answer
}

/// Begins an answer and does not end it.
fn stall() -> Answer {
    let first = futures_util::stream::once(async { Ok(Frame::data(Bytes::from_static(b"first"))) });
    let never = futures_util::stream::pending();
    Response::new(StreamBody::new(futures_util::StreamExt::chain(first, never)).boxed())
}

/// One message, and the status in trailers.
fn grpc_status(code: u16) -> Answer {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    let frames = [
        Frame::data(Bytes::from_static(b"message")),
        Frame::trailers(trailers),
    ];
    let frames = futures_util::stream::iter(frames.map(Ok));
    let mut answer = Response::new(StreamBody::new(frames).boxed());
    answer
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    answer
}

/// Echoes each message; the request's `x-status` becomes the gRPC status.
fn grpc(request: Request<Incoming>) -> Answer {
    let status = request
        .headers()
        .get("x-status")
        .cloned()
        .unwrap_or(HeaderValue::from_static("0"));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status);
    let data = http_body_util::BodyStream::new(request.into_body());
    let end = futures_util::stream::once(async { Ok(Frame::trailers(trailers)) });
    let mut answer = Response::new(StreamBody::new(futures_util::StreamExt::chain(data, end)).boxed());
    answer
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    answer
}

fn upgrade(request: &mut Request<Incoming>) -> Answer {
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgraded.await.unwrap());
        let mut buf = [0; 64];
        while let Ok(n @ 1..) = io.read(&mut buf).await {
            io.write_all(&buf[..n]).await.unwrap();
        }
    });
    let mut answer = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
    answer
        .headers_mut()
        .insert("connection", HeaderValue::from_static("upgrade"));
    answer
        .headers_mut()
        .insert("upgrade", HeaderValue::from_static("echo"));
    answer
}

pub type Outgoing = Either<Empty<Bytes>, BoxBody<Bytes, Infallible>>;

pub fn get(path: &str) -> Request<Outgoing> {
    let request = Request::builder().uri(path).header("host", "web.test");
    request.body(Either::Left(Empty::new())).unwrap()
}

pub fn post(path: &str, body: impl Into<Bytes>) -> Request<Outgoing> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("host", "web.test");
    request
        .body(Either::Right(Full::new(body.into()).boxed()))
        .unwrap()
}

/// A client of HTTP/1 on one connection.
pub struct Http1(
    hyper::client::conn::http1::SendRequest<Outgoing>,
    #[allow(dead_code)] JoinSet<()>,
);

impl Http1 {
    pub async fn connect(addr: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = connection.with_upgrades().await;
        });
        Self(sender, tasks)
    }

    pub async fn send(&mut self, request: Request<Outgoing>) -> hyper::Result<Response<Incoming>> {
        self.0.ready().await?;
        self.0.send_request(request).await
    }

    /// The whole answer to a request.
    pub async fn ask(&mut self, request: Request<Outgoing>) -> Whole {
        Whole::read(self.send(request).await.unwrap()).await
    }
}

/// A client of HTTP/2.
pub struct Http2(
    hyper::client::conn::http2::SendRequest<Outgoing>,
    #[allow(dead_code)] JoinSet<()>,
);

impl Http2 {
    pub async fn connect(addr: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = connection.await;
        });
        Self(sender, tasks)
    }

    pub async fn send(&mut self, request: Request<Outgoing>) -> hyper::Result<Response<Incoming>> {
        let (mut parts, body) = request.into_parts();
        parts.version = Version::HTTP_2;
        parts.headers.remove("host");
        parts.uri = format!("http://web.test{}", parts.uri).parse().unwrap();
        self.0.send_request(Request::from_parts(parts, body)).await
    }

    pub async fn ask(&mut self, request: Request<Outgoing>) -> Whole {
        Whole::read(self.send(request).await.unwrap()).await
    }
}

/// A gRPC request with one message.
pub fn grpc_call(path: &str) -> Request<Outgoing> {
    let mut request = post(path, "message");
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    request
}

/// A request's body that is written while it is sent.
pub fn streamed() -> (tokio::sync::mpsc::Sender<Bytes>, Outgoing) {
    let (sender, body) = tokio::sync::mpsc::channel(1);
    let frames = tokio_stream::wrappers::ReceiverStream::new(body);
    let frames = futures_util::StreamExt::map(frames, |data| Ok(Frame::data(data)));
    (
        sender,
        Either::Right(http_body_util::BodyExt::boxed(StreamBody::new(frames))),
    )
}

/// A response with its body and trailers.
pub struct Whole {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Whole {
    pub async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: body.to_bytes(),
            trailers,
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An application behind a proxy, for clients that come without one.
pub struct Alone {
    pub plane: ControlPlane,
    pub proxy: Proxy,
    pub app: App,
}

impl Alone {
    pub async fn new(env: &[(&str, &str)]) -> Self {
        let app = App::start().await;
        let (plane, proxy) = in_front_of(app.addr, env).await;
        Self { plane, proxy, app }
    }

    pub async fn with_workers(workers: usize) -> Self {
        let (app, plane) = (App::start().await, ControlPlane::start().await);
        let builder = ProxyBuilder::new(SERVER_ID, &plane).inbound_to(app.addr);
        let proxy = builder.workers(workers).start();
        proxy.ready().await;
        Self { plane, proxy, app }
    }

    /// Of the application's port.
    pub fn policy(&self, server: linkerd_proto::inbound::Server) {
        self.plane
            .services
            .inbound
            .set(self.app.addr.port().to_string(), server);
    }

    pub async fn http1(&self) -> Http1 {
        Http1::connect(self.proxy.bound.inbound).await
    }

    /// Asks until the answer has `status`: policies come when they come.
    pub async fn ask_until(&self, path: &str, status: u16) -> Whole {
        let mut client = self.http1().await;
        for _ in 0..200 {
            let answer = client.ask(get(path)).await;
            if answer.status == status {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no answer had the status {status}");
    }
}

/// A proxy whose inbound traffic goes to `app`.
pub async fn in_front_of(app: SocketAddr, env: &[(&str, &str)]) -> (ControlPlane, Proxy) {
    let plane = ControlPlane::start().await;
    let builder = ProxyBuilder::new(SERVER_ID, &plane).inbound_to(app);
    let proxy = env
        .iter()
        .fold(builder, |b, (name, value)| b.env(name, value))
        .start();
    proxy.ready().await;
    (plane, proxy)
}

/// Waits for a sum of [`count`].
pub async fn until_counted(proxy: &Proxy, family: &str, labels: &[&str], expected: u64) {
    for _ in 0..200 {
        if count(proxy, family, labels).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        count(proxy, family, labels).await,
        expected,
        "{family} {labels:?}"
    );
}

/// The sum of the series of `family` that have all `labels`.
pub async fn count(proxy: &Proxy, family: &str, labels: &[&str]) -> u64 {
    let lines = proxy.metrics(&format!("{family}{{")).await;
    let matching = lines
        .iter()
        .filter(|line| labels.iter().all(|label| line.contains(label)));
    matching
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}
