//! The admin server on port 4191: probes, metrics, and what helps to debug a proxy.

mod connection;
mod metrics;
mod shutdown;

pub(crate) use self::{connection::serve, shutdown::Shutdown};

use crate::{
    config::AdminConfig,
    discovery::{self, Believers},
    log::{LogLevel, LogLevelError},
};
use connection::{Client, body_text};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use linkerd_control::Control;
use linkerd_http::{Body, Request, Response};
use linkerd_metrics::Registry;
use linkerd_policy::{
    ClientInfo,
    route::find,
    server::{Protocol, ServerPolicy},
};
use linkerd_tls::Credentials;
use std::sync::Arc;
use tokio::sync::watch;

/// What the admin server knows of the process. One for all connections.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) config: AdminConfig,
    pub(crate) credentials: Credentials,
    pub(crate) control: Control,
    pub(crate) believers: Believers,
    pub(crate) metrics: Registry,
    pub(crate) log: LogLevel,
    pub(crate) shutdown: Shutdown,
    /// Who may come; kept for as long as the server, so that it is always the newest.
    pub(crate) policy: watch::Receiver<Arc<ServerPolicy>>,
}

impl Admin {
    /// Answers a request of a client that the policy of the port has let in.
    async fn respond(&self, client: &Client, request: Request) -> Response {
        if let Some(refused) = self.refusal(client, &request) {
            return refused;
        }
        match request.uri().path() {
            "/live" => text(StatusCode::OK, "live\n"),
            "/ready" => self.ready(),
            "/metrics" => metrics::respond(request.headers(), &self.metrics),
            "/env.json" => local(client, || self.environment(&request)),
            "/discovery.json" => local(client, || {
                json(&discovery::describe(
                    &self.believers,
                    &self.control,
                    &self.credentials,
                ))
            }),
            "/proxy-log-level" if client.is_loopback() => self.log_level(request).await,
            "/shutdown" => local(client, || self.shut_down(request.method())),
            "/proxy-log-level" => not_local(),
            _ => text(StatusCode::NOT_FOUND, ""),
        }
    }

    /// The policy of the admin port, as the inbound proxy would enforce it.
    fn refusal(&self, client: &Client, request: &Request) -> Option<Response> {
        let policy = self.policy.borrow().clone();
        let info = ClientInfo {
            ip: client.ip,
            tls: client.tls.shown(),
        };
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        let host = uri.host().or_else(|| headers.get(header::HOST)?.to_str().ok());
        let permitted = match &policy.protocol {
            Protocol::Detect { http, .. } | Protocol::Http1(http) | Protocol::Http2(http) => {
                let Some(found) = find(&http.routes, host, method, uri, headers) else {
                    return Some(text(StatusCode::NOT_FOUND, "no route found for request\n"));
                };
                policy.authorize_route(found.route, &info).is_ok()
            }
            Protocol::Invalid(_) => {
                return Some(text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "invalid server configuration\n",
                ));
            }
            Protocol::Grpc(_) | Protocol::Opaque | Protocol::Tls => policy.authorize(&info).is_ok(),
        };
        (!permitted && !policy.audit).then(|| text(StatusCode::FORBIDDEN, "unauthorized request on route\n"))
    }

    fn ready(&self) -> Response {
        if self.credentials.is_certified() {
            text(StatusCode::OK, "ready\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
        }
    }

    /// `?A&B` shows only these.
    fn environment(&self, request: &Request) -> Response {
        if request.method() != Method::GET {
            return not_allowed("GET");
        }
        if !accepts_json(request.headers()) {
            return text(StatusCode::NOT_ACCEPTABLE, "only application/json can be had\n");
        }
        let all = &self.config.environment;
        let Some(query) = request.uri().query().filter(|query| !query.is_empty()) else {
            return json(&serde_json::json!(**all));
        };
        let names: Vec<&str> = query.split('&').collect();
        if let Some(name) = names.iter().find(|name| name.contains('=')) {
            let mut response = json(&serde_json::json!({ "error": format!("not a name: {name}") }));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        }
        let chosen: serde_json::Map<_, _> = names
            .into_iter()
            .map(|name| (name.to_string(), serde_json::json!(all.get(name))))
            .collect();
        json(&chosen.into())
    }

    async fn log_level(&self, request: Request) -> Response {
        let answer = match *request.method() {
            Method::GET => self.log.current().map(|level| text(StatusCode::OK, level)),
            Method::PUT => match body_text(request).await {
                Some(filter) => self.log.set(&filter).map(|()| text(StatusCode::NO_CONTENT, "")),
                None => Err(LogLevelError::Filter("the body is not a line of text".into())),
            },
            _ => return not_allowed("GET, PUT"),
        };
        answer.unwrap_or_else(|error| match error {
            LogLevelError::Off => text(StatusCode::NOT_FOUND, "logging is off\n"),
            LogLevelError::Filter(_) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        })
    }

    fn shut_down(&self, method: &Method) -> Response {
        if method != Method::POST {
            return not_allowed("POST");
        }
        if !self.config.shutdown_enabled {
            return text(StatusCode::NOT_FOUND, "shutdown endpoint is not enabled\n");
        }
        self.shutdown.start();
        text(StatusCode::OK, "shutdown\n")
    }
}

fn local(client: &Client, respond: impl FnOnce() -> Response) -> Response {
    if client.is_loopback() {
        respond()
    } else {
        not_local()
    }
}

fn not_local() -> Response {
    text(
        StatusCode::FORBIDDEN,
        "Requests are only permitted from localhost.",
    )
}

fn not_allowed(methods: &'static str) -> Response {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "");
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

fn text(status: StatusCode, body: impl Into<bytes::Bytes>) -> Response {
    with_type(status, "text/plain", body)
}

fn json(value: &serde_json::Value) -> Response {
    with_type(StatusCode::OK, "application/json", value.to_string())
}

fn with_type(status: StatusCode, kind: &'static str, body: impl Into<bytes::Bytes>) -> Response {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(header::ACCEPT) else {
        return true;
    };
    let accept = accept.to_str().unwrap_or_default();
    let kinds = accept.split(',').filter_map(|kind| kind.split(';').next());
    kinds
        .map(str::trim)
        .any(|kind| matches!(kind, "*/*" | "application/*" | "application/json"))
}
