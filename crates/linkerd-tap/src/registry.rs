//! Who watches, and what a watched request reports.

use crate::{
    event,
    matching::{Filter, Matcher, Subject},
    session::{Admission, Tap},
};
use http::{HeaderMap, StatusCode, request::Parts};
use linkerd_http::{End, Observe};
use linkerd_metrics::{Gauge, Labels};
use linkerd_policy::Labels as LabelMap;
use linkerd_proto::tap::{TapEvent, tap_event};
use linkerd_stack::Cause;
use parking_lot::RwLock;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// All taps of the process.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    active: AtomicBool,
    taps: RwLock<Vec<Arc<Tap>>>,
    next: AtomicU32,
    next_connection: AtomicU64,
    /// `tap_sessions`: how many taps there are.
    sessions: Arc<Gauge>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// The two ends of what is tapped.
#[derive(Clone, Debug)]
pub struct Connection {
    pub direction: Direction,
    pub client: SocketAddr,
    pub client_labels: LabelMap,
    pub server: SocketAddr,
    pub server_labels: LabelMap,
}

/// A request about to be sent to a server.
#[derive(Debug)]
pub struct Inspect<'a> {
    pub connection: Connection,
    pub route_labels: LabelMap,
    pub parts: &'a Parts,
}

/// The taps of one request. Give it to the response's body; dropped before, the request ended without a response.
#[derive(Debug)]
pub struct HttpTaps {
    entries: Vec<Entry>,
    started: Instant,
    responded: Option<Instant>,
    cause: Option<Cause>,
    request_bytes: Arc<AtomicU64>,
    response_bytes: u64,
    grpc_status: Option<u16>,
    ended: bool,
}

#[derive(Debug)]
struct Entry {
    tap: Arc<Tap>,
    stream: u64,
    base: TapEvent,
    /// The request's event, as long as the response decides whether it is shown.
    held: Option<TapEvent>,
}

/// Counts a tapped request's body.
#[derive(Debug)]
struct RequestBytes(Arc<AtomicU64>);

/// The taps of one connection that is not HTTP.
#[derive(Debug)]
pub struct TcpTaps {
    entries: Vec<(Arc<Tap>, TapEvent)>,
    id: u64,
    started: Instant,
}

impl Registry {
    /// A registry whose taps are counted in `tap_sessions`.
    #[must_use]
    pub fn new(metrics: &linkerd_metrics::Registry) -> Self {
        let sessions = metrics
            .gauge("tap_sessions", "Number of taps that watch this proxy.")
            .series(&Labels::new());
        Self(Arc::new(Shared {
            sessions,
            ..Shared::default()
        }))
    }

    /// Whether anybody watches. This is all that a request costs when nobody does.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.0.active.load(Relaxed)
    }

    /// Begins a tap. It ends when the receiver is dropped or its limit is reached.
    pub(crate) fn observe(
        &self,
        limit: u32,
        matcher: Matcher,
        filter: Filter,
        headers: bool,
    ) -> Option<mpsc::Receiver<TapEvent>> {
        let mut taps = self.0.taps.write();
        taps.retain(|t| !t.is_done());
        if taps.len() >= MAX_TAPS {
            return None;
        }
        let (tap, events) = Tap::new(self.0.next.fetch_add(1, Relaxed), limit, matcher, filter, headers);
        taps.push(Arc::new(tap));
        self.0.active.store(true, Relaxed);
        self.0.count(&taps);
        Some(events)
    }

    /// Forgets taps that are done, so that their streams end with their last request.
    pub(crate) fn prune(&self) {
        let mut taps = self.0.taps.write();
        taps.retain(|t| !t.is_done());
        self.0.active.store(!taps.is_empty(), Relaxed);
        self.0.count(&taps);
    }

    /// The taps that watch a request.
    #[must_use]
    pub fn request(&self, inspect: &Inspect<'_>) -> Option<HttpTaps> {
        let subject = Subject::from(inspect);
        let mut entries = Vec::new();
        let mut done = false;
        for tap in self.0.taps.read().iter() {
            if tap.is_done() || !tap.matcher.matches(&subject) || !tap.filter.matches_request(inspect.parts) {
                done |= tap.is_done();
                continue;
            }
            if let Some(entry) = Entry::begin(tap, inspect) {
                entries.push(entry);
            }
            done |= tap.is_done();
        }
        if done {
            self.prune();
        }
        if entries.is_empty() {
            return None;
        }
        Some(HttpTaps {
            entries,
            started: Instant::now(),
            responded: None,
            cause: None,
            request_bytes: Arc::default(),
            response_bytes: 0,
            grpc_status: None,
            ended: false,
        })
    }

    /// Shows a request that the proxy itself answers without a server.
    pub fn refused(&self, inspect: &Inspect<'_>, status: StatusCode, headers: &HeaderMap, cause: Cause) {
        if let Some(mut taps) = self.request(inspect) {
            taps.response(status, headers, Some(cause));
            taps.finish(End::Complete(None));
        }
    }

    /// The taps that watch a connection.
    #[must_use]
    pub fn connection(&self, connection: &Connection) -> Option<TcpTaps> {
        let subject = Subject::from(connection);
        let mut entries = Vec::new();
        for tap in self.0.taps.read().iter() {
            let wanted = tap.filter.tcp && !tap.is_done() && tap.matcher.matches(&subject);
            if wanted && tap.admit() == Admission::Shown {
                entries.push((tap.clone(), event::base(connection, None)));
            }
        }
        if entries.is_empty() {
            return None;
        }
        let taps = TcpTaps {
            entries,
            id: self.0.next_connection.fetch_add(1, Relaxed),
            started: Instant::now(),
        };
        taps.send(|_| {}, &event::tcp_open(taps.id));
        Some(taps)
    }
}

impl Shared {
    fn count(&self, taps: &[Arc<Tap>]) {
        self.sessions.set(i64::try_from(taps.len()).unwrap_or(i64::MAX));
    }
}

impl Entry {
    fn begin(tap: &Arc<Tap>, inspect: &Inspect<'_>) -> Option<Self> {
        let wait = tap.filter.needs_response();
        if !wait && tap.admit() != Admission::Shown {
            return None;
        }
        let stream = tap.next_stream();
        let base = event::base(&inspect.connection, Some(&inspect.route_labels));
        let mut init = base.clone();
        init.event = Some(event::request_init(tap, stream, inspect.parts));
        let mut entry = Self {
            tap: tap.clone(),
            stream,
            base,
            held: None,
        };
        if wait {
            entry.held = Some(init);
        } else if !tap.send(init) {
            return None;
        }
        Some(entry)
    }

    /// Shows a request that waited for its response, or drops it.
    fn decide(&mut self, status: Option<StatusCode>, latency: Duration) -> bool {
        let Some(init) = self.held.take() else { return true };
        self.tap.filter.matches_response(status, latency)
            && self.tap.admit() == Admission::Shown
            && self.tap.send(init)
    }
}

impl HttpTaps {
    /// Follows the request's body, whose size the last event tells.
    #[must_use]
    pub fn request_body(&self) -> impl Observe + 'static {
        RequestBytes(self.request_bytes.clone())
    }

    /// The response has begun. `cause` is set when the proxy made it.
    pub fn response(&mut self, status: StatusCode, headers: &HeaderMap, cause: Option<Cause>) {
        let now = Instant::now();
        self.responded = Some(now);
        self.cause = cause;
        self.grpc_status = linkerd_http::classify::grpc_status(headers);
        let latency = now - self.started;
        self.entries.retain_mut(|entry| {
            if !entry.decide(Some(status), latency) {
                return false;
            }
            let mut event = entry.base.clone();
            event.cause_code = code(cause);
            event.event = Some(event::response_init(
                &entry.tap,
                entry.stream,
                status,
                headers,
                latency,
            ));
            entry.tap.send(event)
        });
    }

    fn finish(&mut self, end: End<'_>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let now = Instant::now();
        let latency = now - self.started;
        let times = event::Times {
            since_request: latency,
            since_response: self.responded.map(|at| now - at).unwrap_or_default(),
        };
        let (reason, cause) = event::close_reason(end, self.cause);
        let undecided = self.responded.is_none();
        for entry in &mut self.entries {
            if undecided && !entry.decide(None, latency) {
                continue;
            }
            let mut event = entry.base.clone();
            event.cause_code = code(cause);
            event.request_bytes = self.request_bytes.load(Relaxed);
            event.close_reason.clone_from(&reason);
            let id = (&*entry.tap, entry.stream);
            event.event = Some(event::response_end(
                id,
                times,
                self.response_bytes,
                self.grpc_status,
                end,
            ));
            entry.tap.send(event);
        }
    }
}

fn code(cause: Option<Cause>) -> String {
    cause.map(|c| c.code().to_owned()).unwrap_or_default()
}

impl Observe for HttpTaps {
    fn data(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    fn end(&mut self, end: End<'_>) {
        self.finish(end);
    }
}

impl Drop for HttpTaps {
    fn drop(&mut self) {
        self.finish(End::Dropped);
    }
}

impl Observe for RequestBytes {
    fn data(&mut self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Relaxed);
    }
}

impl TcpTaps {
    /// The connection has ended; `to_server` and `to_client` are what passed it.
    pub fn closed(self, to_server: u64, to_client: u64, reason: &str, cause: Option<Cause>) {
        let close = event::tcp_close(self.id, self.started.elapsed(), to_server, to_client);
        self.send(
            |event| {
                reason.clone_into(&mut event.close_reason);
                event.cause_code = code(cause);
            },
            &close,
        );
    }

    fn send(&self, complete: impl Fn(&mut TapEvent), kind: &tap_event::Event) {
        for (tap, base) in &self.entries {
            let mut event = base.clone();
            complete(&mut event);
            event.event = Some(kind.clone());
            tap.send(event);
        }
    }
}

/// How many taps a proxy serves at a time.
const MAX_TAPS: usize = 32;

#[cfg(test)]
mod tests;
