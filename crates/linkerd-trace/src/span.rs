//! One side's part of a trace.

use crate::Context;
use http::{HeaderMap, StatusCode, request::Parts};
use linkerd_http::{End, Observe, classify};
use linkerd_metrics::{Classification, Counter};
use linkerd_proto::opentelemetry::{
    self as otlp, any_value, span::SpanKind, status::StatusCode as SpanStatus,
};
use linkerd_stack::{Cause, Error};
use std::{
    fmt::Display,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::mpsc;

/// Makes spans and queues them for their exporter. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Tracer {
    spans: mpsc::Sender<otlp::Span>,
    /// Counts spans that found the queue full.
    dropped: Arc<Counter>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Side {
    Inbound,
    Outbound,
}

/// A request under way. Give it to the response's body; dropped before, its client gave up.
#[derive(Debug)]
pub struct Span {
    tracer: Tracer,
    message: Box<otlp::Span>,
    started: Instant,
    status: Option<StatusCode>,
    grpc_status: Option<u16>,
    cause: Option<Cause>,
    ended: bool,
}

impl Tracer {
    #[must_use]
    pub fn new(dropped: Arc<Counter>) -> (Self, mpsc::Receiver<otlp::Span>) {
        let (spans, receiver) = mpsc::channel(QUEUE);
        (Self { spans, dropped }, receiver)
    }

    /// Begins the span of a request that belongs to a sampled trace, and makes it the parent of what follows.
    #[must_use]
    pub fn begin(&self, side: Side, peer: &dyn Display, parts: &mut Parts) -> Option<Span> {
        let context = Context::parse(&parts.headers).filter(|context| context.sampled)?;
        let span_id = rand::random::<u64>().max(1).to_be_bytes();
        let message = Box::new(message(context, span_id, side, peer, parts));
        context.child(span_id).write(&mut parts.headers);
        Some(Span {
            tracer: self.clone(),
            message,
            started: Instant::now(),
            status: None,
            grpc_status: None,
            cause: None,
            ended: false,
        })
    }
}

fn message(context: Context, span_id: [u8; 8], side: Side, peer: &dyn Display, parts: &Parts) -> otlp::Span {
    let host = || parts.headers.get(http::header::HOST)?.to_str().ok();
    let authority = parts
        .uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(host);
    let (kind, direction) = match side {
        Side::Inbound => (SpanKind::Server, "inbound"),
        Side::Outbound => (SpanKind::Client, "outbound"),
    };
    let method = known_method(&parts.method);
    let state = parts.headers.get("tracestate").and_then(|v| v.to_str().ok());
    let mut attributes = vec![
        text("direction", direction),
        text("http.request.method", method),
        text("url.path", parts.uri.path()),
        text("network.protocol.version", version(parts.version)),
        text("network.peer.address", &peer.to_string()),
    ];
    attributes.extend(authority.map(|authority| text("server.address", authority)));
    otlp::Span {
        trace_id: context.trace_id.to_vec(),
        span_id: span_id.to_vec(),
        trace_state: state.unwrap_or_default().to_owned(),
        parent_span_id: context.span_id.to_vec(),
        name: method.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanos(SystemTime::now()),
        attributes,
        ..otlp::Span::default()
    }
}

impl Span {
    /// The response has begun; `cause` is set when the proxy made it.
    pub fn response(&mut self, status: StatusCode, headers: &HeaderMap, cause: Option<Cause>) {
        self.status = Some(status);
        self.grpc_status = classify::grpc_status(headers);
        self.cause = cause;
    }

    /// The stream is reset without a response.
    pub fn failed(mut self, error: &Error) {
        self.finish(End::Failed(error));
    }

    fn finish(&mut self, end: End<'_>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let grpc = match end {
            End::Complete(Some(trailers)) => classify::grpc_status(trailers).or(self.grpc_status),
            _ => self.grpc_status,
        };
        let cause = match end {
            End::Complete(_) => self.cause,
            End::Failed(error) => Some(error.cause()),
            End::Dropped => Some(Cause::DownstreamClosed),
        };
        let message = &mut self.message;
        let duration = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        message.end_time_unix_nano = message.start_time_unix_nano.saturating_add(duration);
        message.attributes.extend(
            self.status
                .map(|status| number("http.response.status_code", status.as_u16().into())),
        );
        message
            .attributes
            .extend(grpc.map(|code| number("rpc.grpc.status_code", code.into())));
        message
            .attributes
            .extend(cause.map(|cause| text("error.type", cause.code())));
        let failed = self
            .status
            .is_none_or(|status| classify::classify(status, grpc) == Classification::Failure);
        if failed || cause.is_some_and(|cause| cause != Cause::Redirect) {
            message.status = Some(otlp::Status {
                message: cause.map(|cause| cause.code().to_owned()).unwrap_or_default(),
                code: SpanStatus::Error.into(),
            });
        }
        if self.tracer.spans.try_send(std::mem::take(message)).is_err() {
            self.tracer.dropped.incr();
        }
    }
}

impl Observe for Span {
    fn end(&mut self, end: End<'_>) {
        self.finish(end);
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.finish(End::Dropped);
    }
}

/// Names of spans are counted by collectors, so clients must not make them up.
fn known_method(method: &http::Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH") => {
            known
        }
        _ => "_OTHER",
    }
}

const fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

fn text(key: &str, value: &str) -> otlp::KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> otlp::KeyValue {
    attribute(key, any_value::Value::IntValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> otlp::KeyValue {
    otlp::KeyValue {
        key: key.to_owned(),
        value: Some(otlp::AnyValue { value: Some(value) }),
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Spans that may wait for the exporter's task.
const QUEUE: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use linkerd_http::Body;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parts(parent: &str) -> Parts {
        let request = Request::builder().uri("/cart?x=1").header("traceparent", parent);
        request.body(()).unwrap().into_parts().0
    }

    const PEER: &str = "10.0.0.1:80";

    #[test]
    fn a_span_takes_its_place_in_the_trace() {
        let (tracer, mut spans) = Tracer::new(Arc::default());
        let mut parts = parts(PARENT);
        let mut span = tracer.begin(Side::Inbound, &PEER, &mut parts).unwrap();
        span.response(StatusCode::OK, &HeaderMap::new(), None);
        drop(Body::empty().observe(span));
        let told = spans.try_recv().unwrap();
        assert_eq!(told.parent_span_id, [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert_eq!((told.kind(), told.name.as_str()), (SpanKind::Server, "GET"));
        assert_eq!(told.status, None);
        let passed_on = Context::parse(&parts.headers).unwrap();
        assert_eq!(
            (passed_on.span_id.to_vec(), passed_on.sampled),
            (told.span_id, true)
        );
    }

    #[test]
    fn what_is_not_sampled_passes_as_it_is() {
        let (tracer, _spans) = Tracer::new(Arc::default());
        let mut parts = parts(&PARENT.replace("-01", "-00"));
        assert!(tracer.begin(Side::Outbound, &PEER, &mut parts).is_none());
        assert_eq!(parts.headers["traceparent"], PARENT.replace("-01", "-00"));
    }

    #[test]
    fn a_failure_has_its_cause() {
        let (tracer, mut spans) = Tracer::new(Arc::default());
        let mut span = tracer.begin(Side::Outbound, &PEER, &mut parts(PARENT)).unwrap();
        span.response(
            StatusCode::GATEWAY_TIMEOUT,
            &HeaderMap::new(),
            Some(Cause::FailFast),
        );
        drop(Body::empty().observe(span));
        let status = spans.try_recv().unwrap().status.unwrap();
        assert_eq!(
            (status.code(), status.message.as_str()),
            (SpanStatus::Error, "failfast")
        );
    }

    #[test]
    fn spans_beyond_the_queue_are_counted() {
        let dropped = Arc::<Counter>::default();
        let (tracer, _spans) = Tracer::new(dropped.clone());
        for _ in 0..QUEUE + 7 {
            drop(tracer.begin(Side::Inbound, &PEER, &mut parts(PARENT)));
        }
        assert_eq!(dropped.value(), 7);
    }
}
