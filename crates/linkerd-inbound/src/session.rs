//! The HTTP requests of one connection.

use crate::{
    Inbound,
    accept::{Client as Io, Connection},
    access_log::Entry,
    labels,
    port::Port,
    rate_limit::Exceeded,
};
use http::{HeaderValue, StatusCode, Version, request::Parts};
use linkerd_http::{
    Body, Classes, Failed, Handler, Observe, Record, Request, Response, StreamRecord, detect, h1,
    headers::{self, L5D_CLIENT_ID, L5D_DST_CANONICAL, OrigProto},
};
use linkerd_metrics::{Counter, HttpSeries, Labels, RouteProtocol, StreamSeries};
use linkerd_policy::{
    ClientInfo, Labels as LabelMap, Meta, Profile, ServerPolicy,
    filter::{GrpcFilter, HeaderModifier, HttpFilter},
    route,
    server::{Protocol, RateLimit, RouteInfo},
};
use linkerd_stack::{Cause, Client, Error, Informational, Synthetic, Throttle, is_grpc};
use linkerd_tap::{Connection as Tapped, Direction, HttpTaps, Inspect};
use linkerd_tls::ServerTls;
use linkerd_trace::{Side, Span};
use parking_lot::Mutex;
use rand::Rng;
use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};
use tracing::{debug, info};

pub(crate) struct Session {
    inbound: Arc<Inbound>,
    port: Arc<Port>,
    /// Where nobody listened on the port when the connection came, and somebody does now.
    opened: OnceLock<Arc<Port>>,
    client: SocketAddr,
    tls: ServerTls,
    /// The client's identity, as the application is told.
    client_id: Option<HeaderValue>,
    tls_labels: Labels,
    series: Mutex<SeriesCache>,
}

/// The series that this connection's requests were counted in so far, with one policy.
#[derive(Default)]
struct SeriesCache {
    policy: Option<Arc<ServerPolicy>>,
    routes: Vec<Arc<RouteSeries>>,
    profiles: Vec<ProfileSeries>,
}

/// The series of one route and authorization.
struct RouteSeries {
    route: Arc<Meta>,
    authz: Arc<Meta>,
    authority: Option<Arc<str>>,
    http: Arc<HttpSeries>,
    protocol: RouteProtocol,
    stream: Arc<StreamSeries>,
    allowed: Arc<Counter>,
}

struct ProfileSeries {
    profile: Arc<Profile>,
    /// Past the end for requests that match no route.
    route: usize,
    http: Arc<HttpSeries>,
}

/// Why a request is not passed on.
struct Refusal {
    error: Error,
    answer: Answer,
}

enum Answer {
    Plain,
    Redirect(StatusCode, HeaderValue),
    Status(StatusCode),
    Grpc(u16),
}

/// A request that may go on, and what it is counted in.
struct Admitted {
    series: Arc<RouteSeries>,
    /// What the route changes of the response; mostly nothing.
    response_headers: Vec<HeaderModifier>,
}

/// Frees a request's place among those in flight.
struct InFlight(Arc<AtomicUsize>);

/// Follows a response to its end, where somebody wants to know.
struct Followed {
    span: Option<Span>,
    entry: Option<Entry>,
}

/// What is done at a response's end.
struct Tail {
    record: Record,
    stream: StreamRecord,
    taps: Option<HttpTaps>,
    in_flight: Option<InFlight>,
}

impl Session {
    pub(crate) fn new(inbound: &Arc<Inbound>, connection: Connection) -> (Self, Io) {
        let Connection {
            io,
            client,
            tls,
            tls_labels,
            port,
            policy: _,
        } = connection;
        let client_id = tls
            .client_id()
            .and_then(|id| HeaderValue::from_str(id.as_str()).ok());
        let session = Self {
            client_id,
            inbound: inbound.clone(),
            port,
            opened: OnceLock::new(),
            client,
            tls,
            tls_labels,
            series: Mutex::default(),
        };
        (session, io)
    }

    fn port(&self) -> &Arc<Port> {
        self.opened.get().unwrap_or(&self.port)
    }

    /// Clients keep their connections, also those to a port that is not listened on yet.
    async fn look_again(&self) {
        if let Ok(port) = self.inbound.ports.of(&self.inbound, self.port.addr).await
            && !port.is_closed()
        {
            let _ = self.opened.set(port);
        }
    }

    fn info(&self) -> ClientInfo<'_> {
        ClientInfo {
            ip: self.client.ip(),
            tls: self.tls.shown(),
        }
    }

    /// How this connection's client wants its errors.
    fn client(&self, parts: &Parts) -> Client {
        Client {
            version: parts.version,
            grpc: is_grpc(&parts.headers),
            informational: self.informational(),
        }
    }

    fn informational(&self) -> Informational {
        match self.tls.client_id() {
            Some(_) => Informational::Allowed,
            None => Informational::Suppressed,
        }
    }

    /// Decides about a request by the port's policy.
    fn admit(&self, policy: &Arc<ServerPolicy>, parts: &mut Parts) -> Result<Admitted, Refusal> {
        let authority = headers::authority(parts)?;
        let host = authority.as_ref().map(http::uri::Authority::as_str);
        let label = self.inbound.metrics.authorities.as_ref();
        let label = label.map(|known| known.admit(&host.unwrap_or("").to_ascii_lowercase()));
        let (method, uri, map) = (&parts.method, &parts.uri, &parts.headers);
        match &policy.protocol {
            Protocol::Detect { http, .. } | Protocol::Http1(http) | Protocol::Http2(http) => {
                let found = route::find(&http.routes, host, method, uri, map);
                let Some(found) = found else {
                    return Err(self.no_route(policy));
                };
                let mut admitted = self.authorize(policy, found.route, label)?;
                self.within_rate(policy, found.route, http.rate_limit.as_ref())?;
                let prefix = found.matched_prefix.map(str::to_owned);
                apply_http(found.rule, prefix.as_deref(), parts)?;
                admitted.response_headers = response_headers(found.rule).cloned().collect();
                Ok(admitted)
            }
            Protocol::Grpc(grpc) => {
                let found = route::find(&grpc.routes, host, method, uri, map);
                let Some(found) = found else {
                    return Err(self.no_route(policy));
                };
                let admitted = self.authorize(policy, found.route, label)?;
                self.within_rate(policy, found.route, grpc.rate_limit.as_ref())?;
                apply_grpc(found.rule, parts)?;
                Ok(admitted)
            }
            // The connection began before the policy changed, or its proxy was told that it is HTTP.
            Protocol::Opaque | Protocol::Tls => self.authorize(policy, &any_route(), label),
            Protocol::Invalid(reason) => {
                let error = Error::new(
                    Cause::InvalidPolicy,
                    format!("invalid server configuration: {reason}"),
                );
                Err(error.into())
            }
        }
    }

    fn authorize(
        &self,
        policy: &Arc<ServerPolicy>,
        route: &RouteInfo,
        authority: Option<Arc<str>>,
    ) -> Result<Admitted, Refusal> {
        let authz = match policy.authorize_route(route, &self.info()) {
            Ok(authz) => authz.meta.clone(),
            Err(_) if policy.audit => {
                info!(client = %self.client, server = %self.port.addr, route = %route.meta, "request would be denied");
                policy.meta.clone()
            }
            Err(_) => {
                let labels = self.policy_labels(policy, &route.meta, None);
                self.inbound.metrics.http_deny.series(&labels).incr();
                return Err(Error::new(Cause::Unauthorized, "unauthorized request on route").into());
            }
        };
        let series = self.series(policy, &route.meta, &authz, authority);
        series.allowed.incr();
        Ok(Admitted {
            series,
            response_headers: Vec::new(),
        })
    }

    fn no_route(&self, policy: &ServerPolicy) -> Refusal {
        let labels = self.server_labels(policy).join(&self.tls_labels);
        self.inbound.metrics.http_no_route.series(&labels).incr();
        Error::new(Cause::NoRoute, "no route found for request").into()
    }

    fn within_rate(
        &self,
        policy: &ServerPolicy,
        route: &RouteInfo,
        limit: Option<&Arc<RateLimit>>,
    ) -> Result<(), Refusal> {
        let Some(limit) = limit else { return Ok(()) };
        let Err(exceeded) =
            self.port()
                .limiter
                .admit(limit, self.tls.client_id(), tokio::time::Instant::now())
        else {
            return Ok(());
        };
        let Exceeded {
            scope,
            requests_per_second,
        } = exceeded;
        let labels = self
            .server_labels(policy)
            .join(&labels::resource("route", &route.meta))
            .join(&labels::resource("ratelimit", &limit.meta))
            .with("ratelimit_scope", scope);
        self.inbound.metrics.http_rate_limit.series(&labels).incr();
        let detail = format!("{scope} rate limit exceeded: {requests_per_second}rps");
        Err(Error::new(Cause::RateLimit, detail).into())
    }

    fn server_labels(&self, policy: &ServerPolicy) -> Labels {
        let port = self.port();
        port.target.clone().join(&port.server_labels(policy))
    }

    fn policy_labels(&self, policy: &ServerPolicy, route: &Meta, authz: Option<&Meta>) -> Labels {
        self.server_labels(policy)
            .join(&labels::resource("route", route))
            .join(&authz.map(|m| labels::resource("authz", m)).unwrap_or_default())
            .join(&self.tls_labels)
    }

    /// The series of a route; found by pointers as long as the policy stays the same.
    fn series(
        &self,
        policy: &Arc<ServerPolicy>,
        route: &Arc<Meta>,
        authz: &Arc<Meta>,
        authority: Option<Arc<str>>,
    ) -> Arc<RouteSeries> {
        let mut cache = self.series.lock();
        if cache.policy.as_ref().is_none_or(|p| !Arc::ptr_eq(p, policy)) {
            cache.policy = Some(policy.clone());
            cache.routes.clear();
        }
        let known = |s: &&Arc<RouteSeries>| {
            Arc::ptr_eq(&s.route, route) && Arc::ptr_eq(&s.authz, authz) && s.authority == authority
        };
        if let Some(series) = cache.routes.iter().find(known) {
            return series.clone();
        }
        let labels = self.policy_labels(policy, route, Some(authz));
        let http = Labels::new()
            .with("direction", "inbound")
            .with_opt("authority", authority.as_deref())
            .join(&labels);
        let protocol = match policy.protocol {
            Protocol::Grpc(_) => RouteProtocol::Grpc,
            _ => RouteProtocol::Http,
        };
        let parent = labels::resource("parent", &policy.meta)
            .with_display("parent_port", self.port.addr.port())
            .join(&labels::resource("route", route));
        let series = Arc::new(RouteSeries {
            route: route.clone(),
            authz: authz.clone(),
            authority,
            http: Arc::new(self.inbound.metrics.http.series(http)),
            protocol,
            stream: Arc::new(self.inbound.metrics.streams.of(protocol).series(&parent)),
            allowed: self.inbound.metrics.http_allow.series(&labels),
        });
        if cache.routes.len() < MAX_CACHED {
            cache.routes.push(series.clone());
        }
        series
    }

    /// The profile of the service that the request was sent to, and which of its routes it is.
    async fn profile(&self, parts: &mut Parts) -> Option<(Arc<Profile>, usize)> {
        let canonical = parts.headers.remove(L5D_DST_CANONICAL);
        let name = match &canonical {
            Some(name) => name.to_str().ok()?,
            None => parts
                .uri
                .authority()
                .map(http::uri::Authority::as_str)
                .or_else(|| {
                    parts
                        .headers
                        .get(http::header::HOST)
                        .and_then(|h| h.to_str().ok())
                })?,
        };
        let lower: Cow<'_, str> = match name.bytes().any(|b| b.is_ascii_uppercase()) {
            true => name.to_ascii_lowercase().into(),
            false => name.into(),
        };
        let profile = match self.inbound.profiles.known(&lower) {
            Some(known) => known?,
            None => Box::pin(self.inbound.profiles.of(&lower)).await?,
        };
        let matches = |r: &linkerd_policy::profile::Route| r.condition.matches(&parts.method, &parts.uri);
        let index = profile
            .routes
            .iter()
            .position(matches)
            .unwrap_or(profile.routes.len());
        Some((profile, index))
    }

    fn profile_series(&self, profile: &Arc<Profile>, route: usize) -> Option<Arc<HttpSeries>> {
        let mut cache = self.series.lock();
        let known = |s: &&ProfileSeries| s.route == route && Arc::ptr_eq(&s.profile, profile);
        if let Some(series) = cache.profiles.iter().find(known) {
            return Some(series.http.clone());
        }
        let labels = profile_labels("inbound", profile.logical.as_deref()?, profile, route);
        let http = Arc::new(self.inbound.metrics.route.series(labels));
        if cache.profiles.len() >= MAX_CACHED {
            cache.profiles.clear();
        }
        cache.profiles.push(ProfileSeries {
            profile: profile.clone(),
            route,
            http: http.clone(),
        });
        Some(http)
    }

    fn taps(
        &self,
        policy: &ServerPolicy,
        series: &RouteSeries,
        classes: &Classes,
        parts: &Parts,
    ) -> Option<HttpTaps> {
        if !self.inbound.tap.is_active() {
            return None;
        }
        let mut route_labels = label_map("route", &series.route);
        if let Some(route) = classes.route() {
            route_labels.extend(route.labels.iter().map(|(k, v)| (k.clone(), v.clone())));
        }
        let mut server_labels = label_map("srv", &policy.meta);
        server_labels.extend(label_map("route", &series.route));
        server_labels.extend(label_map("authz", &series.authz));
        self.inbound
            .tap
            .request(&self.inspect(server_labels, route_labels, parts))
    }

    fn refuse(&self, policy: &ServerPolicy, client: Client, refusal: Refusal, parts: &Parts) -> Synthetic {
        let Refusal { error, answer } = refusal;
        let answer = match answer {
            Answer::Plain => Synthetic::from_error(&error, client, None),
            Answer::Status(status) => Synthetic::from_error(&error, client, Some(status)),
            Answer::Grpc(code) => Synthetic::grpc(&error, client, code),
            Answer::Redirect(status, location) => {
                let mut answer = Synthetic::from_error(
                    &error,
                    Client {
                        grpc: false,
                        ..client
                    },
                    Some(status),
                );
                answer.head.headers_mut().insert(http::header::LOCATION, location);
                answer
            }
        };
        if error.cause() != Cause::Redirect {
            self.count_error(policy, error.cause());
        }
        if self.inbound.tap.is_active() {
            let inspect = self.inspect(label_map("srv", &policy.meta), LabelMap::new(), parts);
            self.inbound
                .tap
                .refused(&inspect, answer.status, answer.head.headers(), error.cause());
        }
        if error.cause() == Cause::Redirect {
            debug!(client = %self.client, location = error.detail(), "request redirected");
        } else {
            static REFUSALS: Throttle = Throttle::new();
            self.report(&REFUSALS, &error, "request refused");
        }
        answer
    }

    fn inspect<'p>(&self, server_labels: LabelMap, route_labels: LabelMap, parts: &'p Parts) -> Inspect<'p> {
        Inspect {
            connection: Tapped {
                direction: Direction::Inbound,
                client: self.client,
                client_labels: client_labels(&self.tls),
                server: self.port.addr,
                server_labels,
            },
            route_labels,
            parts,
        }
    }

    fn report(&self, throttle: &Throttle, error: &Error, what: &'static str) {
        let (client, server) = (self.client, self.port.addr);
        let (code, error) = (error.cause().code(), error.detail());
        throttle.line(|left_out| info!(%client, %server, code, error, left_out, "{what}"));
    }

    fn count_error(&self, policy: &ServerPolicy, cause: Cause) {
        let labels = Labels::new()
            .with("error", cause.code())
            .join(&self.server_labels(policy));
        self.inbound.metrics.http_errors.series(&labels).incr();
    }

    fn enter(&self) -> Result<InFlight, Refusal> {
        let in_flight = InFlight(self.inbound.in_flight.clone());
        if in_flight.0.fetch_add(1, Relaxed) >= self.inbound.config.max_in_flight {
            return Err(Error::new(Cause::LoadShed, "too many requests in flight").into());
        }
        Ok(in_flight)
    }

    /// Readies an admitted request for the application.
    fn prepare(&self, parts: &mut Parts) -> Result<(detect::Version, Option<OrigProto>), Error> {
        let prepared = Self::prepare_form(parts);
        // Last, so that nothing that the client wrote into `connection` takes it away again.
        match &self.client_id {
            Some(id) => drop(parts.headers.insert(L5D_CLIENT_ID, id.clone())),
            None => drop(parts.headers.remove(L5D_CLIENT_ID)),
        }
        prepared
    }

    /// Gives the request the form of the version that the application gets.
    fn prepare_form(parts: &mut Parts) -> Result<(detect::Version, Option<OrigProto>), Error> {
        if parts.version == Version::HTTP_2 {
            let Some(orig) = headers::take_orig_proto(&mut parts.headers) else {
                if parts.uri.authority().is_some() {
                    parts.headers.remove(http::header::HOST);
                }
                return Ok((detect::Version::Http2, None));
            };
            headers::make_h1(parts, orig)?;
            return Ok((detect::Version::Http1, Some(orig)));
        }
        parts.headers.remove(headers::L5D_ORIG_PROTO);
        let upgrade = headers::is_upgrade(parts);
        headers::strip_hop_by_hop(&mut parts.headers, upgrade);
        if parts.method != http::Method::CONNECT {
            headers::make_origin_form(parts)?;
        }
        Ok((detect::Version::Http1, None))
    }
}

impl Handler for Session {
    fn reject(&self, error: &Error, status: StatusCode) -> Response {
        self.reject_unread(error, status)
    }

    async fn handle(&self, request: Request) -> Result<Response, Error> {
        if self.inbound.follows() {
            // In the heap, so that it does not weigh on connections of proxies that do not follow.
            return Box::pin(self.follow(request)).await;
        }
        self.serve(request).await
    }
}

impl Session {
    /// Serves a request that is traced or logged.
    async fn follow(&self, request: Request) -> Result<Response, Error> {
        let (mut parts, body) = request.into_parts();
        let inbound = &self.inbound;
        let mut span = (inbound.tracer.as_ref())
            .and_then(|tracer| tracer.begin(Side::Inbound, &self.client, &mut parts));
        let mut entry =
            (inbound.access_log.as_ref()).map(|log| log.begin(&parts, self.client, self.tls.client_id()));
        let body = match &entry {
            Some(entry) => body.observe(entry.request_body()),
            None => body,
        };
        match self.serve(Request::from_parts(parts, body)).await {
            Ok(response) => {
                let cause = response.extensions().get().copied();
                if let Some(span) = &mut span {
                    span.response(response.status(), response.headers(), cause);
                }
                if let Some(entry) = &mut entry {
                    entry.response(response.status(), cause);
                }
                Ok(response.map(|body| body.observe(Followed { span, entry })))
            }
            Err(error) => {
                if let Some(span) = span {
                    span.failed(&error);
                }
                if let Some(entry) = entry {
                    entry.failed(error.cause());
                }
                Err(error)
            }
        }
    }

    async fn serve(&self, request: Request) -> Result<Response, Error> {
        let started = Instant::now();
        if self.port().is_closed() {
            self.look_again().await;
        }
        let policy = self.port().policy();
        let (mut parts, body) = request.into_parts();
        let client = self.client(&parts);
        let admitted = self
            .enter()
            .and_then(|in_flight| Ok((self.admit(&policy, &mut parts)?, in_flight)));
        let (admitted, in_flight) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(answered(self.refuse(&policy, client, refusal, &parts))),
        };
        let profile = self.profile(&mut parts).await;
        let (of_route, classes) = match profile {
            Some((profile, route)) => (
                self.profile_series(&profile, route),
                Classes::Profile(profile, route),
            ),
            None => (None, Classes::Default),
        };
        let taps = self.taps(&policy, &admitted.series, &classes, &parts);
        let series = [Some(admitted.series.http.clone()), of_route];
        let record = Record::begin(series.into_iter().flatten(), classes, started);
        let mut stream = StreamRecord::begin(&admitted.series.stream, admitted.series.protocol, started);
        let (version, orig) = match self.prepare(&mut parts) {
            Ok(prepared) => prepared,
            Err(error) => {
                stream.failed(error.cause());
                return Ok(self.fail(&policy, client, error, record, taps));
            }
        };
        let body = stream.request(body);
        let body = match &taps {
            Some(taps) => body.observe(taps.request_body()),
            None => body,
        };
        match self
            .port()
            .app
            .send(version, Request::from_parts(parts, body))
            .await
        {
            Ok(mut response) => {
                for modifier in &admitted.response_headers {
                    modifier.apply(response.headers_mut());
                }
                Ok(respond(
                    response,
                    Tail {
                        record,
                        stream,
                        taps,
                        in_flight: Some(in_flight),
                    },
                    client.version,
                    orig,
                ))
            }
            Err(Failed { error, .. }) if error.reset().is_some() && client.version == Version::HTTP_2 => {
                self.count_error(&policy, error.cause());
                stream.failed(error.cause());
                record.reset(&error);
                Err(error)
            }
            Err(Failed { error, .. }) => {
                stream.failed(error.cause());
                Ok(self.fail(&policy, client, error, record, taps))
            }
        }
    }
}

impl Session {
    /// Answers what could not be read as a request.
    fn reject_unread(&self, error: &Error, status: StatusCode) -> Response {
        let client = Client {
            version: Version::HTTP_11,
            grpc: false,
            informational: self.informational(),
        };
        self.count_error(&self.port.policy(), error.cause());
        info!(client = %self.client, server = %self.port.addr, code = error.cause().code(), error = error.detail(), "request rejected");
        answered(Synthetic::from_error(error, client, Some(status)))
    }

    /// Answers a request that was counted but could not be served.
    fn fail(
        &self,
        policy: &ServerPolicy,
        client: Client,
        error: Error,
        record: Record,
        taps: Option<HttpTaps>,
    ) -> Response {
        let error = error.within(format_args!("client {}", self.client));
        static FAILURES: Throttle = Throttle::new();
        self.report(&FAILURES, &error, "request failed");
        let answer = Synthetic::from_error(&error, client, None);
        self.count_error(policy, error.cause());
        record.failed(answer.status, answer.head.headers(), &error);
        if let Some(mut taps) = taps {
            taps.response(answer.status, answer.head.headers(), Some(error.cause()));
            drop(Body::empty().observe(taps));
        }
        answered(answer)
    }
}

/// Readies the application's response for the client and follows it to its end.
fn respond(response: Response, mut tail: Tail, client: Version, orig: Option<OrigProto>) -> Response {
    tail.record.answered(&response);
    let (mut parts, body) = response.into_parts();
    tail.stream.response(parts.status, &parts.headers);
    if let Some(taps) = &mut tail.taps {
        taps.response(parts.status, &parts.headers, None);
    }
    // Only a proxy's word: the other one acts on it.
    parts.headers.remove(headers::L5D_PROXY_ERROR);
    if client == Version::HTTP_2 {
        headers::response_to_h2(&mut parts.version, &mut parts.headers, orig);
    } else {
        headers::response_to_h1(parts.status, &mut parts.version, &mut parts.headers, client);
    }
    // A tunnel is in flight until its own end.
    if h1::is_tunnel(&parts.extensions) {
        parts.extensions.insert(Arc::new(tail.in_flight.take()));
    }
    Response::from_parts(parts, body.observe(tail))
}

fn answered(answer: Synthetic) -> Response {
    answer.head.map(|()| Body::empty())
}

fn apply_http(filters: &[HttpFilter], prefix: Option<&str>, parts: &mut Parts) -> Result<(), Refusal> {
    for filter in filters {
        match filter {
            HttpFilter::RequestHeaders(modifier) => modifier.apply(&mut parts.headers),
            // Once there is one.
            HttpFilter::ResponseHeaders(_) => {}
            HttpFilter::Redirect(redirect) => {
                let uri = headers::absolute_uri(parts);
                match redirect.location(&uri, prefix) {
                    Ok(location) => return Err(redirected(redirect.status, &location)),
                    Err(error) => return Err(Error::new(Cause::InvalidPolicy, error.to_string()).into()),
                }
            }
            HttpFilter::Failure(injector) if injector.ratio.hits(rand::rng().random()) => {
                let error = Error::new(Cause::FaultInjected, &*injector.failure.message);
                return Err(Refusal {
                    error,
                    answer: Answer::Status(injector.failure.status),
                });
            }
            HttpFilter::Failure(_) => {}
            HttpFilter::Unknown => return Err(Error::new(Cause::InvalidPolicy, "unknown filter").into()),
        }
    }
    Ok(())
}

fn response_headers(filters: &[HttpFilter]) -> impl Iterator<Item = &HeaderModifier> {
    filters.iter().filter_map(|filter| match filter {
        HttpFilter::ResponseHeaders(modifier) => Some(modifier),
        _ => None,
    })
}

fn apply_grpc(filters: &[GrpcFilter], parts: &mut Parts) -> Result<(), Refusal> {
    for filter in filters {
        match filter {
            GrpcFilter::RequestHeaders(modifier) => modifier.apply(&mut parts.headers),
            GrpcFilter::Failure(injector) if injector.ratio.hits(rand::rng().random()) => {
                let error = Error::new(Cause::FaultInjected, &*injector.failure.message);
                return Err(Refusal {
                    error,
                    answer: Answer::Grpc(injector.failure.code),
                });
            }
            GrpcFilter::Failure(_) => {}
            GrpcFilter::Unknown => return Err(Error::new(Cause::InvalidPolicy, "unknown filter").into()),
        }
    }
    Ok(())
}

fn redirected(status: StatusCode, location: &http::Uri) -> Refusal {
    let error = Error::new(Cause::Redirect, location.to_string());
    match HeaderValue::from_str(&location.to_string()) {
        Ok(location) => Refusal {
            error,
            answer: Answer::Redirect(status, location),
        },
        Err(_) => Error::new(Cause::InvalidPolicy, "redirect to an invalid location").into(),
    }
}

fn any_route() -> RouteInfo {
    RouteInfo {
        meta: Meta::default_named("default"),
        authorizations: Vec::new(),
    }
}

/// The labels of a profile's route, as `viz routes` reads them.
pub(crate) fn profile_labels(direction: &str, dst: &str, profile: &Profile, route: usize) -> Labels {
    let mut labels = Labels::new().with("direction", direction).with("dst", dst);
    for (key, value) in profile.routes.get(route).iter().flat_map(|r| r.labels.iter()) {
        labels.push(&format!("rt_{key}"), value);
    }
    labels
}

/// What a tap shows of a client.
pub(crate) fn client_labels(tls: &ServerTls) -> LabelMap {
    let label = |k: &str, v: &str| (k.to_owned(), v.to_owned());
    match tls {
        ServerTls::Terminated { client_id } => {
            let id = client_id.iter().map(|id| label("client_id", id.as_str()));
            std::iter::once(label("tls", "true")).chain(id).collect()
        }
        ServerTls::PassThrough { .. } => [label("tls", "opaque")].into(),
        ServerTls::None(reason) => [
            label("tls", "no_identity"),
            label("no_tls_reason", reason.as_str()),
        ]
        .into(),
    }
}

pub(crate) fn label_map(prefix: &str, meta: &Meta) -> LabelMap {
    [
        ("group", meta.group()),
        ("kind", meta.kind()),
        ("name", meta.name()),
    ]
    .into_iter()
    .map(|(k, v)| (format!("{prefix}_{k}"), v.to_owned()))
    .collect()
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self {
            error,
            answer: Answer::Plain,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Observe for Followed {
    fn data(&mut self, bytes: usize) {
        if let Some(entry) = &mut self.entry {
            entry.data(bytes);
        }
    }

    fn end(&mut self, end: linkerd_http::End<'_>) {
        if let Some(span) = &mut self.span {
            span.end(end);
        }
        if let Some(entry) = &mut self.entry {
            entry.end(end);
        }
    }
}

impl Observe for Tail {
    fn data(&mut self, bytes: usize) {
        self.record.data(bytes);
        self.stream.data(bytes);
        if let Some(taps) = &mut self.taps {
            taps.data(bytes);
        }
    }

    fn end(&mut self, end: linkerd_http::End<'_>) {
        self.record.end(end);
        self.stream.end(end);
        if let Some(taps) = &mut self.taps {
            taps.end(end);
        }
    }
}

/// How many routes a connection remembers the series of; they are shared with all others anyway.
const MAX_CACHED: usize = 64;
