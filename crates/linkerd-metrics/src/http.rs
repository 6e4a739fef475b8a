//! Linkerd's three HTTP families and the handles of one label set in them.

use crate::{Counter, Family, Histogram, LATENCY_MS, Labels, Registry};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

/// Requests, responses and latencies under one prefix (`request_total`, `route_request_total`, …).
#[derive(Clone, Debug)]
pub struct HttpFamilies {
    requests: Family<Counter>,
    responses: Family<Counter>,
    /// The families that count attempts have no latency.
    latencies: Option<Family<Histogram>>,
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
    /// Found by a linear search: an endpoint has few different outcomes, and the usual one comes first.
    responses: Mutex<Vec<(ResponseEnd, Arc<Counter>)>>,
    latencies: Mutex<Vec<(Option<u16>, Arc<Histogram>)>>,
}

impl HttpFamilies {
    /// `request_total`, `response_total`, `response_latency_ms`: what both proxies count at the endpoint.
    #[must_use]
    pub fn endpoint(registry: &Registry) -> Self {
        Self {
            requests: registry.counter("request_total", "Total count of HTTP requests."),
            responses: registry.counter("response_total", "Total count of HTTP responses."),
            latencies: Some(registry.histogram(
                "response_latency_ms",
                "Elapsed times between a request's headers being received and its response stream beginning.",
                &LATENCY_MS,
            )),
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
            latencies: Some(registry.histogram(
                "route_response_latency_ms",
                "Elapsed times between a request's headers being received and its response stream beginning.",
                &LATENCY_MS,
            )),
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
            latencies: None,
        }
    }

    #[must_use]
    pub fn series(&self, labels: Labels) -> HttpSeries {
        HttpSeries {
            requests: self.requests.series(&labels),
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
        let mut known = self.responses.lock();
        if let Some((_, counter)) = known.iter().find(|(k, _)| *k == end) {
            counter.incr();
            return;
        }
        let counter = self.families.responses.series(&end.labels(&self.labels));
        counter.incr();
        known.push((end, counter));
    }

    /// Records the time from the request's head to the first byte of the response's body, or to its end without one.
    pub fn latency(&self, status: Option<u16>, latency: Duration) {
        let Some(family) = &self.families.latencies else {
            return;
        };
        let mut known = self.latencies.lock();
        if let Some((_, histogram)) = known.iter().find(|(s, _)| *s == status) {
            histogram.record(latency);
            return;
        }
        let histogram = family.series(&with_status(self.labels.clone(), status));
        histogram.record(latency);
        known.push((status, histogram));
    }
}

impl ResponseEnd {
    fn labels(&self, base: &Labels) -> Labels {
        let classification = match self.classification {
            Classification::Success => "success",
            Classification::Failure => "failure",
        };
        let mut labels = with_status(base.clone(), self.status).with("classification", classification);
        if let Some(code) = self.grpc_status {
            labels = labels.with_display("grpc_status", code);
        }
        labels.with_opt("error", self.error)
    }
}

fn with_status(labels: Labels, status: Option<u16>) -> Labels {
    match status {
        Some(status) => labels.with_display("status_code", status),
        None => labels,
    }
}

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
}
