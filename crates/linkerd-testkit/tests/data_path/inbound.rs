//! What the policy of a port does to requests and connections.

use crate::rig::{Alone, Http1, Http2, SERVER_ID, count, echo, get, in_front_of, post, until_counted};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, StreamBody};
use hyper::body::Frame;
use linkerd_policy::{Id, endpoint::EndpointTls};
use linkerd_proto::{http_route, inbound};
use linkerd_testkit::messages;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

fn server_tls() -> EndpointTls {
    EndpointTls {
        server_id: Id::dns(SERVER_ID).unwrap(),
        server_name: SERVER_ID.into(),
    }
}

fn detect(routes: Vec<inbound::HttpRoute>) -> inbound::Server {
    let detect = inbound::proxy_protocol::Detect {
        timeout: None,
        http_routes: routes,
        http_local_rate_limit: None,
    };
    messages::server(
        inbound::proxy_protocol::Kind::Detect(detect),
        vec![messages::all_unauthenticated()],
    )
}

fn filtered(kind: inbound::http_route::filter::Kind) -> inbound::Server {
    let mut route = messages::inbound_route();
    route.rules[0].filters = vec![inbound::http_route::Filter { kind: Some(kind) }];
    detect(vec![route])
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_is_answered_with_500() {
    let rig = Alone::new(&[]).await;
    rig.policy(inbound::Server::default());
    rig.ask_until("/status/200", 500).await;
    let errors = ["error=\"invalid-policy\""];
    assert!(count(&rig.proxy, "inbound_http_errors_total", &errors).await >= 1);
}

#[tokio::test]
async fn a_request_without_a_route_is_not_found() {
    let rig = Alone::new(&[]).await;
    rig.policy(detect(Vec::new()));
    let answer = rig.ask_until("/status/200", 404).await;
    assert!(
        !answer.headers.contains_key("l5d-proxy-error"),
        "a stranger learns nothing"
    );
    assert!(count(&rig.proxy, "inbound_http_route_not_found_total", &[]).await >= 1);
}

#[tokio::test]
async fn an_injected_fault_has_the_status_that_was_asked_for() {
    let rig = Alone::new(&[]).await;
    let fault = http_route::HttpFailureInjector {
        status: 418,
        message: "teapot".into(),
        ratio: None,
    };
    rig.policy(filtered(inbound::http_route::filter::Kind::FailureInjector(
        fault,
    )));
    rig.ask_until("/status/200", 418).await;
}

#[tokio::test]
async fn a_redirect_tells_where_to() {
    let rig = Alone::new(&[]).await;
    let redirect = http_route::RequestRedirect {
        host: "elsewhere.test".into(),
        status: 302,
        ..http_route::RequestRedirect::default()
    };
    rig.policy(filtered(inbound::http_route::filter::Kind::Redirect(redirect)));
    let answer = rig.ask_until("/status/200", 302).await;
    assert_eq!(answer.headers["location"], "http://elsewhere.test/status/200");
}

#[tokio::test]
async fn headers_of_responses_can_be_changed() {
    let rig = Alone::new(&[]).await;
    let mut route = messages::inbound_route();
    route.rules[0].response_header_modifier = Some(http_route::ResponseHeaderModifier {
        remove: vec!["date".into()],
        ..http_route::ResponseHeaderModifier::default()
    });
    assert!(
        rig.ask_until("/status/200", 200)
            .await
            .headers
            .contains_key("date")
    );
    rig.policy(detect(vec![route]));
    for _ in 0..200 {
        if !rig
            .ask_until("/status/200", 200)
            .await
            .headers
            .contains_key("date")
        {
            return;
        }
    }
    panic!("the header is still there");
}

/// Two requests a second.
fn rate_limit() -> inbound::HttpLocalRateLimit {
    inbound::HttpLocalRateLimit {
        metadata: Some(messages::default_meta("limit")),
        total: Some(inbound::http_local_rate_limit::Limit {
            requests_per_second: 2,
        }),
        identity: None,
        overrides: Vec::new(),
    }
}

#[tokio::test]
async fn calls_of_a_grpc_server_have_rate_limits_too() {
    let rig = Alone::new(&[]).await;
    let route = inbound::GrpcRoute {
        metadata: Some(messages::default_meta("default")),
        rules: vec![inbound::grpc_route::Rule {
            matches: vec![linkerd_proto::grpc_route::GrpcRouteMatch::default()],
            filters: Vec::new(),
        }],
        ..inbound::GrpcRoute::default()
    };
    let grpc = inbound::proxy_protocol::Grpc {
        routes: vec![route],
        local_rate_limit: Some(rate_limit()),
    };
    rig.policy(messages::server(
        inbound::proxy_protocol::Kind::Grpc(grpc),
        vec![messages::all_unauthenticated()],
    ));
    let scope = ["ratelimit_scope=\"total\""];
    let mut client = Http2::connect(rig.proxy.bound.inbound).await;
    let mut statuses = Vec::new();
    for _ in 0..200 {
        let mut request = post("/grpc.Echo/Say", &b"\0\0\0\0\x01x"[..]);
        request
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        let answer = client.ask(request).await;
        statuses.extend(answer.headers.get("grpc-status").cloned());
        if count(&rig.proxy, "inbound_http_local_ratelimit_total", &scope).await > 0 {
            break;
        }
    }
    assert_eq!(statuses.last().unwrap(), "8", "resource exhausted");
}

#[tokio::test]
async fn requests_beyond_the_rate_limit_are_refused() {
    let rig = Alone::new(&[]).await;
    let detect = inbound::proxy_protocol::Detect {
        timeout: None,
        http_routes: vec![messages::inbound_route()],
        http_local_rate_limit: Some(rate_limit()),
    };
    rig.policy(messages::server(
        inbound::proxy_protocol::Kind::Detect(detect),
        vec![messages::all_unauthenticated()],
    ));
    rig.ask_until("/status/200", 429).await;
    let scope = ["ratelimit_scope=\"total\""];
    assert!(count(&rig.proxy, "inbound_http_local_ratelimit_total", &scope).await >= 1);
}

#[tokio::test]
async fn a_request_is_in_flight_until_the_end_of_its_response() {
    let rig = Alone::new(&[("INBOUND_MAX_IN_FLIGHT", "1")]).await;
    let (frames, mut receiver) = mpsc::channel::<Bytes>(1);
    let body = futures_util::stream::poll_fn(move |cx| {
        receiver
            .poll_recv(cx)
            .map(|data| data.map(|data| Ok::<_, std::convert::Infallible>(Frame::data(data))))
    });
    let request = post("/echo", "").map(|_| Either::Right(StreamBody::new(body).boxed()));
    let mut first = rig.http1().await;
    frames.send("begun".into()).await.unwrap();
    let mut response = first.send(request).await.unwrap();
    assert_eq!(
        response.frame().await.unwrap().unwrap().into_data().unwrap(),
        "begun"
    );
    let mut second = rig.http1().await;
    assert_eq!(second.ask(get("/status/200")).await.status, 503);
    drop(frames);
    assert!(response.frame().await.is_none());
    rig.ask_until("/status/200", 200).await;
    assert_eq!(
        count(&rig.proxy, "inbound_http_errors_total", &["error=\"loadshed\""]).await,
        1
    );
}

#[tokio::test]
async fn a_policy_that_changes_ends_the_connections_it_does_not_admit() {
    let (app, _tasks) = echo("").await;
    let (plane, proxy) = in_front_of(app, &[]).await;
    let mut io = TcpStream::connect(proxy.bound.inbound).await.unwrap();
    let mut heard = [0; 2];
    io.write_all(b"\0\0").await.unwrap();
    io.read_exact(&mut heard).await.unwrap();
    let only = messages::server(
        messages::inbound_detect(),
        vec![messages::identities(&["someone.else"])],
    );
    plane.services.inbound.set(app.port().to_string(), only);
    assert_eq!(io.read(&mut heard).await.unwrap_or_default(), 0);
    until_counted(&proxy, "inbound_tcp_authz_terminate_total", &[], 1).await;
    let mut denied = TcpStream::connect(proxy.bound.inbound).await.unwrap();
    denied.write_all(b"\0\0").await.unwrap();
    assert_eq!(denied.read(&mut heard).await.unwrap_or_default(), 0);
    until_counted(&proxy, "inbound_tcp_authz_deny_total", &["srv_name=\"test\""], 1).await;
}

#[tokio::test]
async fn mutual_tls_is_terminated_on_an_opaque_port_too() {
    let (app, _tasks) = echo("").await;
    let (plane, proxy) = in_front_of(app, &[]).await;
    let opaque = inbound::proxy_protocol::Kind::Opaque(inbound::proxy_protocol::Opaque {});
    let policy = messages::server(opaque, vec![messages::identities(&["peer.test"])]);
    plane.services.inbound.set(app.port().to_string(), policy);
    let heard = async |name: &str| {
        let io = TcpStream::connect(proxy.bound.inbound).await.unwrap();
        let peer = plane.services.ca.peer(name);
        let (mut io, _) = peer.connect(io, &server_tls(), false).await.unwrap();
        io.write_all(b"\0ello").await.unwrap();
        let mut heard = vec![0; 5];
        io.read_exact(&mut heard).await.map(|_| heard)
    };
    let labels = ["client_id=\"peer.test\"", "srv_name=\"test\""];
    // The policy comes after the first connection.
    while count(&proxy, "inbound_tcp_authz_allow_total", &labels).await == 0 {
        assert_eq!(heard("peer.test").await.unwrap(), b"\0ello");
    }
    assert!(heard("stranger.test").await.is_err());
    let denied = ["client_id=\"stranger.test\""];
    until_counted(&proxy, "inbound_tcp_authz_deny_total", &denied, 1).await;
}

#[tokio::test]
async fn the_applications_own_tls_passes_through() {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (plane, proxy) = in_front_of(app.local_addr().unwrap(), &[]).await;
    let peer = plane.services.ca.peer("peer.test");
    let inbound = proxy.bound.inbound;
    let _client = tokio::spawn(async move {
        let other = EndpointTls {
            server_id: Id::dns("app.test").unwrap(),
            server_name: "app.test".into(),
        };
        let io = TcpStream::connect(inbound).await.unwrap();
        peer.connect(io, &other, false).await.map(drop)
    });
    let (mut io, _) = app.accept().await.unwrap();
    let mut first = [0; 3];
    io.read_exact(&mut first).await.unwrap();
    assert_eq!(first, [22, 3, 1], "a handshake record");
    let labels = ["peer=\"src\"", "tls=\"opaque\"", "sni=\"app.test\""];
    assert_eq!(count(&proxy, "tcp_open_total", &labels).await, 1);
}

#[tokio::test]
async fn a_client_that_begins_a_handshake_and_stops_is_not_waited_for() {
    let (app, _tasks) = echo("").await;
    let (_plane, proxy) = in_front_of(app, &[("INBOUND_DETECT_TIMEOUT", "200ms")]).await;
    let mut io = TcpStream::connect(proxy.bound.inbound).await.unwrap();
    io.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    assert_eq!(io.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    until_counted(
        &proxy,
        "inbound_tcp_errors_total",
        &["error=\"detect-timeout\""],
        1,
    )
    .await;
}

#[tokio::test]
async fn loopback_is_admitted_by_every_default_policy() {
    for policy in ["deny", "all-authenticated", "cluster-authenticated", "audit"] {
        let rig = Alone::new(&[("INBOUND_DEFAULT_POLICY", policy)]).await;
        assert_eq!(
            rig.http1().await.ask(get("/status/200")).await.status,
            200,
            "{policy}"
        );
        let name = format!("srv_name=\"{policy}\"");
        let labels = [&*name, "authz_name=\"localhost\""];
        assert_eq!(
            count(&rig.proxy, "inbound_http_authz_allow_total", &labels).await,
            1
        );
    }
}

#[tokio::test]
async fn four_workers_count_as_exactly_as_one() {
    let rig = Alone::with_workers(4).await;
    let (mut clients, each) = (tokio::task::JoinSet::new(), 50);
    for _ in 0..16 {
        let mut client = Http1::connect(rig.proxy.bound.inbound).await;
        clients.spawn(async move {
            for _ in 0..each {
                assert_eq!(client.ask(get("/status/200")).await.status, 200);
            }
        });
    }
    clients.join_all().await;
    assert_eq!(
        count(&rig.proxy, "response_total", &["classification=\"success\""]).await,
        800
    );
    assert_eq!(count(&rig.proxy, "tcp_open_total", &["peer=\"src\""]).await, 16);
    rig.proxy.stopped().await;
}
