//! Counts a request and its response in a series, whatever becomes of them.

use crate::{
    Response,
    body::{End, Observe},
    classify,
};
use http::{HeaderMap, StatusCode};
use linkerd_metrics::{Classification, HttpSeries, ResponseEnd};
use linkerd_policy::{Profile, profile::Route};
use linkerd_stack::{Cause, Error, is_grpc};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// What tells success from failure.
#[derive(Clone, Debug, Default)]
pub enum Classes {
    /// HTTP ≥ 500 and gRPC's failure codes.
    #[default]
    Default,
    /// The response classes of a profile's route; its index may be past the end for requests without a route.
    Profile(Arc<Profile>, usize),
}

impl Classes {
    /// The profile's route, if the request matched one.
    #[must_use]
    pub fn route(&self) -> Option<&Route> {
        match self {
            Self::Default => None,
            Self::Profile(profile, index) => profile.routes.get(*index),
        }
    }

    /// Classifies a response by its status and, when it is gRPC, by the status in its trailers.
    #[must_use]
    pub fn classify(&self, status: StatusCode, grpc_status: Option<u16>) -> Classification {
        match (
            self.route().filter(|r| !r.response_classes.is_empty()),
            grpc_status,
        ) {
            (Some(route), None) if route.is_failure(status) => Classification::Failure,
            (Some(_), None) => Classification::Success,
            _ => classify::classify(status, grpc_status),
        }
    }
}

/// A request on its way. Dropped without a response, it counts as one that its client gave up.
#[derive(Debug)]
pub struct Record {
    series: [Option<Arc<HttpSeries>>; 2],
    classes: Classes,
    started: Instant,
    head: Option<Head>,
    recorded_latency: bool,
    ended: bool,
}

#[derive(Copy, Clone, Debug)]
struct Head {
    status: StatusCode,
    grpc: bool,
    /// From the response's headers, when there are no trailers to come.
    grpc_status: Option<u16>,
    /// Set when the proxy made the response.
    error: Option<&'static str>,
}

impl Record {
    /// Counts a request in its endpoint's series, its route's, or both.
    #[must_use]
    pub fn begin(
        series: impl IntoIterator<Item = Arc<HttpSeries>>,
        classes: Classes,
        started: Instant,
    ) -> Self {
        let mut series = series.into_iter();
        let series = [series.next(), series.next()];
        for s in series.iter().flatten() {
            s.request();
        }
        Self {
            series,
            classes,
            started,
            head: None,
            recorded_latency: false,
            ended: false,
        }
    }

    /// Follows the response to its end.
    #[must_use]
    pub fn follow(mut self, response: Response) -> Response {
        self.answered(&response);
        response.map(|body| body.observe(self))
    }

    /// Takes note of the response's head; whoever asks for this follows the body.
    pub fn answered<B>(&mut self, response: &http::Response<B>) {
        self.head = Some(Head::new(response.status(), response.headers(), None));
    }

    /// The proxy itself answers with `status` because of `error`.
    pub fn failed(mut self, status: StatusCode, headers: &HeaderMap, error: &Error) {
        self.head = Some(Head::new(status, headers, Some(error.cause())));
        self.finish(End::Complete(None));
    }

    /// The stream ends without a response.
    pub fn reset(mut self, error: &Error) {
        self.finish(End::Failed(error));
    }

    fn finish(&mut self, end: End<'_>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let elapsed = self.started.elapsed();
        if !self.recorded_latency {
            self.record_latency(elapsed);
        }
        let response = self.response_end(end);
        for s in self.series.iter().flatten() {
            s.duration(elapsed);
            s.response(response);
        }
    }

    fn record_latency(&mut self, latency: Duration) {
        self.recorded_latency = true;
        let status = self.head.map(|h| h.status.as_u16());
        for s in self.series.iter().flatten() {
            s.latency(status, latency);
        }
    }

    fn response_end(&self, end: End<'_>) -> ResponseEnd {
        let Some(head) = self.head else {
            return ResponseEnd {
                status: None,
                classification: Classification::Failure,
                grpc_status: None,
                error: Some(end_error(end).unwrap_or(Cause::DownstreamClosed.code())),
            };
        };
        let grpc_status = head.grpc_status_at(end);
        let classification = match (end, head.error) {
            (End::Failed(_), _) | (_, Some(_)) => Classification::Failure,
            _ => self.classes.classify(head.status, grpc_status),
        };
        ResponseEnd {
            status: Some(head.status.as_u16()),
            classification,
            grpc_status,
            error: head.error.or(end_error(end)),
        }
    }
}

impl Head {
    fn new(status: StatusCode, headers: &HeaderMap, error: Option<Cause>) -> Self {
        Self {
            status,
            grpc: is_grpc(headers),
            grpc_status: classify::grpc_status(headers),
            error: error.map(Cause::code),
        }
    }

    /// A gRPC response that ends without a status is one that its client reads as UNKNOWN; one that the client itself
    /// gave up has none.
    fn grpc_status_at(&self, end: End<'_>) -> Option<u16> {
        if !self.grpc {
            return None;
        }
        let trailers = match end {
            End::Complete(Some(trailers)) => classify::grpc_status(trailers),
            End::Complete(None) | End::Failed(_) => None,
            End::Dropped => return self.grpc_status,
        };
        trailers.or(self.grpc_status).or(Some(classify::GRPC_UNKNOWN))
    }
}

fn end_error(end: End<'_>) -> Option<&'static str> {
    match end {
        End::Complete(_) => None,
        End::Failed(error) => Some(error.cause().code()),
        End::Dropped => Some(Cause::DownstreamClosed.code()),
    }
}

impl Observe for Record {
    fn data(&mut self, _bytes: usize) {
        if !self.recorded_latency {
            self.record_latency(self.started.elapsed());
        }
    }

    fn end(&mut self, end: End<'_>) {
        self.finish(end);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.finish(End::Dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;
    use http_body_util::BodyExt;
    use linkerd_metrics::{HttpFamilies, Labels, Registry};

    struct Rig {
        registry: Registry,
        series: Arc<HttpSeries>,
    }

    impl Rig {
        fn new() -> Self {
            let registry = Registry::new(Duration::from_secs(60));
            let series = Arc::new(HttpFamilies::endpoint(&registry).series(Labels::new()));
            Self { registry, series }
        }

        fn record(&self) -> Record {
            Record::begin(vec![self.series.clone()], Classes::Default, Instant::now())
        }

        fn responses(&self) -> Vec<String> {
            let mut text = String::new();
            self.registry.render(&mut text);
            text.lines()
                .filter(|l| l.starts_with("response_total"))
                .map(str::to_owned)
                .collect()
        }
    }

    fn response(grpc: bool, body: Body) -> Response {
        let mut response = Response::new(body);
        if grpc {
            response
                .headers_mut()
                .insert("content-type", "application/grpc".parse().unwrap());
        }
        response
    }

    #[tokio::test]
    async fn a_complete_response_is_counted_before_its_reader_sees_the_end() {
        let rig = Rig::new();
        let mut followed = rig.record().follow(response(false, Body::full("hello")));
        followed.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(
            rig.responses(),
            ["response_total{status_code=\"200\",classification=\"success\"} 1"]
        );
    }

    #[tokio::test]
    async fn an_empty_response_is_counted_at_once() {
        let rig = Rig::new();
        let _response = rig.record().follow(response(false, Body::empty()));
        assert_eq!(rig.responses().len(), 1);
    }

    #[tokio::test]
    async fn grpc_without_a_status_is_a_failure() {
        let rig = Rig::new();
        let followed = rig.record().follow(response(true, Body::full("x")));
        followed.into_body().collect().await.unwrap();
        assert_eq!(
            rig.responses(),
            ["response_total{status_code=\"200\",classification=\"failure\",grpc_status=\"2\"} 1"]
        );
    }

    #[test]
    fn a_request_given_up_is_a_failure_with_a_reason() {
        let rig = Rig::new();
        drop(rig.record());
        assert_eq!(
            rig.responses(),
            ["response_total{classification=\"failure\",error=\"downstream-closed\"} 1"]
        );
    }

    #[test]
    fn a_response_not_read_to_its_end_keeps_its_status() {
        let rig = Rig::new();
        drop(rig.record().follow(response(false, Body::full("x"))));
        assert_eq!(
            rig.responses(),
            ["response_total{status_code=\"200\",classification=\"success\",error=\"downstream-closed\"} 1"]
        );
    }
}
