//! Counts a stream in the series of its route: statuses, times, sizes of frames.

use crate::{Body, Observe, body::End, classify};
use http::{HeaderMap, StatusCode};
use linkerd_metrics::{Histogram, RouteProtocol, StreamEnd, StreamSeries};
use linkerd_stack::Cause;
use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

/// A stream on its way. Dropped without an end, it counts as one that its client gave up.
#[derive(Debug)]
pub struct StreamRecord {
    series: Arc<StreamSeries>,
    protocol: RouteProtocol,
    started: Instant,
    /// When the request's last byte was read; without a body it is its head.
    sent: Option<Arc<OnceLock<Instant>>>,
    status: Option<u16>,
    /// The status in the response's headers is not the last word.
    trailers: bool,
    error: Option<Cause>,
    ended: bool,
}

/// Follows the request's body.
struct RequestFrames {
    sizes: Option<Arc<Histogram>>,
    sent: Arc<OnceLock<Instant>>,
}

impl StreamRecord {
    #[must_use]
    pub fn begin(series: &Arc<StreamSeries>, protocol: RouteProtocol, started: Instant) -> Self {
        series.request();
        Self {
            series: series.clone(),
            protocol,
            started,
            sent: None,
            status: None,
            trailers: false,
            error: None,
            ended: false,
        }
    }

    /// Takes over when the request was sent, of which `other` follows the body.
    #[must_use]
    pub fn sent_with(mut self, other: &Self) -> Self {
        self.sent.clone_from(&other.sent);
        self
    }

    /// Follows the request's body to its end.
    #[must_use]
    pub fn request(&mut self, body: Body) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return body;
        }
        let sent = Arc::<OnceLock<Instant>>::default();
        self.sent = Some(sent.clone());
        body.observe(RequestFrames {
            sizes: self.series.request_frames.clone(),
            sent,
        })
    }

    /// The response has begun; its end comes through [`Observe`].
    pub fn response(&mut self, status: StatusCode, headers: &HeaderMap) {
        match self.protocol {
            RouteProtocol::Http => self.status = Some(status.as_u16()),
            RouteProtocol::Grpc => {
                self.status = classify::grpc_status(headers);
                self.trailers = self.status.is_none();
            }
        }
    }

    /// Nobody reads the response, because the request is sent again.
    pub fn given_up(mut self) {
        self.finish(End::Complete(None));
    }

    /// There is no response, because of `cause`.
    pub fn failed(mut self, cause: Cause) {
        self.error = Some(cause);
        self.finish(End::Complete(None));
    }

    fn finish(&mut self, end: End<'_>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let error = match end {
            End::Complete(trailers) => {
                if self.trailers {
                    self.status = trailers.and_then(classify::grpc_status);
                }
                self.error
            }
            End::Failed(error) => Some(error.cause()),
            End::Dropped => Some(Cause::DownstreamClosed),
        };
        let end = StreamEnd {
            status: self.status,
            error: error.map(Cause::code),
        };
        let now = Instant::now();
        let sent = self
            .sent
            .as_ref()
            .map_or(self.started, |sent| sent.get().copied().unwrap_or(now));
        self.series
            .ended(end, now - self.started, now.saturating_duration_since(sent));
    }
}

impl Observe for StreamRecord {
    fn data(&mut self, bytes: usize) {
        if let Some(sizes) = &self.series.response_frames {
            sizes.record_value(bytes as u64);
        }
    }

    fn end(&mut self, end: End<'_>) {
        self.finish(end);
    }
}

impl Drop for StreamRecord {
    fn drop(&mut self) {
        self.finish(End::Dropped);
    }
}

impl Observe for RequestFrames {
    fn data(&mut self, bytes: usize) {
        if let Some(sizes) = &self.sizes {
            sizes.record_value(bytes as u64);
        }
    }

    fn end(&mut self, _end: End<'_>) {
        let _ = self.sent.set(Instant::now());
    }
}
