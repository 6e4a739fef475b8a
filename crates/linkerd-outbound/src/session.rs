//! The HTTP requests of one connection.

use crate::{
    Outbound,
    backend::Backend,
    destination::{DISCOVERY, Destination},
    dispatch::{Dispatch, Outgoing, Unanswered},
    limits::{Clock, Deadline, Limits},
    overrides,
    plan::{Filter, Http, Plan, ProfileRoutes, Protocol, RouteBackend, Rule},
    retry::{self, Attempt, Decision, Retry},
};
use http::{HeaderValue, StatusCode, Version, request::Parts};
use linkerd_http::{
    Body, Classes, End, Handler, Observe, Record, Request, Response, StreamRecord, h1,
    headers::{self, L5D_DST_CANONICAL, L5D_DST_OVERRIDE, L5D_REQUIRE_ID},
};
use linkerd_metrics::{Classification, Labels, RetrySeries};
use linkerd_policy::{Id, Labels as LabelMap, Meta, filter::HeaderModifier, profile::LookupTarget, route};
use linkerd_stack::{Cause, Client, Error, Informational, Retry as Retryable, Synthetic, is_grpc};
use linkerd_tap::{Connection as Tapped, Direction, Inspect};
use linkerd_trace::{Side, Tracer};
use rand::Rng;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

pub(crate) struct Session {
    outbound: Arc<Outbound>,
    destination: Arc<Destination>,
    client: SocketAddr,
    /// Where the client believes to be connected to.
    server: SocketAddr,
}

/// Why a request is answered by the proxy.
struct Refusal {
    error: Error,
    answer: Answer,
    /// The backend whose endpoints have not counted the request.
    unserved: Option<Arc<Backend>>,
    /// Counts the request in its route.
    record: Option<Record>,
    /// Taps have seen its attempts.
    shown: bool,
}

enum Answer {
    Plain,
    Redirect(StatusCode, HeaderValue),
    Status(StatusCode),
    Grpc(u16),
}

/// Frees a request's place among those in flight when its response has ended.
struct InFlight(Arc<AtomicUsize>);

/// A response with what is to be counted at its end.
struct Routed {
    response: Response,
    records: Records,
}

/// A request that a policy's route counts, and the attempt that was answered.
#[derive(Default)]
struct Records {
    route: Option<StreamRecord>,
    backend: Option<StreamRecord>,
}

/// What is done at a response's end.
struct Tail {
    records: Records,
    /// A tunnel takes the place with it.
    _in_flight: Option<InFlight>,
}

impl Observe for Tail {
    fn data(&mut self, bytes: usize) {
        if let Some(backend) = &mut self.records.backend {
            backend.data(bytes);
        }
    }

    fn end(&mut self, end: End<'_>) {
        for record in [&mut self.records.backend, &mut self.records.route]
            .into_iter()
            .flatten()
        {
            record.end(end);
        }
    }
}

impl Session {
    pub(crate) fn new(
        outbound: &Arc<Outbound>,
        destination: &Arc<Destination>,
        client: SocketAddr,
        server: SocketAddr,
    ) -> Arc<Self> {
        Arc::new(Self {
            outbound: outbound.clone(),
            destination: destination.clone(),
            client,
            server,
        })
    }

    /// What holds for a request: the plan of its connection's destination, or of the one that it names itself.
    async fn plan(&self, parts: &mut Parts) -> Result<Arc<Plan>, Error> {
        let missing = || Error::new(Cause::Internal, "destination is not known");
        if self.outbound.config.ingress
            && let Some(name) = take_override(parts)?
        {
            let destination = self
                .outbound
                .destinations
                .of(&self.outbound, &LookupTarget::Name(name));
            return destination.plan(DISCOVERY).await;
        }
        self.destination.current().ok_or_else(missing)
    }

    async fn route(&self, mut parts: Parts, body: Body, started: Instant) -> Result<Routed, Box<Refusal>> {
        let plan = self.plan(&mut parts).await?;
        let named = headers::authority(&parts)?;
        let required_id = take_required_id(&mut parts)?;
        let request = Incoming {
            parts,
            body,
            named,
            required_id,
            started,
        };
        let http = match (&plan.protocol, request.parts.version) {
            (Protocol::Detect { http2, .. }, Version::HTTP_2) => http2,
            (Protocol::Detect { http1, .. }, _) => http1,
            (Protocol::Http1(http) | Protocol::Http2(http), _) => http,
            (Protocol::Invalid(reason), _) => {
                let detail = format!("invalid client policy configuration: {reason}");
                return Err(Error::new(Cause::InvalidPolicy, detail).into());
            }
            (Protocol::Bytes(_) | Protocol::Tls(_), _) => {
                let detail = format!("destination {} is opaque", plan.target);
                return Err(Error::new(Cause::NoRoute, detail).into());
            }
        };
        match &**http {
            Http::Profile(routes) => {
                let response = self.by_profile(&plan, routes, request).await?;
                let records = Records::default();
                Ok(Routed { response, records })
            }
            Http::Routes(routes) => {
                let found = {
                    let (host, p) = (request.host(), &request.parts);
                    route::find(routes, host, &p.method, &p.uri, &p.headers)
                };
                let found = found.ok_or_else(no_route)?;
                self.by_rule(&plan, found.route, found.rule, found.matched_prefix, request)
                    .await
            }
            Http::Grpc(routes) => {
                let found = {
                    let (host, p) = (request.host(), &request.parts);
                    route::find(routes, host, &p.method, &p.uri, &p.headers)
                };
                let found = found.ok_or_else(no_route)?;
                self.by_rule(&plan, found.route, found.rule, found.matched_prefix, request)
                    .await
            }
        }
    }

    /// A request of a destination with a ServiceProfile.
    async fn by_profile(
        &self,
        plan: &Plan,
        routes: &ProfileRoutes,
        request: Incoming,
    ) -> Result<Response, Box<Refusal>> {
        let Incoming {
            mut parts,
            body,
            named,
            required_id,
            started,
        } = request;
        let profile = &routes.profile;
        let matches = |r: &linkerd_policy::profile::Route| r.condition.matches(&parts.method, &parts.uri);
        let index = profile
            .routes
            .iter()
            .position(matches)
            .unwrap_or(profile.routes.len());
        let route = profile.routes.get(index);
        let series = routes.series(index);
        let classes = Classes::Profile(profile.clone(), index);
        let record = Record::begin(
            series.map(|s| s.logical.clone()),
            classes.clone(),
            started.into_std(),
        );
        if let Some(canonical) = &routes.canonical {
            parts.headers.insert(L5D_DST_CANONICAL, canonical.clone());
        }
        let authority = named.map_or_else(|| logical_authority(&routes.authority), Ok)?;
        let mut out = Outgoing::new(parts, body, authority, RETRY_BODY);
        let route_labels = || route.map(|r| (*r.labels).clone()).unwrap_or_default();
        let dispatch = Dispatch {
            outbound: &self.outbound,
            client: self.client,
            classes: &classes,
            actual: series.map(|s| &s.actual),
            route_labels: &route_labels,
            required_id: required_id.as_ref(),
            limits: Limits {
                clock: None,
                head: route
                    .and_then(|r| r.timeout)
                    .map(|t| Deadline::after(t, started, Cause::RequestTimeout)),
            },
        };
        let budget = routes
            .budget
            .as_ref()
            .filter(|_| route.is_some_and(|r| r.retryable));
        if let Some(budget) = budget {
            budget.deposit(Instant::now());
        }
        loop {
            let target = routes.targets.choose().ok_or_else(no_backend)?;
            let mut outcome = dispatch.send(&target.backend, &mut out).await;
            if budget.is_some() && out.is_whole() {
                outcome = Box::pin(retry::peek(outcome, &dispatch.limits)).await;
            }
            let failed = match &outcome {
                Ok(response) => is_failure(&classes, response),
                Err(unanswered) => unanswered.error.retry() != Retryable::Never,
            };
            if failed
                && out.is_whole()
                && dispatch.limits.head.is_none_or(|head| Instant::now() < head.at)
                && let Some(budget) = budget
            {
                if budget.withdraw(Instant::now()) {
                    continue;
                }
                if let Some(series) = series {
                    series.no_budget.incr();
                }
            }
            return match outcome {
                Ok(response) => Ok(record.follow(response)),
                Err(mut unanswered) => {
                    unanswered.error = unanswered.error.within(profile_route(route));
                    Err(self.unanswered(plan, unanswered, &target.backend, Some(record)))
                }
            };
        }
    }

    /// A request that matched a policy's route.
    async fn by_rule(
        &self,
        plan: &Plan,
        route: &Arc<Meta>,
        rule: &Rule,
        prefix: Option<&str>,
        mut request: Incoming,
    ) -> Result<Routed, Box<Refusal>> {
        let series = rule.series.of(request.host());
        let mut record =
            StreamRecord::begin(&series.stream, rule.series.protocol, request.started.into_std());
        request.body = record.request(request.body);
        let retries = &series.retries;
        match self
            .send_by_rule(plan, route, rule, (prefix, retries, &record), request)
            .await
        {
            Ok(mut routed) => {
                record.response(routed.response.status(), routed.response.headers());
                routed.records.route = Some(record);
                Ok(routed)
            }
            Err(refusal) => {
                record.failed(refusal.error.cause());
                Err(refusal)
            }
        }
    }

    async fn send_by_rule(
        &self,
        plan: &Plan,
        route: &Arc<Meta>,
        rule: &Rule,
        (prefix, retries, record): (Option<&str>, &RetrySeries, &StreamRecord),
        request: Incoming,
    ) -> Result<Routed, Box<Refusal>> {
        let Incoming {
            mut parts,
            body,
            named,
            required_id,
            started,
        } = request;
        let mut response_headers = Vec::new();
        // Most requests ask for nothing of their own, and get by with what the plan holds.
        let own = (rule.overridable && overrides::asked(&parts.headers))
            .then(|| overrides::take(&mut parts.headers, rule.timeouts, rule.retry.as_ref()));
        let (timeouts, retry) = match &own {
            Some((timeouts, retry)) => (*timeouts, retry.as_ref()),
            None => (rule.timeouts, rule.retry.as_ref()),
        };
        apply(&rule.filters, prefix, &mut parts, &mut response_headers)?;
        let fallback = || plan.target.to_string();
        let authority = named.map_or_else(|| logical_authority(&fallback()), Ok)?;
        let route_labels = || route_labels(route);
        let classes = Classes::Default;
        let method = parts.method.clone();
        let clock = Clock::start(timeouts, started);
        let body = match &clock {
            Some(clock) => clock.request(body),
            None => body,
        };
        let mut out = Outgoing::new(parts, body, authority, retry.map_or(RETRY_BODY, |r| r.max_bytes));
        if retry.is_some() {
            rule.budget.deposit(Instant::now());
        }
        let mut number = 0_u32;
        loop {
            let chosen = rule.backends.choose().ok_or_else(no_backend)?;
            let limits = Limits {
                clock: clock.as_ref(),
                head: retry.and_then(|r| per_try(r, number)),
            };
            let dispatch = Dispatch {
                outbound: &self.outbound,
                client: self.client,
                classes: &classes,
                actual: None,
                route_labels: &route_labels,
                required_id: required_id.as_ref(),
                limits,
            };
            let mut tried = chosen.series.as_ref().map(|series| series.begin(record));
            let mut outcome = match self
                .send_filtered(&dispatch, chosen, &mut out, &mut response_headers)
                .await
            {
                Ok(outcome) => outcome,
                Err(refusal) => {
                    end_attempt(tried, Some(refusal.error.cause()));
                    return Err(refusal);
                }
            };
            if let (Some(tried), Ok(response)) = (&mut tried, &outcome) {
                tried.response(response.status(), response.headers());
            }
            if let Some(retry) = retry {
                if number < u32::from(retry.limit) && out.is_whole() {
                    outcome = Box::pin(retry.peek(outcome, &limits)).await;
                }
                let decision = retry.decide(
                    &Attempt {
                        outcome: &outcome,
                        method: &method,
                        number,
                        whole: out.is_whole(),
                        limits,
                    },
                    &rule.budget,
                );
                count(retries, decision, number > 0 && outcome.is_ok());
                if let Decision::Again(pause) = decision {
                    // Lets go of the server's stream first.
                    end_attempt(tried, outcome.err().map(|unanswered| unanswered.error.cause()));
                    sleep(pause).await;
                    number += 1;
                    continue;
                }
            }
            return match outcome {
                Ok(mut response) => {
                    response_headers
                        .iter()
                        .for_each(|m| m.apply(response.headers_mut()));
                    let records = Records {
                        route: None,
                        backend: tried,
                    };
                    Ok(Routed { response, records })
                }
                Err(mut unanswered) => {
                    end_attempt(tried, Some(unanswered.error.cause()));
                    unanswered.error = unanswered.error.within(format_args!("route {route}"));
                    Err(self.unanswered(plan, unanswered, &chosen.backend, None))
                }
            };
        }
    }

    /// Sends a request through the filters of the chosen backend.
    async fn send_filtered(
        &self,
        dispatch: &Dispatch<'_>,
        chosen: &RouteBackend,
        out: &mut Outgoing,
        response_headers: &mut Vec<HeaderModifier>,
    ) -> Result<Result<Response, Unanswered>, Box<Refusal>> {
        if chosen.filters.is_empty() {
            return Ok(dispatch.send(&chosen.backend, out).await);
        }
        let mut parts = out.parts().clone();
        apply(&chosen.filters, None, &mut parts, response_headers)?;
        let original = out.replace_parts(parts);
        let outcome = dispatch.send(&chosen.backend, out).await;
        out.replace_parts(original);
        Ok(outcome)
    }

    /// Counts a request that no endpoint answered, where no endpoint could.
    fn unanswered(
        &self,
        plan: &Plan,
        unanswered: Unanswered,
        backend: &Arc<Backend>,
        record: Option<Record>,
    ) -> Box<Refusal> {
        let Unanswered { error, counted } = unanswered;
        let error = error.within(format_args!("logical service {} ({})", plan.target, plan.parent));
        Box::new(Refusal {
            error,
            answer: Answer::Plain,
            unserved: (!counted).then(|| backend.clone()),
            record,
            shown: counted,
        })
    }

    /// `head` is the request, kept for taps.
    fn refuse(
        &self,
        client: Client,
        refusal: Refusal,
        started: Instant,
        head: Option<&Parts>,
    ) -> Result<Response, Error> {
        let Refusal {
            error,
            answer,
            unserved,
            record,
            shown,
        } = refusal;
        let cause = error.cause();
        if cause != Cause::Redirect {
            let labels = Labels::new().with("error", cause.code());
            self.outbound.metrics.http_errors.series(&labels).incr();
            info!(client = %self.client, server = %self.destination.target, code = cause.code(), error = error.detail(), "request failed");
        }
        if error.reset().is_some() && client.version == Version::HTTP_2 {
            if let Some(record) = record {
                record.reset(&error);
            }
            return Err(error);
        }
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
        if let Some(backend) = unserved {
            let series = [backend.unserved(&self.outbound)];
            let record = Record::begin(series, Classes::Default, started.into_std());
            record.failed(answer.status, answer.head.headers(), &error);
        }
        if let Some(record) = record {
            record.failed(answer.status, answer.head.headers(), &error);
        }
        if let Some(parts) = head.filter(|_| !shown) {
            self.show(parts, &answer);
        }
        Ok(answer.head.map(|()| Body::empty()))
    }

    /// Shows taps a request that has reached no endpoint.
    fn show(&self, parts: &Parts, answer: &Synthetic) {
        let inspect = Inspect {
            connection: Tapped {
                direction: Direction::Outbound,
                client: self.client,
                client_labels: LabelMap::new(),
                server: self.server,
                server_labels: LabelMap::new(),
            },
            route_labels: LabelMap::new(),
            parts,
        };
        self.outbound
            .tap
            .refused(&inspect, answer.status, answer.head.headers(), answer.cause);
    }

    fn informational(&self) -> Informational {
        match self.outbound.config.informational_headers {
            true => Informational::Allowed,
            false => Informational::Suppressed,
        }
    }

    fn enter(&self) -> Result<InFlight, Box<Refusal>> {
        let in_flight = InFlight(self.outbound.in_flight.clone());
        if in_flight.0.fetch_add(1, Relaxed) >= self.outbound.config.max_in_flight {
            return Err(Error::new(Cause::LoadShed, "too many requests in flight").into());
        }
        Ok(in_flight)
    }
}

/// A request with what was found out about it.
struct Incoming {
    parts: Parts,
    body: Body,
    /// The authority that it names.
    named: Option<http::uri::Authority>,
    required_id: Option<Id>,
    started: Instant,
}

impl Incoming {
    fn host(&self) -> Option<&str> {
        self.named.as_ref().map(http::uri::Authority::as_str)
    }
}

impl Handler for Session {
    fn reject(&self, error: &Error, status: StatusCode) -> Response {
        let client = Client {
            version: Version::HTTP_11,
            grpc: false,
            informational: self.informational(),
        };
        let code = error.cause().code();
        let labels = Labels::new().with("error", code);
        self.outbound.metrics.http_errors.series(&labels).incr();
        info!(client = %self.client, server = %self.server, code, error = error.detail(), "request rejected");
        let answer = Synthetic::from_error(error, client, Some(status));
        answer.head.map(|()| Body::empty())
    }

    async fn handle(&self, request: Request) -> Result<Response, Error> {
        match &self.outbound.tracer {
            None => self.serve(request).await,
            // In the heap, so that it does not weigh on connections of proxies that do not trace.
            Some(tracer) => Box::pin(self.trace(tracer, request)).await,
        }
    }
}

impl Session {
    async fn trace(&self, tracer: &Tracer, request: Request) -> Result<Response, Error> {
        let (mut parts, body) = request.into_parts();
        let span = tracer.begin(Side::Outbound, &self.destination.target, &mut parts);
        let result = self.serve(Request::from_parts(parts, body)).await;
        let Some(mut span) = span else { return result };
        match result {
            Ok(response) => {
                let cause = response.extensions().get().copied();
                span.response(response.status(), response.headers(), cause);
                Ok(response.map(|body| body.observe(span)))
            }
            Err(error) => {
                span.failed(&error);
                Err(error)
            }
        }
    }

    async fn serve(&self, request: Request) -> Result<Response, Error> {
        let started = Instant::now();
        let (mut parts, body) = request.into_parts();
        if headers::any_of_mesh(&parts.headers) {
            parts.headers.remove(headers::L5D_ORIG_PROTO);
            parts.headers.remove(headers::L5D_CLIENT_ID);
        }
        let client = Client {
            version: parts.version,
            grpc: is_grpc(&parts.headers),
            informational: self.informational(),
        };
        let in_flight = match self.enter() {
            Ok(in_flight) => in_flight,
            Err(refusal) => return self.refuse(client, *refusal, started, Some(&parts)),
        };
        let head = self.outbound.tap.is_active().then(|| parts.clone());
        // The future of a routed request is large; in the heap it does not weigh on the connection's own.
        match Box::pin(self.route(parts, body, started)).await {
            Ok(Routed { response, records }) => {
                Ok(holding(in_flight, records, returned(response, client.version)))
            }
            Err(refusal) => self.refuse(client, *refusal, started, head.as_ref()),
        }
    }
}

/// Keeps the request's place until the response ends, or the tunnel that it has begun.
fn holding(in_flight: InFlight, records: Records, mut response: Response) -> Response {
    let mut in_flight = Some(in_flight);
    if h1::is_tunnel(response.extensions()) {
        response.extensions_mut().insert(Arc::new(in_flight.take()));
    }
    let tail = Tail {
        records,
        _in_flight: in_flight,
    };
    response.map(|body| body.observe(tail))
}

/// Readies a response for the application.
fn returned(response: Response, client: Version) -> Response {
    let (mut parts, body) = response.into_parts();
    if client == Version::HTTP_2 {
        headers::response_to_h2(&mut parts.version, &mut parts.headers, None);
        parts.headers.remove(headers::L5D_ORIG_PROTO);
    } else {
        headers::response_to_h1(parts.status, &mut parts.version, &mut parts.headers, client);
    }
    Response::from_parts(parts, body)
}

fn logical_authority(name: &str) -> Result<http::uri::Authority, Error> {
    name.parse()
        .map_err(|_| Error::new(Cause::MalformedRequest, format!("no host, and {name} is none")))
}

/// `l5d-dst-override`: where an ingress wants the request to go, `host[:port]`.
fn take_override(parts: &mut Parts) -> Result<Option<Arc<str>>, Error> {
    let Some(value) = parts.headers.remove(L5D_DST_OVERRIDE) else {
        return Ok(None);
    };
    let invalid = || Error::new(Cause::MalformedRequest, "l5d-dst-override is no authority");
    let authority: http::uri::Authority = value
        .to_str()
        .ok()
        .and_then(|v| v.trim().parse().ok())
        .filter(|a: &http::uri::Authority| !a.as_str().contains('@') && !a.host().is_empty())
        .ok_or_else(invalid)?;
    let host = authority.host().to_ascii_lowercase();
    Ok(Some(
        format!("{}:{}", host, authority.port_u16().unwrap_or(80)).into(),
    ))
}

/// `l5d-require-id`: the application pins the server's identity.
fn take_required_id(parts: &mut Parts) -> Result<Option<Id>, Error> {
    let Some(value) = parts.headers.remove(L5D_REQUIRE_ID) else {
        return Ok(None);
    };
    let invalid = || Error::new(Cause::MalformedRequest, "l5d-require-id is no identity");
    value
        .to_str()
        .ok()
        .and_then(|v| v.parse().ok())
        .map(Some)
        .ok_or_else(invalid)
}

fn no_route() -> Box<Refusal> {
    Error::new(Cause::NoRoute, "no route").into()
}

fn no_backend() -> Box<Refusal> {
    Error::new(Cause::LoadShed, "the route has no backends").into()
}

fn is_failure(classes: &Classes, response: &Response) -> bool {
    classes.classify(response.status(), retry::status_of(response)) == Classification::Failure
}

fn profile_route(route: Option<&linkerd_policy::profile::Route>) -> String {
    match route.and_then(|r| r.labels.get("route")) {
        Some(name) => format!("profile route {name}"),
        None => "profile".into(),
    }
}

fn route_labels(route: &Meta) -> LabelMap {
    [
        ("route_group", route.group()),
        ("route_kind", route.kind()),
        ("route_namespace", route.namespace()),
        ("route_name", route.name()),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}

/// Until when an attempt's response must have begun. The last attempt has all the time that is left.
fn per_try(retry: &Retry, number: u32) -> Option<Deadline> {
    let limit = retry.timeout.filter(|_| number < u32::from(retry.limit))?;
    Some(Deadline::after(limit, Instant::now(), Cause::ResponseTimeout))
}

/// Counts an attempt whose response nobody reads, or that has none.
fn end_attempt(tried: Option<StreamRecord>, cause: Option<Cause>) {
    match (tried, cause) {
        (Some(tried), Some(cause)) => tried.failed(cause),
        (Some(tried), None) => tried.given_up(),
        (None, _) => {}
    }
}

/// Counts what was decided after an attempt; `mended`: a retry got a response.
fn count(retries: &RetrySeries, decision: Decision, mended: bool) {
    match decision {
        Decision::Again(_) => retries.requests.incr(),
        Decision::LimitExceeded => retries.limit_exceeded.incr(),
        Decision::NoBudget | Decision::Impossible => retries.overflow.incr(),
        Decision::Done if mended => retries.successes.incr(),
        Decision::Done => {}
    }
}

fn apply(
    filters: &[Filter],
    prefix: Option<&str>,
    parts: &mut Parts,
    response_headers: &mut Vec<HeaderModifier>,
) -> Result<(), Box<Refusal>> {
    for filter in filters {
        match filter {
            Filter::RequestHeaders(modifier) => modifier.apply(&mut parts.headers),
            Filter::ResponseHeaders(modifier) => response_headers.push(modifier.clone()),
            Filter::Redirect(redirect) => {
                let uri = headers::absolute_uri(parts);
                let location = redirect
                    .location(&uri, prefix)
                    .map_err(|e| Error::new(Cause::InvalidPolicy, e.to_string()))?
                    .to_string();
                let error = Error::new(Cause::Redirect, &*location);
                let location = HeaderValue::from_str(&location)
                    .map_err(|_| Error::new(Cause::InvalidPolicy, "redirect to an invalid location"))?;
                let answer = Answer::Redirect(redirect.status, location);
                return Err(Box::new(Refusal {
                    error,
                    answer,
                    unserved: None,
                    record: None,
                    shown: false,
                }));
            }
            Filter::HttpFailure(injector) if injector.ratio.hits(rand::rng().random()) => {
                let error = Error::new(Cause::FaultInjected, &*injector.failure.message);
                return Err(Box::new(Refusal {
                    error,
                    answer: Answer::Status(injector.failure.status),
                    unserved: None,
                    record: None,
                    shown: false,
                }));
            }
            Filter::GrpcFailure(injector) if injector.ratio.hits(rand::rng().random()) => {
                let error = Error::new(Cause::FaultInjected, &*injector.failure.message);
                return Err(Box::new(Refusal {
                    error,
                    answer: Answer::Grpc(injector.failure.code),
                    unserved: None,
                    record: None,
                    shown: false,
                }));
            }
            Filter::HttpFailure(_) | Filter::GrpcFailure(_) => {}
            Filter::Unknown => return Err(Error::new(Cause::InvalidPolicy, "unknown filter").into()),
        }
    }
    Ok(())
}

impl From<Error> for Box<Refusal> {
    fn from(error: Error) -> Self {
        debug!(%error, "request refused");
        Self::new(Refusal {
            error,
            answer: Answer::Plain,
            unserved: None,
            record: None,
            shown: false,
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The largest body that is kept for another attempt, when no policy says otherwise.
const RETRY_BODY: usize = 64 * 1024;
