use super::*;
use crate::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::Notify,
    task::JoinHandle,
};

/// Answers by the request's path.
#[derive(Default)]
struct App {
    /// Requests whose answer was given up.
    given_up: AtomicUsize,
    begun: Notify,
}

impl Handler for App {
    async fn handle(&self, request: Request) -> Result<Response, Error> {
        let path = request.uri().path().to_owned();
        match &*path {
            "/echo" => Ok(Response::new(request.into_body())),
            "/whole" => {
                let body = request.into_body().collect().await?.to_bytes();
                Ok(Response::new(Body::full(body)))
            }
            "/wait" => {
                let _given_up = GivenUp(&self.given_up);
                self.begun.notify_one();
                std::future::pending().await
            }
            "/large" => Ok(Response::new(Body::full(vec![b'x'; 1 << 20]))),
            "/stream" => {
                let (sender, body) = Body::channel(1);
                tokio::spawn(async move {
                    for _ in 0..5 {
                        sleep(Duration::from_millis(1_500)).await;
                        if sender.data(Bytes::from_static(b"tick")).await.is_err() {
                            return;
                        }
                    }
                });
                Ok(Response::new(body))
            }
            _ => Ok(Response::new(Body::full(path))),
        }
    }
}

struct GivenUp<'a>(&'a AtomicUsize);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A client on a connection that is served.
struct Rig {
    io: DuplexStream,
    app: Arc<App>,
    drain: Option<drain::Signal>,
    served: JoinHandle<Result<(), Error>>,
}

impl Rig {
    fn new() -> Self {
        Self::with(Arc::default())
    }

    fn with(app: Arc<App>) -> Self {
        let (io, server) = tokio::io::duplex(4 * 1024);
        let (signal, watch) = drain::channel();
        let handler = app.clone();
        let served =
            tokio::spawn(async move { serve(server, handler, &ServerParams::default(), watch).await });
        Self {
            io,
            app,
            drain: Some(signal),
            served,
        }
    }

    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until the text ends with `end`.
    async fn read_to(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            let byte = self
                .io
                .read_u8()
                .await
                .unwrap_or_else(|_| panic!("ended after {text:?}"));
            text.push(char::from(byte));
        }
        text
    }

    /// Reads until the server closes.
    async fn read_all(&mut self) -> String {
        let mut text = Vec::new();
        self.io.read_to_end(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }

    async fn ask(&mut self, request: &str, end: &str) -> String {
        self.send(request).await;
        self.read_to(end).await
    }
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let mut rig = Rig::new();
    for path in ["/a", "/b"] {
        let answer = rig.ask(&format!("GET {path} HTTP/1.1\r\n\r\n"), path).await;
        assert_eq!(
            answer,
            format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{path}")
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let mut rig = Rig::new();
    rig.send("GET /a HTTP/1.1\r\n\r\nPOST /echo HTTP/1.1\r\ncontent-length: 2\r\n\r\nhiGET /c HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    let answers = rig.read_all().await;
    let bodies: Vec<_> = answers
        .split("\r\n\r\n")
        .map(|part| part.get(..2).unwrap_or_default())
        .collect();
    assert_eq!(bodies, ["HT", "/a", "hi", "/c"]);
    assert!(answers.ends_with("connection: close\r\n\r\n/c"), "{answers}");
}

#[tokio::test]
async fn an_http_1_0_client_is_kept_when_it_asks() {
    let mut rig = Rig::new();
    let answer = rig
        .ask("GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", "/a")
        .await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.contains("connection: keep-alive\r\n"));
    rig.send("POST /echo HTTP/1.0\r\ncontent-length: 2\r\n\r\nhi")
        .await;
    assert!(rig.read_all().await.ends_with("connection: close\r\n\r\nhi"));
}

#[tokio::test]
async fn chunks_and_trailers_pass() {
    let mut rig = Rig::new();
    let sent = "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n";
    let answer = rig
        .ask(
            &format!("POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{sent}"),
            "1\r\n\r\n",
        )
        .await;
    assert_eq!(
        answer,
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{sent}")
    );
    assert!(
        rig.ask("GET /next HTTP/1.1\r\n\r\n", "/next")
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn a_response_streams_while_its_request_does() {
    let mut rig = Rig::new();
    let begun = rig
        .ask(
            "POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
            "2\r\nhi\r\n",
        )
        .await;
    assert!(begun.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(rig.ask("3\r\nyou\r\n", "\r\nyou\r\n").await, "3\r\nyou\r\n");
    assert_eq!(rig.ask("0\r\n\r\n", "\r\n\r\n").await, "0\r\n\r\n");
}

#[tokio::test]
async fn a_client_is_told_to_go_on_when_its_body_is_wanted() {
    let mut rig = Rig::new();
    let head = "POST /whole HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n";
    assert_eq!(rig.ask(head, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    assert!(
        rig.ask("hi", "\r\n\r\nhi")
            .await
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
}

#[tokio::test]
async fn a_client_is_not_told_to_go_on_for_nothing() {
    let mut rig = Rig::new();
    rig.send("POST /no HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        .await;
    // Whether the body comes now nobody knows, so nothing can follow it.
    assert_eq!(
        rig.read_all().await,
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\n/no"
    );
}

#[tokio::test]
async fn the_rest_of_an_unwanted_body_is_skipped_when_it_is_short() {
    let mut rig = Rig::new();
    let answer = rig
        .ask("POST /no HTTP/1.1\r\ncontent-length: 1000\r\n\r\nabc", "/no")
        .await;
    assert!(!answer.contains("close"), "{answer}");
    let rest = "x".repeat(997);
    assert!(
        rig.ask(&format!("{rest}GET /b HTTP/1.1\r\n\r\n"), "/b")
            .await
            .starts_with("HTTP/1.1 200")
    );
    rig.send("POST /no HTTP/1.1\r\ncontent-length: 1000000\r\n\r\nabc")
        .await;
    assert!(rig.read_to("/no").await.contains("connection: close\r\n"));
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_nothing_after_it_is_served() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", "400 Bad Request"),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "501 Not Implemented",
        ),
        ("GET / HTTP/3.0\r\n\r\n", "505 HTTP Version Not Supported"),
        ("GET / HTTP/1.1\nhost: a\n\n", "400 Bad Request"),
    ] {
        let mut rig = Rig::new();
        rig.send(&format!("{request}GET /b HTTP/1.1\r\n\r\n")).await;
        assert_eq!(
            rig.read_all().await,
            format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        );
        drop(rig.io);
        assert!(rig.served.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_chunk_that_is_none_ends_the_connection() {
    let mut rig = Rig::new();
    rig.send("POST /whole HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nGET /b HTTP/1.1\r\n\r\n")
        .await;
    assert_eq!(rig.read_all().await, "");
    let error = rig.served.await.unwrap().unwrap_err();
    assert_eq!(error.cause(), Cause::MalformedRequest);
}

#[tokio::test(start_paused = true)]
async fn a_head_must_be_complete_in_time_but_may_begin_late() {
    let mut rig = Rig::new();
    sleep(Duration::from_secs(3_600)).await;
    rig.ask("GET /a HTTP/1.1\r\n\r\n", "/a").await;
    let begun = Instant::now();
    for byte in "GET /b HTTP/1.1\r\nx: y".chars() {
        sleep(Duration::from_secs(1)).await;
        if rig.io.write_all(byte.to_string().as_bytes()).await.is_err() {
            break;
        }
        if begun.elapsed() > Duration::from_secs(12) {
            break;
        }
    }
    let answer = rig.read_all().await;
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
}

#[tokio::test]
async fn a_drain_closes_idle_connections_at_once() {
    for first in ["", "GET /a HTTP/1.1\r\n\r\n"] {
        let mut rig = Rig::new();
        if !first.is_empty() {
            rig.ask(first, "/a").await;
        }
        let signal = rig.drain.take().unwrap();
        tokio::join!(signal.drain(), async {
            assert_eq!(rig.read_all().await, "");
        });
    }
}

#[tokio::test]
async fn a_drain_lets_a_request_finish_and_says_close() {
    let mut rig = Rig::new();
    rig.send("POST /whole HTTP/1.1\r\ncontent-length: 2\r\n\r\nh")
        .await;
    tokio::task::yield_now().await;
    let signal = rig.drain.take().unwrap();
    tokio::join!(signal.drain(), async {
        tokio::task::yield_now().await;
        rig.send("i").await;
        assert!(rig.read_all().await.ends_with("connection: close\r\n\r\nhi"));
        rig.io.shutdown().await.unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_said_all_still_hears_the_answer() {
    let mut rig = Rig::new();
    rig.send("GET /stream HTTP/1.1\r\n\r\n").await;
    rig.io.shutdown().await.unwrap();
    let answer = rig.read_all().await;
    assert_eq!(answer.matches("tick").count(), 5, "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_given_up_when_its_client_is_gone() {
    let mut rig = Rig::new();
    rig.send("GET /wait HTTP/1.1\r\n\r\n").await;
    rig.app.begun.notified().await;
    drop(rig.io);
    assert_eq!(
        rig.served.await.unwrap().unwrap_err().cause(),
        Cause::DownstreamClosed
    );
    assert_eq!(rig.app.given_up.load(SeqCst), 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_response() {
    let mut rig = Rig::new();
    rig.send("GET /large HTTP/1.1\r\n\r\n").await;
    tokio::task::yield_now().await;
    // Were it not stopped, all of it would be somewhere by now; so it comes only as it is read.
    let answer = rig.read_to(&"x".repeat(1 << 10)).await;
    assert!(answer.contains("content-length: 1048576\r\n"));
    let mut rest = vec![0; (1 << 20) - (1 << 10)];
    rig.io.read_exact(&mut rest).await.unwrap();
    assert!(rest.iter().all(|b| *b == b'x'));
}

#[tokio::test]
async fn a_head_without_body_has_no_body() {
    let mut rig = Rig::new();
    let answer = rig
        .ask("HEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n", "/b")
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{answer}"
    );
}

/// The whole of what an idle connection costs here, besides its socket: the task's future and what it holds.
#[tokio::test]
async fn an_idle_connection_is_small() {
    let (_io, server) = tokio::io::duplex(64);
    let (_signal, watch) = drain::channel();
    let params = ServerParams::default();
    let future = serve(server, Arc::new(App::default()), &params, watch);
    let task = size_of_val(&future);
    let conn = size_of::<Conn<DuplexStream>>();
    assert!(task + conn <= 768, "{task} + {conn} bytes");
}
