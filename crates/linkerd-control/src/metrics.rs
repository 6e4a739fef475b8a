//! What the proxy's own calls are counted in.

use crate::{ServiceAddr, channel::ChannelError};
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use linkerd_http::classify;
use linkerd_metrics::{
    Classification, Counter, Family, HttpFamilies, HttpSeries, Labels, Registry, ResponseEnd,
};
use linkerd_stack::Cause;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

/// The families of all services that the proxy asks.
#[derive(Clone, Debug)]
pub(crate) struct ControlMetrics {
    http: HttpFamilies,
    resolutions: Family<Counter>,
}

/// The series of one service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceMetrics {
    http: Arc<HttpSeries>,
    pub(crate) resolved: Arc<Counter>,
    pub(crate) not_resolved: Arc<Counter>,
}

/// One call, counted at its end.
pub(crate) struct Call {
    series: Arc<HttpSeries>,
    started: Instant,
    status: Option<u16>,
    grpc_status: Option<u16>,
    ended: bool,
}

/// A response's body, followed to its end.
pub(crate) struct Followed {
    body: Incoming,
    call: Call,
}

impl ControlMetrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            http: HttpFamilies::control(registry),
            resolutions: registry.counter(
                "control_dns_resolutions_total",
                "Lookups of the names of the control plane's services.",
            ),
        }
    }

    /// `client`: what the service is to the proxy.
    pub(crate) fn of(&self, client: &str, service: &ServiceAddr) -> ServiceMetrics {
        let labels = Labels::new().with_display("addr", service);
        let labels = match &service.id {
            Some(id) => labels.with("tls", "true").with("server_id", id.as_str()),
            None => labels
                .with("tls", "no_identity")
                .with("no_tls_reason", "loopback"),
        };
        let resolutions = |result| {
            let labels = Labels::new()
                .with("client", client)
                .with("record_type", "A/AAAA")
                .with("result", result);
            self.resolutions.series(&labels)
        };
        ServiceMetrics {
            http: Arc::new(self.http.series(labels)),
            resolved: resolutions("ok"),
            not_resolved: resolutions("not_found"),
        }
    }
}

impl ServiceMetrics {
    pub(crate) fn call(&self) -> Call {
        self.http.request();
        Call {
            series: self.http.clone(),
            started: Instant::now(),
            status: None,
            grpc_status: None,
            ended: false,
        }
    }
}

impl Call {
    /// The call got no response.
    pub(crate) fn failed(mut self, error: &ChannelError) {
        self.end(Some(error.cause()));
    }

    pub(crate) fn follow(mut self, response: Response<Incoming>) -> Response<Followed> {
        self.status = Some(response.status().as_u16());
        self.grpc_status = classify::grpc_status(response.headers());
        self.series.latency(self.status, self.started.elapsed());
        response.map(|body| Followed { body, call: self })
    }

    fn end(&mut self, error: Option<Cause>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let failed = error.is_some_and(|cause| cause != Cause::DownstreamClosed);
        let classification = match self.grpc_status {
            _ if failed => Classification::Failure,
            Some(code) => classify::classify_grpc(code),
            None => Classification::Success,
        };
        self.series.response(ResponseEnd {
            status: self.status,
            classification,
            grpc_status: self.grpc_status,
            error: error.map(Cause::code),
        });
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_status = classify::grpc_status(trailers).or(self.grpc_status);
        self.end(None);
    }
}

impl Drop for Call {
    /// The proxy itself lost interest, as it does with streams about what nobody uses any more.
    fn drop(&mut self) {
        self.end(Some(Cause::DownstreamClosed));
    }
}

impl Body for Followed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.call.end(None),
            Some(Err(_)) => self.call.end(Some(Cause::UpstreamClosed)),
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.trailers(trailers);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
