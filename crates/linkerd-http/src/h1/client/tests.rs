use super::*;
use crate::Handler;
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use linkerd_stack::drain;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
};

/// Connects to a server that the test plays.
struct ToTest(mpsc::UnboundedSender<DuplexStream>);

impl Connect for ToTest {
    type Io = DuplexStream;

    async fn connect(&self) -> Result<DuplexStream, Error> {
        let (client, server) = tokio::io::duplex(1_024);
        let _ = self.0.send(server);
        Ok(client)
    }
}

struct Rig {
    client: Arc<Client<ToTest>>,
    accepted: mpsc::UnboundedReceiver<DuplexStream>,
}

impl Rig {
    fn new() -> Self {
        let (sender, accepted) = mpsc::unbounded_channel();
        let params = PoolParams {
            max_idle: 10,
            idle_timeout: Duration::from_secs(3),
        };
        let client = Arc::new(Client::new(ToTest(sender), params));
        Self { client, accepted }
    }

    /// Sends a request; the server that the test plays is the next connection.
    fn send(&self, request: Request) -> tokio::task::JoinHandle<Result<Response, Failed>> {
        let client = self.client.clone();
        tokio::spawn(async move { client.send(request).await })
    }

    async fn accept(&mut self) -> Server {
        Server(self.accepted.recv().await.unwrap())
    }

    /// A connection that has carried one request.
    async fn used(&mut self) -> Server {
        let sent = self.send(get("/first"));
        let mut server = self.accept().await;
        server.hear("\r\n\r\n").await;
        server.say("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(sent.await.unwrap().unwrap().status(), 204);
        server
    }
}

struct Server(DuplexStream);

impl Server {
    async fn hear(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            text.push(char::from(self.0.read_u8().await.unwrap()));
        }
        text
    }

    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }
}

fn get(path: &str) -> Request {
    Request::new(Body::empty()).map_path(path)
}

fn post(body: Body) -> Request {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    request
}

trait MapPath {
    fn map_path(self, path: &str) -> Self;
}

impl MapPath for Request {
    fn map_path(mut self, path: &str) -> Self {
        *self.uri_mut() = path.parse().unwrap();
        self
    }
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let mut rig = Rig::new();
    let mut server = rig.used().await;
    for response in [
        "content-length: 2\r\n\r\nhi",
        "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ] {
        let sent = rig.send(get("/next"));
        assert!(
            server
                .hear("\r\n\r\n")
                .await
                .starts_with("GET /next HTTP/1.1\r\n")
        );
        server.say(&format!("HTTP/1.1 200 OK\r\n{response}")).await;
        assert_eq!(text(sent.await.unwrap().unwrap()).await, "hi");
    }
    assert!(rig.accepted.try_recv().is_err());
}

#[tokio::test]
async fn a_connection_is_not_used_again_when_anything_is_wrong_with_it() {
    for response in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n",
    ] {
        let mut rig = Rig::new();
        let sent = rig.send(get("/"));
        let mut server = rig.accept().await;
        server.hear("\r\n\r\n").await;
        server.say(response).await;
        assert_eq!(text(sent.await.unwrap().unwrap()).await, "hi");
        rig.send(get("/"));
        rig.accept().await;
    }
    // What an idle connection says unasked is no answer to the next request.
    for unasked in ["HTTP/1.1 408 Request Timeout\r\n\r\n", ""] {
        let mut rig = Rig::new();
        let mut server = rig.used().await;
        server.say(unasked).await;
        if unasked.is_empty() {
            server.0.shutdown().await.unwrap();
        }
        rig.send(get("/"));
        rig.accept().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_in_time() {
    let mut rig = Rig::new();
    let mut server = rig.used().await;
    assert!(server.0.read_u8().await.is_err());
    assert_eq!(rig.client.pool.len(), 0);
}

#[tokio::test]
async fn a_body_streams_both_ways() {
    let mut rig = Rig::new();
    let (sender, body) = Body::channel(1);
    let sent = rig.send(post(body));
    let mut server = rig.accept().await;
    sender.data("one".into()).await.unwrap();
    assert!(
        server
            .hear("one\r\n")
            .await
            .ends_with("transfer-encoding: chunked\r\n\r\n3\r\none\r\n")
    );
    server
        .say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let mut response = sent.await.unwrap().unwrap().into_body();
    sender.data("two".into()).await.unwrap();
    server.hear("3\r\ntwo\r\n").await;
    server.say("2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n").await;
    assert_eq!(
        response.frame().await.unwrap().unwrap().into_data().unwrap(),
        "hi"
    );
    assert_eq!(
        response.frame().await.unwrap().unwrap().into_trailers().unwrap()["x-sum"],
        "1"
    );
    // The request is not over yet, so the connection is not free.
    rig.send(get("/"));
    rig.accept().await;
    drop(sender);
    server.hear("0\r\n\r\n").await;
}

#[tokio::test]
async fn an_upload_ends_when_its_response_is_given_up() {
    let mut rig = Rig::new();
    let (sender, body) = Body::channel(1);
    let sent = rig.send(post(body));
    let mut server = rig.accept().await;
    server.hear("\r\n\r\n").await;
    server.say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").await;
    drop(sent.await.unwrap().unwrap());
    sender.closed().await;
}

#[tokio::test]
async fn an_answer_is_heard_though_the_upload_is_cut() {
    let mut rig = Rig::new();
    let sent = rig.send(post(Body::full(vec![0; 100_000])));
    let mut server = rig.accept().await;
    server.hear("\r\n\r\n").await;
    server
        .say("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n")
        .await;
    drop(server);
    assert_eq!(sent.await.unwrap().unwrap().status(), 413);
}

#[tokio::test]
async fn nothing_is_sent_before_the_server_asks_for_it() {
    let mut rig = Rig::new();
    let mut request = post(Body::full("hi"));
    request
        .headers_mut()
        .insert("expect", "100-continue".parse().unwrap());
    let sent = rig.send(request);
    let mut server = rig.accept().await;
    assert!(server.hear("\r\n\r\n").await.contains("content-length: 2\r\n"));
    server
        .say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
        .await;
    assert_eq!(server.hear("hi").await, "hi");
    server.say("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(sent.await.unwrap().unwrap().status(), 204);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_asks_gets_the_body_all_the_same() {
    let mut rig = Rig::new();
    let mut request = post(Body::full("hi"));
    request
        .headers_mut()
        .insert("expect", "100-continue".parse().unwrap());
    rig.send(request);
    let mut server = rig.accept().await;
    assert!(server.hear("hi").await.ends_with("\r\n\r\nhi"));
}

#[tokio::test]
async fn a_response_without_a_length_ends_with_its_connection() {
    let mut rig = Rig::new();
    let sent = rig.send(get("/"));
    let mut server = rig.accept().await;
    server.hear("\r\n\r\n").await;
    server.say("HTTP/1.0 200 OK\r\n\r\nall there is").await;
    drop(server);
    assert_eq!(text(sent.await.unwrap().unwrap()).await, "all there is");
}

#[tokio::test]
async fn a_response_that_is_cut_is_an_error() {
    for response in [
        "content-length: 5\r\n\r\nhi",
        "transfer-encoding: chunked\r\n\r\n5\r\nhi",
    ] {
        let mut rig = Rig::new();
        let sent = rig.send(get("/"));
        let mut server = rig.accept().await;
        server.hear("\r\n\r\n").await;
        server.say(&format!("HTTP/1.1 200 OK\r\n{response}")).await;
        drop(server);
        let response = sent.await.unwrap().unwrap();
        let error = response.into_body().collect().await.unwrap_err();
        assert_eq!(error.cause(), Cause::UpstreamClosed);
    }
}

#[tokio::test]
async fn no_answer_is_told_by_its_cause() {
    for (answer, cause) in [
        ("", Cause::UpstreamClosed),
        ("HTTP/1.1 200 OK\r\nx: y", Cause::UpstreamClosed),
        ("HTTP/1.1 200 OK\r\nx: y\n\r\n", Cause::UpstreamProtocol),
        ("nonsense\r\n\r\n", Cause::UpstreamProtocol),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            Cause::UpstreamProtocol,
        ),
    ] {
        let mut rig = Rig::new();
        let sent = rig.send(get("/"));
        let mut server = rig.accept().await;
        server.hear("\r\n\r\n").await;
        server.say(answer).await;
        drop(server);
        let failed = sent.await.unwrap().unwrap_err();
        assert_eq!(failed.error.cause(), cause, "{answer:?}");
        assert!(failed.request.is_none());
    }
}

#[tokio::test]
async fn a_request_of_which_nothing_was_sent_comes_back_whole() {
    /// Reads nothing for ever and takes nothing.
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let conn = Conn::client(Broken, std::sync::Weak::new());
    let connection = Connection { conn, reused: true };
    let failed = connection.send(post(Body::full("hello"))).await.unwrap_err();
    let request = failed.request.unwrap();
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "hello");
}

#[tokio::test]
async fn a_client_that_breaks_off_is_to_blame() {
    let mut rig = Rig::new();
    let (sender, body) = Body::channel(1);
    let mut request = post(body);
    request
        .headers_mut()
        .insert("content-length", "5".parse().unwrap());
    let sent = rig.send(request);
    let mut server = rig.accept().await;
    server.hear("\r\n\r\n").await;
    sender.data("toolong".into()).await.unwrap();
    assert!(sent.await.unwrap().unwrap_err().request.is_none());
    // Nothing of what does not fit was sent.
    assert!(server.0.read_u8().await.is_err());
}

/// The server's end with the client's end behind it, as in the proxy.
struct Proxy(Client<ToTest>);

impl Handler for Proxy {
    async fn handle(&self, request: Request) -> Result<Response, Error> {
        self.0.send(request).await.map_err(|failed| failed.error)
    }
}

struct Proxied {
    client: Server,
    server: Server,
    drain: drain::Signal,
}

impl Proxied {
    async fn new(request: &str) -> Self {
        let mut rig = Rig::new();
        let (client, io) = tokio::io::duplex(1_024);
        let (drain, watch) = drain::channel();
        let proxy = Arc::new(Proxy(Arc::into_inner(rig.client).unwrap()));
        tokio::spawn(async move {
            let _ = crate::h1::serve(io, proxy, &crate::h1::ServerParams::default(), watch).await;
        });
        let mut client = Server(client);
        client.say(request).await;
        let mut server = Server(rig.accepted.recv().await.unwrap());
        server.hear("\r\n\r\n").await;
        Self {
            client,
            server,
            drain,
        }
    }
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_with_what_came_too_early() {
    let upgrade = "GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nearly";
    for (request, granted) in [
        (
            upgrade,
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
        ),
        ("CONNECT web:80 HTTP/1.1\r\n\r\nearly", "HTTP/1.1 200 OK\r\n\r\n"),
    ] {
        let Proxied {
            mut client,
            mut server,
            drain,
        } = Proxied::new(request).await;
        server.say(&format!("{granted}welcome")).await;
        assert_eq!(client.hear("\r\n\r\n").await, granted);
        assert_eq!(client.hear("welcome").await, "welcome");
        assert_eq!(server.hear("early").await, "early");
        // A drain waits for it.
        let mut drained = tokio::spawn(async move { drain.drain().await });
        tokio::task::yield_now().await;
        assert!(!drained.is_finished());
        client.say("more").await;
        assert_eq!(server.hear("more").await, "more");
        drop((client, server));
        (&mut drained).await.unwrap();
    }
}

#[tokio::test]
async fn a_tunnel_ends_with_the_grace_period() {
    let Proxied {
        mut client,
        mut server,
        drain,
    } = Proxied::new("CONNECT web:80 HTTP/1.1\r\n\r\n").await;
    server.say("HTTP/1.1 200 OK\r\n\r\n").await;
    client.hear("\r\n\r\n").await;
    drain.end().await;
    assert!(client.0.read_u8().await.is_err() && server.0.read_u8().await.is_err());
}

#[tokio::test]
async fn what_comes_after_a_refused_upgrade_is_not_served() {
    let request = "GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
    let Proxied {
        mut client,
        mut server,
        ..
    } = Proxied::new(request).await;
    server.say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno").await;
    let mut answer = String::new();
    client.0.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("connection: close\r\n\r\nno"), "{answer}");
}

#[tokio::test]
async fn many_requests_at_once_never_share_a_connection() {
    let mut rig = Rig::new();
    let served = Arc::new(Mutex::new(0));
    let mut asked = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let client = rig.client.clone();
        asked.spawn(async move {
            for n in 0..50 {
                let path = format!("/{worker}/{n}");
                let response = client.send(get(&path)).await.unwrap();
                assert_eq!(text(response).await, path);
            }
        });
    }
    let accepted = async {
        while let Some(io) = rig.accepted.recv().await {
            let served = served.clone();
            tokio::spawn(async move {
                let mut server = Server(io);
                loop {
                    let head = server.hear("\r\n\r\n").await;
                    let path = head.split(' ').nth(1).unwrap();
                    *served.lock() += 1;
                    let length = path.len();
                    server
                        .say(&format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{path}"
                        ))
                        .await;
                }
            });
        }
    };
    tokio::select! {
        () = async { while asked.join_next().await.transpose().unwrap().is_some() {} } => {}
        () = accepted => {}
    }
    assert_eq!(*served.lock(), 400);
}

#[test]
fn data_is_not_copied_twice() {
    let body = Bytes::from(vec![1; 100_000]);
    let pushed = Body::pushed_back(http_body::Frame::data(body.clone()), Body::empty());
    assert_eq!(http_body::Body::size_hint(&pushed).exact(), Some(100_000));
    assert!(!http_body::Body::is_end_stream(&pushed));
}
