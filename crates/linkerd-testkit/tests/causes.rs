//! Each answer that a proxy makes itself has one cause, the same in header, metric, tap event and log line.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "tests"
)]

#[path = "data_path/rig.rs"]
mod rig;
#[path = "data_path/tapping.rs"]
mod tapping;

use http::{Request, StatusCode};
use linkerd_proto::{http_route, inbound, outbound};
use linkerd_stack::Cause;
use linkerd_testkit::{Proxy, messages};
use parking_lot::Mutex;
use rig::{Outgoing, Rig, SERVER_ID, SERVICE, SERVICE_IP, Whole, count, get};
use std::{fmt, net::SocketAddr, time::Duration};
use tapping::{TAPPER, everything, observe};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tracing_subscriber::{Layer, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// The proxy that makes the answer.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Side {
    Outbound,
    Inbound,
}
use Side::{Inbound, Outbound};

const CASES: &[(Side, Cause, u16)] = &[
    (Outbound, Cause::MalformedRequest, 400),
    (Outbound, Cause::NoRoute, 404),
    (Outbound, Cause::FaultInjected, 418),
    (Outbound, Cause::InvalidPolicy, 500),
    (Outbound, Cause::FailFast, 504),
    (Outbound, Cause::LoadShed, 503),
    (Outbound, Cause::IdentityRequired, 502),
    (Outbound, Cause::ConnectTimeout, 504),
    (Outbound, Cause::ConnectRefused, 502),
    (Outbound, Cause::TlsHandshake, 502),
    (Outbound, Cause::RequestTimeout, 504),
    (Outbound, Cause::ResponseTimeout, 504),
    (Outbound, Cause::UpstreamClosed, 502),
    (Outbound, Cause::UpstreamProtocol, 502),
    (Inbound, Cause::NoRoute, 404),
    (Inbound, Cause::Unauthorized, 403),
    (Inbound, Cause::RateLimit, 429),
    (Inbound, Cause::FaultInjected, 418),
    (Inbound, Cause::InvalidPolicy, 500),
    (Inbound, Cause::ConnectRefused, 502),
    (Inbound, Cause::UpstreamClosed, 502),
    (Inbound, Cause::UpstreamProtocol, 502),
];

/// A server that is not what it should be.
struct Broken {
    addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Broken {
    /// Answers the first bytes of each connection with `answer`, then closes it; `None`: is silent.
    async fn start(answer: Option<&'static [u8]>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut io, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut buf = [0; 1024];
                    let _ = io.read(&mut buf).await;
                    match answer {
                        Some(answer) => drop(io.write_all(answer).await),
                        None => std::future::pending().await,
                    }
                });
            }
        });
        Self { addr, _tasks: tasks }
    }
}

/// A place where nobody listens.
fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

struct Provoked {
    rig: Rig,
    request: Request<Outgoing>,
    _broken: Option<Broken>,
}

/// Two proxies and a request that will be answered by one of them for this cause.
async fn provoke(side: Side, cause: Cause) -> Provoked {
    let shed = if (side, cause) == (Outbound, Cause::LoadShed) {
        "0"
    } else {
        "1000"
    };
    let env = [
        ("TAP_SVC_NAME", TAPPER),
        ("OUTBOUND_HTTP_FAILFAST_TIMEOUT", "100ms"),
        ("OUTBOUND_CONNECT_TIMEOUT", "200ms"),
        ("OUTBOUND_MAX_IN_FLIGHT", shed),
    ];
    let rig = Rig::with_env(1, &env).await;
    let mut provoked = Provoked {
        rig,
        request: get("/status/200"),
        _broken: None,
    };
    match side {
        Outbound => provoke_outbound(cause, &mut provoked).await,
        Inbound => provoke_inbound(cause, &mut provoked).await,
    }
    provoked
}

async fn provoke_outbound(cause: Cause, provoked: &mut Provoked) {
    let Provoked { rig, request, .. } = provoked;
    let endpoints = &rig.plane.services.endpoints;
    let policy = |change: &dyn Fn(&mut outbound::http_route::Rule)| {
        let policy = messages::with_rules(messages::balanced(SERVICE), change);
        rig.plane.services.outbound.set(SERVICE_IP, policy);
    };
    let plain = |addr| endpoints.set(SERVICE, messages::add(vec![messages::endpoint(addr)]));
    let meshed = |addr: SocketAddr| {
        let endpoint = messages::meshed_endpoint(addr, SERVER_ID, addr.port());
        endpoints.set(SERVICE, messages::add(vec![endpoint]));
    };
    match cause {
        Cause::MalformedRequest => {
            request
                .headers_mut()
                .insert("l5d-require-id", "no identity!".parse().unwrap());
        }
        Cause::NoRoute => policy(&|rule| rule.matches = vec![messages::prefix("/elsewhere")]),
        Cause::FaultInjected => policy(&|rule| {
            let kind = outbound::http_route::filter::Kind::FailureInjector(teapot());
            rule.filters = vec![outbound::http_route::Filter { kind: Some(kind) }];
        }),
        Cause::InvalidPolicy => policy(&|rule| {
            rule.filters = vec![outbound::http_route::Filter { kind: None }];
        }),
        Cause::FailFast => endpoints.set(SERVICE, messages::no_endpoints(true)),
        Cause::IdentityRequired => {
            request
                .headers_mut()
                .insert("l5d-require-id", "someone.else".parse().unwrap());
        }
        Cause::ConnectRefused => plain(nobody()),
        Cause::ConnectTimeout | Cause::TlsHandshake => {
            let answer = (cause == Cause::TlsHandshake).then_some(&b"no TLS"[..]);
            let broken = Broken::start(answer).await;
            meshed(broken.addr);
            provoked._broken = Some(broken);
        }
        Cause::RequestTimeout | Cause::ResponseTimeout => {
            *request = get("/slow");
            let limit: prost_types::Duration = Duration::from_millis(50).try_into().unwrap();
            let mut timeouts = http_route::Timeouts::default();
            match cause {
                Cause::RequestTimeout => timeouts.request = Some(limit),
                _ => timeouts.response = Some(limit),
            }
            policy(&|rule| rule.timeouts = Some(timeouts));
        }
        Cause::UpstreamClosed | Cause::UpstreamProtocol => {
            let answer: &[u8] = if cause == Cause::UpstreamClosed {
                b""
            } else {
                b"\0\0\0 no HTTP\r\n\r\n"
            };
            let broken = Broken::start(Some(answer)).await;
            plain(broken.addr);
            *request = rig::post("/status/200", "not to be sent twice");
            provoked._broken = Some(broken);
        }
        _ => {}
    }
}

async fn provoke_inbound(cause: Cause, provoked: &mut Provoked) {
    let Provoked { rig, request, .. } = provoked;
    let port = rig.servers[0].app.addr.port().to_string();
    let everybody = vec![messages::all_unauthenticated()];
    let with_route = |change: &dyn Fn(&mut inbound::http_route::Rule)| {
        let mut route = messages::inbound_route();
        route.rules.iter_mut().for_each(change);
        let kind = inbound::proxy_protocol::Kind::Http1(inbound::proxy_protocol::Http1 {
            routes: vec![route],
            local_rate_limit: None,
        });
        rig.plane
            .services
            .inbound
            .set(&port, messages::server(kind, everybody.clone()));
    };
    match cause {
        Cause::NoRoute => with_route(&|rule| rule.matches = vec![messages::prefix("/elsewhere")]),
        Cause::FaultInjected => with_route(&|rule| {
            let kind = inbound::http_route::filter::Kind::FailureInjector(teapot());
            rule.filters = vec![inbound::http_route::Filter { kind: Some(kind) }];
        }),
        Cause::InvalidPolicy => with_route(&|rule| {
            rule.filters = vec![inbound::http_route::Filter { kind: None }];
        }),
        Cause::Unauthorized => {
            let only = messages::server(messages::inbound_detect(), vec![messages::identities(&["x.y"])]);
            rig.plane.services.inbound.set(&port, only);
        }
        Cause::RateLimit => {
            let kind = inbound::proxy_protocol::Kind::Http1(inbound::proxy_protocol::Http1 {
                routes: vec![messages::inbound_route()],
                local_rate_limit: Some(inbound::HttpLocalRateLimit {
                    metadata: Some(messages::default_meta("limit")),
                    total: Some(inbound::http_local_rate_limit::Limit {
                        requests_per_second: 0,
                    }),
                    ..inbound::HttpLocalRateLimit::default()
                }),
            });
            rig.plane
                .services
                .inbound
                .set(&port, messages::server(kind, everybody));
        }
        Cause::ConnectRefused => {
            let gone = rig.servers.remove(0);
            let endpoint = messages::meshed_endpoint(nobody(), SERVER_ID, gone.proxy.bound.inbound.port());
            rig.plane
                .services
                .endpoints
                .set(SERVICE, messages::add(vec![endpoint]));
            rig.servers.push(gone);
        }
        Cause::UpstreamClosed | Cause::UpstreamProtocol => {
            let answer: &[u8] = if cause == Cause::UpstreamClosed {
                b""
            } else {
                b"\0\0\0 no HTTP\r\n\r\n"
            };
            let broken = Broken::start(Some(answer)).await;
            let inbound = rig.servers[0].proxy.bound.inbound.port();
            let endpoint = messages::meshed_endpoint(broken.addr, SERVER_ID, inbound);
            rig.plane
                .services
                .endpoints
                .set(SERVICE, messages::add(vec![endpoint]));
            *request = rig::post("/status/200", "not to be sent twice");
            provoked._broken = Some(broken);
        }
        _ => return,
    }
    until_in_force(cause, rig).await;
}

/// A port that nobody has asked for yet has its default policy until the control plane has answered.
async fn until_in_force(cause: Cause, rig: &Rig) {
    let by_policy = [
        Cause::NoRoute,
        Cause::FaultInjected,
        Cause::InvalidPolicy,
        Cause::Unauthorized,
        Cause::RateLimit,
    ];
    let mut client = rig.http1().await;
    for _ in 0..500 {
        if !by_policy.contains(&cause) || client.ask(get("/status/200")).await.status != 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn teapot() -> http_route::HttpFailureInjector {
    http_route::HttpFailureInjector {
        status: 418,
        message: "injected".into(),
        ratio: None,
    }
}

/// `code` and `error` of each event that has them.
static LOGGED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

struct Log;

#[derive(Default)]
struct Fields {
    code: String,
    error: String,
}

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        match field.name() {
            "code" => value.clone_into(&mut self.code),
            "error" => value.clone_into(&mut self.error),
            _ => {}
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if *event.metadata().level() <= tracing::Level::INFO && !fields.code.is_empty() {
            LOGGED.lock().push((fields.code, fields.error));
        }
    }
}

#[tokio::test]
async fn every_place_tells_the_same_cause() {
    tracing_subscriber::registry().with(Log).init();
    for (side, cause, status) in CASES.iter().copied() {
        let case = format!("{side:?} {cause}");
        LOGGED.lock().clear();
        let Provoked {
            rig,
            request,
            _broken,
        } = provoke(side, cause).await;
        let proxy = match side {
            Outbound => &rig.client,
            Inbound => &rig.servers[0].proxy,
        };
        let mut events = observe(&rig, proxy, TAPPER, everything(1, None)).await.unwrap();
        let answer = ask(&rig, request).await;
        assert_eq!(
            answer.status,
            StatusCode::from_u16(status).unwrap(),
            "{case}: {:?}",
            answer.headers
        );
        let header = answer
            .headers
            .get("l5d-proxy-error")
            .unwrap_or_else(|| panic!("{case}: no header"));
        assert!(
            header.to_str().unwrap().starts_with(&format!("{cause}: ")),
            "{case}: {header:?}"
        );
        counted(proxy, side, cause, &case).await;
        let mut causes = Vec::new();
        while let Some(event) = events.message().await.unwrap() {
            causes.push(event.cause_code);
        }
        assert_eq!(
            causes.last().map(String::as_str),
            Some(cause.code()),
            "{case}: {causes:?}"
        );
        let logged = LOGGED.lock().clone();
        let found = logged
            .iter()
            .any(|(code, error)| code == cause.code() && !error.is_empty());
        assert!(found, "{case} is not in the log: {logged:?}");
    }
}

async fn ask(rig: &Rig, request: Request<Outgoing>) -> Whole {
    rig.http1().await.ask(request).await
}

async fn counted(proxy: &Proxy, side: Side, cause: Cause, case: &str) {
    let family = match side {
        Outbound => "outbound_http_errors_total",
        Inbound => "inbound_http_errors_total",
    };
    let label = format!("error=\"{cause}\"");
    assert!(
        count(proxy, family, &[&label]).await >= 1,
        "{case} is not counted"
    );
}

/// The table of docs/reference/causes.md has every cause and no other, in the order of the code.
#[test]
fn the_reference_has_every_cause() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/causes.md");
    let page = std::fs::read_to_string(path).unwrap();
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let codes: Vec<_> = Cause::ALL.iter().map(|cause| cause.code()).collect();
    assert_eq!(rows.collect::<Vec<_>>(), codes);
}
