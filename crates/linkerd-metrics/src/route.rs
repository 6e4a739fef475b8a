//! Linkerd's families of the routes of policies, and the handles of one label set in them.

use crate::{Buckets, Counter, Family, Histogram, Labels, Registry, SECOND};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

/// Both protocols' families; a route is counted in those of its kind.
#[derive(Clone, Debug)]
pub struct ByProtocol<F> {
    pub http: F,
    pub grpc: F,
}

impl<F> ByProtocol<F> {
    #[must_use]
    pub const fn of(&self, protocol: RouteProtocol) -> &F {
        match protocol {
            RouteProtocol::Http => &self.http,
            RouteProtocol::Grpc => &self.grpc,
        }
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RouteProtocol {
    Http,
    Grpc,
}

/// The families in which one kind of stream is counted; some kinds lack some.
#[derive(Clone, Debug, Default)]
pub struct StreamFamilies {
    requests: Option<Family<Counter>>,
    /// From the request's head to the response's end.
    request_duration: Option<Family<Histogram>>,
    /// From the request's end to the response's end.
    response_duration: Option<Family<Histogram>>,
    request_frames: Option<Family<Histogram>>,
    response_frames: Option<Family<Histogram>>,
    statuses: Option<(Family<Counter>, StatusForm)>,
    /// How often an outcome got no series of its own.
    overflow: Option<Arc<Counter>>,
}

/// How a family writes the status of a response.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum StatusForm {
    /// `http_status="200",error=""`
    Http,
    /// `grpc_status="OK",error=""`
    Grpc,
    /// `status="200"`: the number of either.
    Number,
}

/// The series of one label set.
#[derive(Debug, Default)]
pub struct StreamSeries {
    pub requests: Option<Arc<Counter>>,
    pub request_duration: Option<Arc<Histogram>>,
    pub response_duration: Option<Arc<Histogram>>,
    pub request_frames: Option<Arc<Histogram>>,
    pub response_frames: Option<Arc<Histogram>>,
    statuses: Option<Statuses>,
}

#[derive(Debug)]
struct Statuses {
    family: Family<Counter>,
    form: StatusForm,
    labels: Labels,
    overflow: Option<Arc<Counter>>,
    /// Found by a linear search, as with [`HttpSeries`](crate::HttpSeries).
    known: Mutex<Vec<(StreamEnd, Arc<Counter>)>>,
}

/// How a stream ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// Of the protocol that is counted; absent without a response.
    pub status: Option<u16>,
    /// The code of the cause that ended it early.
    pub error: Option<&'static str>,
}

/// `outbound_http_route_*` and `outbound_grpc_route_*`: requests as the application sent them.
#[must_use]
pub fn outbound_routes(registry: &Registry) -> ByProtocol<StreamFamilies> {
    let families = |names: &Names, form| StreamFamilies {
        request_duration: Some(registry.histogram(
            names.route_request_duration,
            "The time between a request's initialization and its response's completion.",
            &COARSE_SECONDS,
        )),
        request_frames: Some(registry.histogram(
            names.route_request_frames,
            "The sizes of the data frames of requests.",
            &FRAME_BYTES,
        )),
        statuses: Some((
            registry.counter(names.route_statuses, "Completed request-response streams."),
            form,
        )),
        overflow: Some(registry.overflow(STATUS)),
        ..StreamFamilies::default()
    };
    ByProtocol {
        http: families(&HTTP, StatusForm::Http),
        grpc: families(&GRPC, StatusForm::Grpc),
    }
}

/// `outbound_http_route_backend_*` and the like: attempts to have a backend answer.
#[must_use]
pub fn outbound_backends(registry: &Registry) -> ByProtocol<StreamFamilies> {
    let families = |names: &Names, form| StreamFamilies {
        requests: Some(registry.counter(names.backend_requests, "Requests sent to a route's backend.")),
        response_duration: Some(registry.histogram(
            names.backend_response_duration,
            "The time between a request's completion and its response's completion.",
            &FINE_SECONDS,
        )),
        response_frames: Some(registry.histogram(
            names.backend_response_frames,
            "The sizes of the data frames of responses.",
            &FRAME_BYTES,
        )),
        statuses: Some((
            registry.counter(
                names.backend_statuses,
                "Completed responses of a route's backend.",
            ),
            form,
        )),
        overflow: Some(registry.overflow(STATUS)),
        ..StreamFamilies::default()
    };
    ByProtocol {
        http: families(&HTTP, StatusForm::Http),
        grpc: families(&GRPC, StatusForm::Grpc),
    }
}

/// `inbound_http_*` and `inbound_grpc_*`.
#[must_use]
pub fn inbound_routes(registry: &Registry) -> ByProtocol<StreamFamilies> {
    let families = |names: &Names| StreamFamilies {
        requests: Some(registry.counter(names.inbound_requests, "Requests received.")),
        request_duration: Some(registry.histogram(
            names.inbound_request_duration,
            "The time between a request's initialization and its response's completion.",
            &FINE_SECONDS,
        )),
        response_duration: Some(registry.histogram(
            names.inbound_response_duration,
            "The time between a request's completion and its response's completion.",
            &COARSE_SECONDS,
        )),
        request_frames: Some(registry.histogram(
            names.inbound_request_frames,
            "The sizes of the data frames of requests.",
            &FRAME_BYTES,
        )),
        response_frames: Some(registry.histogram(
            names.inbound_response_frames,
            "The sizes of the data frames of responses.",
            &FRAME_BYTES,
        )),
        statuses: Some((
            registry.counter(names.inbound_statuses, "Completed responses."),
            StatusForm::Number,
        )),
        overflow: Some(registry.overflow(STATUS)),
    };
    ByProtocol {
        http: families(&HTTP),
        grpc: families(&GRPC),
    }
}

/// `outbound_http_route_retry_*` and the like.
#[derive(Clone, Debug)]
pub struct RetryFamilies {
    requests: Family<Counter>,
    successes: Family<Counter>,
    limit_exceeded: Family<Counter>,
    overflow: Family<Counter>,
}

/// The retries of one route.
#[derive(Debug)]
pub struct RetrySeries {
    /// Requests sent again.
    pub requests: Arc<Counter>,
    /// Those of them that were answered well.
    pub successes: Arc<Counter>,
    /// Requests that would have been sent again but for the limit.
    pub limit_exceeded: Arc<Counter>,
    /// Requests that could not be sent again: their body is too large to be kept, or a budget is used up.
    pub overflow: Arc<Counter>,
}

impl RetryFamilies {
    #[must_use]
    pub fn new(registry: &Registry) -> ByProtocol<Self> {
        let families = |names: &Names| Self {
            requests: registry.counter(names.retries, "Retry requests emitted."),
            successes: registry.counter(names.retry_successes, "Retry requests answered successfully."),
            limit_exceeded: registry.counter(
                names.retry_limit_exceeded,
                "Requests not retried because of the limit of retries.",
            ),
            overflow: registry.counter(
                names.retry_overflow,
                "Requests not retried because their body could not be kept or a budget was used up.",
            ),
        };
        ByProtocol {
            http: families(&HTTP),
            grpc: families(&GRPC),
        }
    }

    #[must_use]
    pub fn series(&self, labels: &Labels) -> RetrySeries {
        RetrySeries {
            requests: self.requests.series(labels),
            successes: self.successes.series(labels),
            limit_exceeded: self.limit_exceeded.series(labels),
            overflow: self.overflow.series(labels),
        }
    }
}

impl StreamFamilies {
    #[must_use]
    pub fn series(&self, labels: &Labels) -> StreamSeries {
        let histogram =
            |family: &Option<Family<Histogram>>| family.as_ref().map(|family| family.series(labels));
        StreamSeries {
            requests: self.requests.as_ref().map(|family| family.series(labels)),
            request_duration: histogram(&self.request_duration),
            response_duration: histogram(&self.response_duration),
            request_frames: histogram(&self.request_frames),
            response_frames: histogram(&self.response_frames),
            statuses: self.statuses.as_ref().map(|(family, form)| Statuses {
                family: family.clone(),
                form: *form,
                labels: labels.clone(),
                overflow: self.overflow.clone(),
                known: Mutex::default(),
            }),
        }
    }
}

impl StreamSeries {
    pub fn request(&self) {
        if let Some(requests) = &self.requests {
            requests.incr();
        }
    }

    /// A stream has ended, `since_request` after the request's head and `since_sent` after its last byte.
    pub fn ended(&self, end: StreamEnd, since_request: Duration, since_sent: Duration) {
        if let Some(histogram) = &self.request_duration {
            histogram.record(since_request);
        }
        if let Some(histogram) = &self.response_duration {
            histogram.record(since_sent);
        }
        if let Some(statuses) = &self.statuses {
            statuses.count(end);
        }
    }
}

impl Statuses {
    fn count(&self, mut end: StreamEnd) {
        let mut known = self.known.lock();
        if known.len() >= MAX_OUTCOMES && known.iter().all(|(e, _)| *e != end) {
            if let Some(overflow) = &self.overflow {
                overflow.incr();
            }
            end.status = end.status.and(Some(OTHER_STATUS));
        }
        if let Some((_, counter)) = known.iter().find(|(e, _)| *e == end) {
            counter.incr();
            return;
        }
        let counter = self.family.series(&self.labels_of(end));
        counter.incr();
        known.push((end, counter));
    }

    fn labels_of(&self, end: StreamEnd) -> Labels {
        let (key, status) = match (self.form, end.status) {
            (StatusForm::Http, Some(OTHER_STATUS)) => ("http_status", crate::Bounded::OTHER.into()),
            (StatusForm::Number, Some(OTHER_STATUS)) => ("status", crate::Bounded::OTHER.into()),
            (StatusForm::Http, status) => ("http_status", number(status)),
            (StatusForm::Number, status) => ("status", number(status)),
            (StatusForm::Grpc, status) => ("grpc_status", grpc_name(status, end.error).into()),
        };
        let labels = self.labels.clone().with(key, &status);
        match self.form {
            StatusForm::Number => labels,
            StatusForm::Http | StatusForm::Grpc => labels.with("error", end.error.unwrap_or("")),
        }
    }
}

fn number(status: Option<u16>) -> String {
    status.map(|s| s.to_string()).unwrap_or_default()
}

/// gRPC's own names. A response without a status is one that its client reads as UNKNOWN.
fn grpc_name(status: Option<u16>, error: Option<&'static str>) -> &'static str {
    match (status, error) {
        (None, Some(_)) => "",
        (None, None) => "UNKNOWN",
        (Some(code), _) => GRPC_NAMES.get(usize::from(code)).copied().unwrap_or("UNKNOWN"),
    }
}

const GRPC_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

struct Names {
    route_request_duration: &'static str,
    route_request_frames: &'static str,
    route_statuses: &'static str,
    retries: &'static str,
    retry_successes: &'static str,
    retry_limit_exceeded: &'static str,
    retry_overflow: &'static str,
    backend_requests: &'static str,
    backend_response_duration: &'static str,
    backend_response_frames: &'static str,
    backend_statuses: &'static str,
    inbound_requests: &'static str,
    inbound_request_duration: &'static str,
    inbound_response_duration: &'static str,
    inbound_request_frames: &'static str,
    inbound_response_frames: &'static str,
    inbound_statuses: &'static str,
}

macro_rules! names {
    ($protocol:literal) => {
        Names {
            route_request_duration: concat!("outbound_", $protocol, "_route_request_duration_seconds"),
            route_request_frames: concat!("outbound_", $protocol, "_route_request_frame_size_bytes"),
            route_statuses: concat!("outbound_", $protocol, "_route_request_statuses_total"),
            retries: concat!("outbound_", $protocol, "_route_retry_requests_total"),
            retry_successes: concat!("outbound_", $protocol, "_route_retry_successes_total"),
            retry_limit_exceeded: concat!("outbound_", $protocol, "_route_retry_limit_exceeded_total"),
            retry_overflow: concat!("outbound_", $protocol, "_route_retry_overflow_total"),
            backend_requests: concat!("outbound_", $protocol, "_route_backend_requests_total"),
            backend_response_duration: concat!(
                "outbound_",
                $protocol,
                "_route_backend_response_duration_seconds"
            ),
            backend_response_frames: concat!(
                "outbound_",
                $protocol,
                "_route_backend_response_frame_size_bytes"
            ),
            backend_statuses: concat!("outbound_", $protocol, "_route_backend_response_statuses_total"),
            inbound_requests: concat!("inbound_", $protocol, "_requests_total"),
            inbound_request_duration: concat!("inbound_", $protocol, "_request_duration_seconds"),
            inbound_response_duration: concat!("inbound_", $protocol, "_response_duration_seconds"),
            inbound_request_frames: concat!("inbound_", $protocol, "_request_frame_size_bytes"),
            inbound_response_frames: concat!("inbound_", $protocol, "_response_frame_size_bytes"),
            inbound_statuses: concat!("inbound_", $protocol, "_statuses_total"),
        }
    };
}

const HTTP: Names = names!("http");
const GRPC: Names = names!("grpc");

const COARSE_SECONDS: Buckets = Buckets {
    bounds: &[50_000, 500_000, 1_000_000, 10_000_000],
    unit: SECOND,
};
const FINE_SECONDS: Buckets = Buckets {
    bounds: &[25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000],
    unit: SECOND,
};
const FRAME_BYTES: Buckets = Buckets {
    bounds: &[128, 1_024, 10_240],
    unit: 1,
};
/// How [`Registry::overflow`] calls statuses.
const STATUS: &str = "status_code";
/// How many outcomes of one route are told apart.
const MAX_OUTCOMES: usize = 48;
/// Stands for all statuses without a series of their own; no protocol has it.
const OTHER_STATUS: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(registry: &Registry) -> String {
        let mut text = String::new();
        registry.render(&mut text);
        text
    }

    #[test]
    fn a_stream_is_counted_in_the_families_of_its_protocol() {
        let registry = Registry::new(Duration::from_secs(60));
        let labels = Labels::new().with("route_name", "r");
        let (http, grpc) = {
            let families = outbound_backends(&registry);
            (families.http.series(&labels), families.grpc.series(&labels))
        };
        let ended = |series: &StreamSeries, status, error| {
            series.request();
            let end = StreamEnd { status, error };
            series.ended(end, Duration::from_millis(60), Duration::from_millis(30));
        };
        ended(&http, Some(503), None);
        ended(&http, None, Some("failfast"));
        ended(&grpc, Some(14), None);
        let text = rendered(&registry);
        for line in [
            "outbound_http_route_backend_requests_total{route_name=\"r\"} 2\n",
            "outbound_http_route_backend_response_statuses_total{route_name=\"r\",http_status=\"503\",error=\"\"} 1\n",
            "outbound_http_route_backend_response_statuses_total{route_name=\"r\",http_status=\"\",error=\"failfast\"} 1\n",
            "outbound_grpc_route_backend_response_statuses_total{route_name=\"r\",grpc_status=\"UNAVAILABLE\",error=\"\"} 1\n",
            "outbound_http_route_backend_response_duration_seconds_bucket{route_name=\"r\",le=\"0.025\"} 0\n",
            "outbound_http_route_backend_response_duration_seconds_bucket{route_name=\"r\",le=\"0.05\"} 2\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn made_up_statuses_share_a_series() {
        let registry = Registry::new(Duration::from_secs(60));
        let series = inbound_routes(&registry).http.series(&Labels::new());
        for status in 100..1_000 {
            let end = StreamEnd {
                status: Some(status),
                error: None,
            };
            series.ended(end, Duration::ZERO, Duration::ZERO);
        }
        let text = rendered(&registry);
        let lines = text
            .lines()
            .filter(|l| l.starts_with("inbound_http_statuses_total{"));
        assert_eq!(lines.count(), MAX_OUTCOMES + 1);
        assert!(
            text.contains("inbound_http_statuses_total{status=\"other\"} 852\n"),
            "{text}"
        );
    }
}
