//! Sends a request to one of a backend's endpoints, and to another one as long as none has seen it.

use crate::{
    Outbound,
    backend::{Backend, PickedEndpoint},
    endpoint::{Endpoint, Ready},
    limits::Limits,
    verdict::{Head, Verdict},
};
use http::{Version, header, request::Parts};
use http_body::Body as _;
use linkerd_balance::Outcome;
use linkerd_http::{
    Body, Classes, End, Failed, Observe, Record, Replay, Request, Response, detect,
    headers::{self, L5D_DST_CANONICAL, L5D_PROXY_CONNECTION, L5D_PROXY_ERROR},
};
use linkerd_metrics::HttpSeries;
use linkerd_policy::{Id, Labels as LabelMap};
use linkerd_stack::{Cause, Error, Retry, Source};
use linkerd_tap::{Connection as Tapped, Direction, HttpTaps, Inspect};
use linkerd_tls::ClientTls;
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};

/// A request as the application sent it, ready to be sent once or several times.
pub(crate) struct Outgoing {
    parts: Parts,
    body: OutgoingBody,
    /// Where it goes when it does not say so itself.
    authority: http::uri::Authority,
}

enum OutgoingBody {
    Empty,
    Once(Option<Body>),
    Replay(Replay),
}

/// How one request is sent.
pub(crate) struct Dispatch<'a> {
    pub(crate) outbound: &'a Outbound,
    pub(crate) client: SocketAddr,
    pub(crate) classes: &'a Classes,
    /// Counts each attempt, besides the endpoint's own series.
    pub(crate) actual: Option<&'a Arc<HttpSeries>>,
    pub(crate) route_labels: &'a (dyn Fn() -> LabelMap + Sync),
    pub(crate) required_id: Option<&'a Id>,
    pub(crate) limits: Limits<'a>,
}

/// A request that no endpoint answered.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) error: Error,
    /// Whether an endpoint's series has counted it.
    pub(crate) counted: bool,
}

/// An endpoint's response.
struct Answer {
    response: Response,
    /// Its proxy says that its application has not seen the request.
    refused: bool,
    /// Why its proxy itself made it.
    by_proxy: Option<Cause>,
}

/// What is done at a response's end.
struct Tail {
    record: Record,
    picked: PickedEndpoint,
    taps: Option<HttpTaps>,
    classes: Classes,
    head: Head,
    /// The endpoint has been judged by the head.
    judged: bool,
}

impl Outgoing {
    /// `keep` bounds the body that can be sent again.
    pub(crate) fn new(parts: Parts, body: Body, authority: http::uri::Authority, keep: usize) -> Self {
        let too_large = || {
            let length = parts
                .headers
                .get(header::CONTENT_LENGTH)
                .and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
            length.is_some_and(|n| n > keep)
        };
        let body = if body.is_end_stream() {
            OutgoingBody::Empty
        } else if too_large() || headers::is_upgrade(&parts) {
            OutgoingBody::Once(Some(body))
        } else {
            OutgoingBody::Replay(Replay::new(body, keep))
        };
        Self {
            parts,
            body,
            authority,
        }
    }

    pub(crate) const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Sends other parts from now on; returns the former ones.
    pub(crate) const fn replace_parts(&mut self, parts: Parts) -> Parts {
        std::mem::replace(&mut self.parts, parts)
    }

    fn is_idempotent(&self) -> bool {
        self.parts.method.is_idempotent() && self.parts.method != http::Method::CONNECT
    }

    /// Whether all of it can be sent once more.
    pub(crate) fn is_whole(&self) -> bool {
        match &self.body {
            OutgoingBody::Empty => true,
            OutgoingBody::Once(body) => body.is_some(),
            OutgoingBody::Replay(replay) => replay.is_whole(),
        }
    }

    fn request(&mut self) -> Request {
        let body = match &mut self.body {
            OutgoingBody::Empty => Body::empty(),
            OutgoingBody::Once(body) => body.take().unwrap_or_default(),
            OutgoingBody::Replay(replay) => replay.body(),
        };
        Request::from_parts(self.parts.clone(), body)
    }

    /// Takes back the body of a request of which nothing was sent.
    fn unsent(&mut self, request: Request) {
        if let OutgoingBody::Once(body) = &mut self.body {
            *body = Some(request.into_body());
        }
    }
}

impl Dispatch<'_> {
    /// Waits for an endpoint and sends the request. As long as no server has seen it, further endpoints are tried.
    pub(crate) async fn send(&self, backend: &Backend, out: &mut Outgoing) -> Result<Response, Unanswered> {
        let give_up = Instant::now() + self.outbound.config.failfast;
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut picked = self.pick(backend).await.map_err(|error| Unanswered {
            error,
            counted: false,
        })?;
        let (mut counted, mut lost_before) = (false, false);
        loop {
            let addr = picked.addr();
            let outcome = self.attempt(picked, out).await;
            counted |= outcome.as_ref().map_or_else(|e| e.counted, |_| true);
            let unsent = match &outcome {
                Ok(answer) => answer.refused,
                Err(unanswered) => unanswered.error.retry() == Retry::Unsent,
            };
            // RFC 9110 §9.2.2: what may be repeated by its method may be sent again when its connection was lost.
            let lost = !lost_before && out.is_idempotent() && was_lost(&outcome);
            lost_before |= lost;
            let again = (unsent || lost) && out.is_whole() && tried.len() + 1 < MAX_ATTEMPTS;
            let next = if again {
                tried.push(addr);
                Box::pin(self.next(backend, &tried, give_up)).await
            } else {
                None
            };
            match next {
                Some(next) => picked = next,
                None => {
                    return match outcome {
                        Ok(answer) => Ok(answer.response),
                        Err(Unanswered { error, .. }) => Err(Unanswered {
                            error: error.within(&backend.name),
                            counted,
                        }),
                    };
                }
            }
        }
    }

    async fn pick(&self, backend: &Backend) -> Result<PickedEndpoint, Error> {
        if let Some(picked) = backend.pick_now(&[]) {
            return Ok(picked);
        }
        Box::pin(self.wait(backend)).await
    }

    async fn wait(&self, backend: &Backend) -> Result<PickedEndpoint, Error> {
        match self
            .limits
            .within("waiting for an endpoint", backend.pick(&[]))
            .await
        {
            Ok(picked) => picked,
            Err(late) => Err(late.within(&backend.name)),
        }
    }

    /// Another endpoint, or the same one when it is back: a service whose pods are being replaced has moments without
    /// any.
    async fn next(
        &self,
        backend: &Backend,
        tried: &[SocketAddr],
        give_up: Instant,
    ) -> Option<PickedEndpoint> {
        if let Some(other) = backend.pick_now(tried) {
            return Some(other);
        }
        if !backend.may_recover() {
            return None;
        }
        let waiting = timeout_at(give_up, backend.pick(tried));
        self.limits.within("waiting", waiting).await.ok()?.ok()?.ok()
    }

    async fn attempt(&self, mut picked: PickedEndpoint, out: &mut Outgoing) -> Result<Answer, Unanswered> {
        let endpoint = picked.endpoint().clone();
        self.check_identity(&endpoint)?;
        let upgrade = headers::is_upgrade(&out.parts);
        let over_h2 = out.parts.version == Version::HTTP_2 || (endpoint.upgrades() && !upgrade);
        let version = if over_h2 {
            detect::Version::Http2
        } else {
            detect::Version::Http1
        };
        let mut begun: Option<(Record, Option<HttpTaps>)> = None;
        let request = out.request();
        let mut request = prepare(request, out, &endpoint, over_h2, upgrade)?;
        // Neither a client of HTTP/1.0 nor one that names no host promises that its server keeps connections.
        let once = out.parts.version == Version::HTTP_10
            || (out.parts.version == Version::HTTP_11 && !out.parts.headers.contains_key(header::HOST));
        let started = std::time::Instant::now();
        for _ in 0..STALE_ATTEMPTS {
            let ready = match self.connect(&endpoint, version, once).await {
                Ok(ready) => ready,
                Err(error) => {
                    if error.is_connect() {
                        picked.unreachable();
                    }
                    out.unsent(request);
                    return Err(give_up(begun, error));
                }
            };
            let may_be_stale = ready.may_be_stale();
            let (record, taps) = match begun.take() {
                Some(begun) => begun,
                None => self.begin(&endpoint, out, started),
            };
            let request_taps = match &taps {
                Some(taps) => observe_request(request, taps),
                None => request,
            };
            match self.exchange(ready, request_taps, &mut picked).await {
                Ok(response) => {
                    if is_refused(&endpoint, &response) {
                        picked.unreachable();
                    } else {
                        picked.reached();
                        picked.answered(started.elapsed());
                    }
                    return Ok(self.respond(response, &endpoint, record, taps, picked));
                }
                Err(Failed {
                    request: Some(unsent),
                    ..
                }) if may_be_stale => {
                    request = *unsent;
                    begun = Some((record, taps));
                }
                Err(Failed { error, request }) => {
                    let error = error.within(format_args!("endpoint {}", endpoint.spec.addr));
                    if let Some(unsent) = request {
                        out.unsent(*unsent);
                    }
                    if error.cause().source() == Source::Upstream && error.retry() != Retry::Unsent {
                        picked.reached();
                        judge(&mut picked, Verdict::BROKEN);
                    }
                    return Err(give_up(Some((record, taps)), error));
                }
            }
        }
        out.unsent(request);
        let detail = format!("endpoint {} closes each connection at once", endpoint.spec.addr);
        let error = Error::new(Cause::UpstreamClosed, detail).unsent();
        Err(give_up(begun, error))
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        version: detect::Version,
        once: bool,
    ) -> Result<Ready, Error> {
        if let Some(ready) = endpoint.ready_now(version) {
            return Ok(ready);
        }
        let place = || format!("endpoint {}", endpoint.spec.addr);
        // The future of a new connection is large, and few requests need one.
        let ready = Box::pin(endpoint.ready(version, once));
        match self.limits.within("connecting", ready).await {
            Ok(ready) => ready,
            Err(late) => Err(late.within(place())),
        }
    }

    async fn exchange(
        &self,
        ready: Ready,
        request: Request,
        picked: &mut PickedEndpoint,
    ) -> Result<Response, Failed> {
        let mut sending = pin!(ready.send(request));
        if picked.is_probe() {
            // A proxy whose application is not there says so at once; whoever takes longer is at work.
            match self
                .limits
                .within("waiting for the response", timeout(REFUSAL, sending.as_mut()))
                .await
            {
                Ok(Ok(result)) => return result,
                Ok(Err(_)) => picked.reached(),
                Err(late) => return Err(Failed::new(late)),
            }
        }
        match self.limits.within("waiting for the response", sending).await {
            Ok(result) => result,
            Err(late) => Err(Failed::new(late)),
        }
    }

    fn check_identity(&self, endpoint: &Endpoint) -> Result<(), Unanswered> {
        let Some(required) = self.required_id else {
            return Ok(());
        };
        let found = match &endpoint.tls {
            ClientTls::Established { server_id } if server_id == required => return Ok(()),
            ClientTls::Established { server_id } => server_id.as_str(),
            ClientTls::None(_) => "none",
        };
        let error = Error::new(
            Cause::IdentityRequired,
            format!("required id {required}, found {found}"),
        );
        Err(Unanswered {
            error,
            counted: false,
        })
    }

    fn begin(
        &self,
        endpoint: &Endpoint,
        out: &Outgoing,
        started: std::time::Instant,
    ) -> (Record, Option<HttpTaps>) {
        let series = [Some(&endpoint.series), self.actual]
            .into_iter()
            .flatten()
            .cloned();
        let taps = self.taps(endpoint, &out.parts);
        (Record::begin(series, self.classes.clone(), started), taps)
    }

    fn taps(&self, endpoint: &Endpoint, parts: &Parts) -> Option<HttpTaps> {
        if !self.outbound.tap.is_active() {
            return None;
        }
        self.outbound.tap.request(&Inspect {
            connection: tapped(self.client, endpoint),
            route_labels: (self.route_labels)(),
            parts,
        })
    }

    /// Follows a response to its end.
    fn respond(
        &self,
        response: Response,
        endpoint: &Endpoint,
        mut record: Record,
        mut taps: Option<HttpTaps>,
        picked: PickedEndpoint,
    ) -> Answer {
        let response = match self.limits.clock {
            Some(clock) => clock.response(response),
            None => response,
        };
        let mut response = response;
        record.answered(&response);
        let (status, map) = (response.status(), response.headers());
        let by_proxy = made_by_proxy(endpoint, &response);
        let refused = is_refused(endpoint, &response);
        if let Some(taps) = &mut taps {
            taps.response(status, map, by_proxy);
        }
        let head = Head::new(status, map);
        response.headers_mut().remove(L5D_PROXY_CONNECTION);
        if by_proxy.is_none() || !self.outbound.config.informational_headers {
            response.headers_mut().remove(L5D_PROXY_ERROR);
        }
        let mut tail = Tail {
            record,
            picked,
            taps,
            classes: self.classes.clone(),
            head,
            judged: false,
        };
        tail.judge_early();
        Answer {
            response: response.map(|body| body.observe(tail)),
            refused,
            by_proxy,
        }
    }
}

/// Whether a server, or the proxy before it, lost the connection before the response began.
fn was_lost(outcome: &Result<Answer, Unanswered>) -> bool {
    match outcome {
        Ok(answer) => answer.by_proxy == Some(Cause::UpstreamClosed),
        Err(unanswered) => unanswered.error.cause() == Cause::UpstreamClosed,
    }
}

/// What a tap shows of a connection to an endpoint.
pub(crate) fn tapped(client: SocketAddr, endpoint: &Endpoint) -> Tapped {
    let mut server_labels = (*endpoint.spec.labels).clone();
    let mut label = |k: &str, v: &str| server_labels.insert(k.to_owned(), v.to_owned());
    match &endpoint.tls {
        ClientTls::Established { server_id } => {
            label("tls", "true");
            label("server_id", server_id.as_str());
        }
        ClientTls::None(reason) => {
            label("tls", "no_identity");
            label("no_tls_reason", reason.as_str());
        }
    }
    Tapped {
        direction: Direction::Outbound,
        client,
        client_labels: LabelMap::new(),
        server: endpoint.spec.addr,
        server_labels,
    }
}

fn observe_request(request: Request, taps: &HttpTaps) -> Request {
    request.map(|body| body.observe(taps.request_body()))
}

/// Ends what an attempt has begun.
fn give_up(begun: Option<(Record, Option<HttpTaps>)>, error: Error) -> Unanswered {
    let counted = begun.is_some();
    if let Some((record, taps)) = begun {
        record.reset(&error);
        if let Some(mut taps) = taps {
            taps.end(End::Failed(&error));
        }
    }
    Unanswered { error, counted }
}

/// Gives a request the form that the endpoint takes.
fn prepare(
    request: Request,
    out: &Outgoing,
    endpoint: &Endpoint,
    over_h2: bool,
    upgrade: bool,
) -> Result<Request, Unanswered> {
    let (mut parts, body) = request.into_parts();
    let mut authority = out.authority.clone();
    if let Some(forced) = endpoint
        .spec
        .authority_override
        .as_deref()
        .and_then(|a| a.parse().ok())
    {
        authority = forced;
        parts.headers.remove(header::HOST);
        parts.headers.remove(L5D_DST_CANONICAL);
        parts.uri = http::Uri::from(
            parts
                .uri
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")),
        );
    }
    let result = if parts.version == Version::HTTP_2 {
        headers::make_h2(&mut parts, authority)
    } else if over_h2 {
        headers::upgrade_to_h2(&mut parts, authority)
    } else {
        headers::strip_hop_by_hop(&mut parts.headers, upgrade);
        if !parts.headers.contains_key(header::HOST)
            && parts.version == Version::HTTP_11
            && let Ok(host) = http::HeaderValue::from_str(authority.as_str())
        {
            parts.headers.insert(header::HOST, host);
        }
        headers::set_host(&mut parts)
    };
    match result {
        Ok(()) => Ok(Request::from_parts(parts, body)),
        Err(error) => Err(Unanswered {
            error,
            counted: false,
        }),
    }
}

/// The cause for which a meshed endpoint's proxy itself made the response.
fn made_by_proxy(endpoint: &Endpoint, response: &Response) -> Option<Cause> {
    let error = response
        .headers()
        .get(L5D_PROXY_ERROR)
        .filter(|_| endpoint.is_meshed())?;
    Cause::parse_header(error.as_bytes())
}

/// Whether a meshed endpoint's proxy says that its application has not seen the request.
fn is_refused(endpoint: &Endpoint, response: &Response) -> bool {
    matches!(
        made_by_proxy(endpoint, response),
        Some(Cause::ConnectRefused | Cause::ConnectError | Cause::ConnectTimeout | Cause::ShuttingDown)
    )
}

impl Tail {
    /// A bad head needs no end to be known, and those who wait for a probe need not wait for a long body. A good head
    /// otherwise counts only once the response is complete.
    fn judge_early(&mut self) {
        let Some(verdict) = self.head.verdict(&self.classes) else {
            return;
        };
        if verdict.penalty || verdict.outcome != Outcome::Success || self.picked.decides() {
            self.judged = true;
            judge(&mut self.picked, verdict);
        }
    }

    fn judge_end(&mut self, end: End<'_>) {
        let verdict = match end {
            End::Complete(_) if self.judged => return,
            End::Complete(trailers) => self.head.verdict_at_end(&self.classes, trailers),
            End::Failed(error) if error.cause().source() == Source::Upstream => Verdict::BROKEN,
            // The client went away: that says nothing about the endpoint.
            End::Failed(_) | End::Dropped => return,
        };
        judge(&mut self.picked, verdict);
    }
}

fn judge(picked: &mut PickedEndpoint, verdict: Verdict) {
    if verdict.penalty {
        picked.penalize(verdict.asked);
    }
    picked.classified(verdict.outcome, verdict.asked);
}

impl Observe for Tail {
    fn data(&mut self, bytes: usize) {
        self.record.data(bytes);
        if let Some(taps) = &mut self.taps {
            taps.data(bytes);
        }
    }

    fn end(&mut self, end: End<'_>) {
        self.record.end(end);
        self.judge_end(end);
        if let Some(taps) = &mut self.taps {
            taps.end(end);
        }
    }
}

/// How often a request that no server has seen may be sent.
const MAX_ATTEMPTS: usize = 8;
/// How soon a proxy refuses a request for its application.
const REFUSAL: Duration = Duration::from_millis(200);
/// How many idle connections may turn out to be closed.
const STALE_ATTEMPTS: usize = 4;
