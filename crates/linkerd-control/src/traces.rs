//! Hands spans to an OpenTelemetry collector.

use crate::{
    ServiceAddr,
    channel::{Channel, Security},
    metrics::ControlMetrics,
};
use linkerd_metrics::{Counter, Labels, Registry};
use linkerd_proto::opentelemetry::{
    AnyValue, ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans,
    Span, any_value, trace_service_client::TraceServiceClient,
};
use linkerd_tls::Credentials;
use std::{pin::pin, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};
use tonic::{Code, Status};

/// Where spans go, and what they say of this proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    pub collector: ServiceAddr,
    pub attributes: Vec<(String, String)>,
}

/// Linkerd's counters, and what was lost.
struct Metrics {
    streams: Arc<Counter>,
    requests: Arc<Counter>,
    exports: Arc<Counter>,
    dropped: Arc<Counter>,
}

/// The counter of spans that never reached the collector.
#[must_use]
pub fn dropped_spans(registry: &Registry) -> Arc<Counter> {
    let family = registry.counter(
        "opentelemetry_spans_dropped_total",
        "Spans lost: the queue was full, or the collector did not take them.",
    );
    family.series(&Labels::new())
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        let counter = |name, help| registry.counter(name, help).series(&Labels::new());
        Self {
            streams: counter(
                "opentelemetry_span_export_streams_total",
                "How often exporting to the collector was begun, or begun anew after a failure.",
            ),
            requests: counter(
                "opentelemetry_span_export_requests_total",
                "Requests to the collector.",
            ),
            exports: counter(
                "opentelemetry_span_exports_total",
                "Spans that the collector took.",
            ),
            dropped: dropped_spans(registry),
        }
    }
}

/// Exports in batches until nobody makes spans any more.
pub async fn export_spans(
    config: TraceConfig,
    credentials: Credentials,
    connect_timeout: Duration,
    mut spans: mpsc::Receiver<Span>,
    registry: Registry,
) {
    let metrics = Metrics::new(&registry);
    let service = ControlMetrics::new(&registry).of("trace_collector", &config.collector);
    let channel = Channel::new(
        config.collector.clone(),
        Security::Mutual(credentials),
        connect_timeout,
        service,
    );
    let mut client = TraceServiceClient::with_origin(channel, config.collector.origin());
    let resource = resource(&config.attributes);
    metrics.streams.incr();
    let mut batch = Vec::new();
    while fill(&mut batch, &mut spans).await {
        let full = std::mem::take(&mut batch);
        let mut exporting = pin!(export(&mut client, &metrics, &resource, full));
        // Spans go on coming meanwhile; what is beyond the next batch waits in the queue, and is dropped there.
        loop {
            tokio::select! {
                () = &mut exporting => break,
                Some(span) = spans.recv(), if batch.len() < BATCH => batch.push(span),
            }
        }
    }
}

/// Completes a batch. False at the end, when there is nothing left to export.
async fn fill(batch: &mut Vec<Span>, spans: &mut mpsc::Receiver<Span>) -> bool {
    if batch.is_empty() {
        match spans.recv().await {
            Some(span) => batch.push(span),
            None => return false,
        }
    }
    let deadline = Instant::now() + BATCH_TIME;
    while batch.len() < BATCH {
        match time::timeout_at(deadline, spans.recv()).await {
            Ok(Some(span)) => batch.push(span),
            Ok(None) | Err(_) => break,
        }
    }
    true
}

async fn export(
    client: &mut TraceServiceClient<Channel>,
    metrics: &Metrics,
    resource: &Resource,
    spans: Vec<Span>,
) {
    let count = spans.len() as u64;
    let request = request(resource, spans);
    let mut attempt = 1;
    loop {
        metrics.requests.incr();
        let answer = time::timeout(EXPORT_TIMEOUT, client.export(request.clone())).await;
        let status = match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))) {
            Ok(answer) => {
                let partial = answer.into_inner().partial_success.unwrap_or_default();
                let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0).min(count);
                metrics.exports.add(count - rejected);
                metrics.dropped.add(rejected);
                return;
            }
            Err(status) => status,
        };
        let passing = matches!(
            status.code(),
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::ResourceExhausted
                | Code::Unknown
        );
        if !passing || attempt == ATTEMPTS {
            tracing::warn!(error = status.message(), code = ?status.code(), spans = count, "spans are lost");
            metrics.dropped.add(count);
            return;
        }
        tracing::debug!(error = status.message(), code = ?status.code(), "export of spans failed");
        metrics.streams.incr();
        time::sleep(RETRY_PAUSE * attempt).await;
        attempt += 1;
    }
}

fn request(resource: &Resource, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "linkerd2-proxy".into(),
        version: String::new(),
    };
    let scope_spans = vec![ScopeSpans {
        scope: Some(scope),
        spans,
    }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans,
        }],
    }
}

fn resource(attributes: &[(String, String)]) -> Resource {
    let attributes = attributes.iter().map(|(key, value)| KeyValue {
        key: key.clone(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.clone())),
        }),
    });
    Resource {
        attributes: attributes.collect(),
    }
}

const BATCH: usize = 1_000;
const BATCH_TIME: Duration = Duration::from_secs(10);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_secs(1);
