//! Linkerd's three HTTP families and the handles of one label set in them.

use crate::{Bounded, Counter, Family, Histogram, LATENCY_MS, Labels, Registry};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

/// Requests, responses and latencies under one prefix (`request_total`, `route_request_total`, …).
#[derive(Clone, Debug)]
pub struct HttpFamilies {
    requests: Family<Counter>,
    responses: Family<Counter>,
    /// The families that count attempts have no latency.
    times: Option<Times>,
    /// How often a status was counted as `other`.
    overflow: Arc<Counter>,
}

#[derive(Clone, Debug)]
struct Times {
    latencies: Family<Histogram>,
    /// Absent where responses are streams that do not end.
    durations: Option<Family<Histogram>>,
}

/// Whether a response counts as a success.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Classification {
    Success,
    Failure,
}

/// How one response ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ResponseEnd {
    /// Absent when there was no response head.
    pub status: Option<u16>,
    pub classification: Classification,
    pub grpc_status: Option<u16>,
    /// The code of the cause that ended the stream early.
    pub error: Option<&'static str>,
}

/// The series of one set of labels. Made once per endpoint or route, shared by all its requests.
#[derive(Debug)]
pub struct HttpSeries {
    families: HttpFamilies,
    labels: Labels,
    requests: Arc<Counter>,
    duration: Option<Arc<Histogram>>,
    /// Found by a linear search: an endpoint has few different outcomes, and the usual one comes first.
    responses: Mutex<Vec<(Outcome, Arc<Counter>)>>,
    latencies: Mutex<Vec<(Option<Code>, Arc<Histogram>)>>,
}

/// A status that a server sent, as far as it has a label of its own.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Code {
    Known(u16),
    Other,
}

/// What is told apart of a [`ResponseEnd`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Outcome {
    status: Option<Code>,
    classification: Classification,
    grpc_status: Option<Code>,
    error: Option<&'static str>,
}

impl HttpFamilies {
    /// `request_total`, `response_total`, `response_latency_ms`: what both proxies count at the endpoint.
    #[must_use]
    pub fn endpoint(registry: &Registry) -> Self {
        Self {
            requests: registry.counter("request_total", "Total count of HTTP requests."),
            responses: registry.counter("response_total", "Total count of HTTP responses."),
            times: Some(Times {
                latencies: registry.histogram("response_latency_ms", LATENCY_HELP, &LATENCY_MS),
                durations: Some(registry.durations("request_duration_seconds", DURATION_HELP)),
            }),
            overflow: registry.overflow(STATUS),
        }
    }

    /// `route_*`: one count per request that matched a ServiceProfile's route.
    #[must_use]
    pub fn route(registry: &Registry) -> Self {
        Self {
            requests: registry.counter("route_request_total", "Total count of HTTP requests of a route."),
            responses: registry.counter(
                "route_response_total",
                "Total count of HTTP responses of a route.",
            ),
            times: Some(Times {
                latencies: registry.histogram("route_response_latency_ms", LATENCY_HELP, &LATENCY_MS),
                durations: Some(registry.durations("route_request_duration_seconds", DURATION_HELP)),
            }),
            overflow: registry.overflow(STATUS),
        }
    }

    /// `route_actual_*`: one count per attempt, retries included.
    #[must_use]
    pub fn route_actual(registry: &Registry) -> Self {
        Self {
            requests: registry.counter(
                "route_actual_request_total",
                "Total count of attempts to send a route's requests.",
            ),
            responses: registry.counter(
                "route_actual_response_total",
                "Total count of responses to a route's attempts.",
            ),
            times: None,
            overflow: registry.overflow(STATUS),
        }
    }

    /// `control_*`: the proxy's own calls to the control plane.
    #[must_use]
    pub fn control(registry: &Registry) -> Self {
        Self {
            requests: registry.counter(
                "control_request_total",
                "Total count of requests to the control plane.",
            ),
            responses: registry.counter(
                "control_response_total",
                "Total count of responses of the control plane.",
            ),
            times: Some(Times {
                latencies: registry.histogram("control_response_latency_ms", LATENCY_HELP, &LATENCY_MS),
                durations: None,
            }),
            overflow: registry.overflow(STATUS),
        }
    }

    #[must_use]
    pub fn series(&self, labels: Labels) -> HttpSeries {
        HttpSeries {
            requests: self.requests.series(&labels),
            duration: self
                .times
                .as_ref()
                .and_then(|times| Some(times.durations.as_ref()?.series(&labels))),
            families: self.clone(),
            labels,
            responses: Mutex::default(),
            latencies: Mutex::default(),
        }
    }
}

impl HttpSeries {
    pub fn request(&self) {
        self.requests.incr();
    }

    /// Counts a response at the end of its stream.
    pub fn response(&self, end: ResponseEnd) {
        let outcome = Outcome::from(end);
        let mut known = self.responses.lock();
        let position = |known: &[(Outcome, _)], outcome| known.iter().position(|(o, _)| *o == outcome);
        if let Some(found) = position(&known, outcome) {
            known[found].1.incr();
            return;
        }
        let outcome = if known.len() < MAX_CODES {
            outcome
        } else {
            self.families.overflow.incr();
            outcome.without_codes()
        };
        if let Some(found) = position(&known, outcome) {
            known[found].1.incr();
            return;
        }
        let counter = self.families.responses.series(&outcome.labels(&self.labels));
        counter.incr();
        known.push((outcome, counter));
    }

    /// Records the time from the request's head to the first byte of the response's body, or to its end without one.
    pub fn latency(&self, status: Option<u16>, latency: Duration) {
        let Some(Times { latencies, .. }) = &self.families.times else {
            return;
        };
        let mut known = self.latencies.lock();
        let mut status = status.map(Code::Known);
        if known.len() >= MAX_CODES && known.iter().all(|(s, _)| *s != status) {
            status = status.and(Some(Code::Other));
        }
        if let Some((_, histogram)) = known.iter().find(|(s, _)| *s == status) {
            histogram.record(latency);
            return;
        }
        let histogram = latencies.series(&with_code(self.labels.clone(), "status_code", status));
        histogram.record(latency);
        known.push((status, histogram));
    }

    /// Records the time from the request's head to the last byte of the response.
    pub fn duration(&self, duration: Duration) {
        if let Some(histogram) = &self.duration {
            histogram.record(duration);
        }
    }
}

impl From<ResponseEnd> for Outcome {
    fn from(end: ResponseEnd) -> Self {
        let grpc = |code| match code {
            0..=GRPC_MAX => Code::Known(code),
            _ => Code::Other,
        };
        Self {
            status: end.status.map(Code::Known),
            classification: end.classification,
            grpc_status: end.grpc_status.map(grpc),
            error: end.error,
        }
    }
}

impl Outcome {
    /// For servers that make up ever new statuses.
    fn without_codes(self) -> Self {
        Self {
            status: self.status.and(Some(Code::Other)),
            grpc_status: self.grpc_status.and(Some(Code::Other)),
            ..self
        }
    }

    fn labels(&self, base: &Labels) -> Labels {
        let classification = match self.classification {
            Classification::Success => "success",
            Classification::Failure => "failure",
        };
        let labels =
            with_code(base.clone(), "status_code", self.status).with("classification", classification);
        with_code(labels, "grpc_status", self.grpc_status).with_opt("error", self.error)
    }
}

fn with_code(labels: Labels, key: &str, code: Option<Code>) -> Labels {
    match code {
        Some(Code::Known(code)) => labels.with_display(key, code),
        Some(Code::Other) => labels.with(key, Bounded::OTHER),
        None => labels,
    }
}

const LATENCY_HELP: &str =
    "Elapsed times between a request's headers being received and its response stream beginning.";
const DURATION_HELP: &str =
    "Elapsed times between a request's headers being received and the last byte of its response.";
/// How [`Registry::overflow`] calls statuses.
const STATUS: &str = "status_code";
/// How many different statuses of one endpoint or route are told apart.
const MAX_CODES: usize = 48;
/// The largest status that gRPC defines.
const GRPC_MAX: u16 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_apart() {
        let registry = Registry::new(Duration::from_secs(600));
        let series = HttpFamilies::endpoint(&registry).series(Labels::new().with("direction", "inbound"));
        let ok = ResponseEnd {
            status: Some(200),
            classification: Classification::Success,
            grpc_status: None,
            error: None,
        };
        let reset = ResponseEnd {
            classification: Classification::Failure,
            error: Some("upstream-reset"),
            ..ok
        };
        for end in [ok, ok, reset] {
            series.request();
            series.latency(end.status, Duration::from_millis(3));
            series.response(end);
        }
        let mut text = String::new();
        registry.render(&mut text);
        for line in [
            "request_total{direction=\"inbound\"} 3\n",
            "response_total{direction=\"inbound\",status_code=\"200\",classification=\"success\"} 2\n",
            "response_total{direction=\"inbound\",status_code=\"200\",classification=\"failure\",error=\"upstream-reset\"} 1\n",
            "response_latency_ms_bucket{direction=\"inbound\",status_code=\"200\",le=\"3\"} 3\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
    #[test]
    fn a_server_that_makes_up_statuses_gets_no_further_series() {
        let registry = Registry::new(Duration::from_secs(600));
        let series = HttpFamilies::endpoint(&registry).series(Labels::new());
        for n in 0..10_000 {
            series.latency(Some(100 + n % 900), Duration::ZERO);
            series.response(ResponseEnd {
                status: Some(100 + n % 900),
                classification: Classification::Success,
                grpc_status: Some(n),
                error: None,
            });
        }
        let mut text = String::new();
        registry.render(&mut text);
        let lines = |family: &str| text.lines().filter(|l| l.starts_with(family)).count();
        assert!(lines("response_total{") <= MAX_CODES + 1);
        assert!(lines("response_latency_ms_count{") <= MAX_CODES + 1);
        assert!(text.contains("status_code=\"other\",classification=\"success\",grpc_status=\"other\"} "));
        assert!(text.contains("proxy_metrics_overflow_total{family=\"status_code\"} "));
    }
}
