//! What a response says about the endpoint that it comes from.

use http::{HeaderMap, StatusCode, header};
use linkerd_balance::Outcome;
use linkerd_http::{Classes, classify};
use linkerd_metrics::Classification;
use linkerd_stack::is_grpc;
use std::time::{Duration, SystemTime};

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    /// Whether the endpoint should look slow for it.
    pub(crate) penalty: bool,
    /// How long the server wants to be left alone.
    pub(crate) asked: Option<Duration>,
}

/// A response's head, as far as it tells how good the response is.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Head {
    status: StatusCode,
    grpc: bool,
    grpc_status: Option<u16>,
    asked: Option<Duration>,
}

impl Verdict {
    /// Of a response that broke off, or that never came.
    pub(crate) const BROKEN: Self = Self {
        outcome: Outcome::Failure,
        penalty: true,
        asked: None,
    };

    fn new(classes: &Classes, status: StatusCode, grpc: Option<u16>, asked: Option<Duration>) -> Self {
        let exhausted = status == StatusCode::TOO_MANY_REQUESTS || grpc == Some(RESOURCE_EXHAUSTED);
        let outcome = match classes.classify(status, grpc) {
            Classification::Failure => Outcome::Failure,
            Classification::Success if exhausted => Outcome::Exhausted,
            Classification::Success => Outcome::Success,
        };
        let penalty = exhausted || status.is_server_error() || grpc.is_some_and(|g| PENALIZED.contains(&g));
        Self {
            outcome,
            penalty,
            asked,
        }
    }
}

impl Head {
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        Self {
            status,
            grpc: is_grpc(headers),
            grpc_status: classify::grpc_status(headers),
            asked: asked_pause(headers),
        }
    }

    /// What the head alone tells; nothing when a gRPC status is to come in the trailers.
    pub(crate) fn verdict(&self, classes: &Classes) -> Option<Verdict> {
        let grpc = self.grpc_status.filter(|_| self.grpc);
        let known = !self.grpc || grpc.is_some() || self.status.is_server_error();
        known.then(|| Verdict::new(classes, self.status, grpc, self.asked))
    }

    /// What the complete response tells. A gRPC response without a status is one that its client reads as UNKNOWN.
    pub(crate) fn verdict_at_end(&self, classes: &Classes, trailers: Option<&HeaderMap>) -> Verdict {
        let asked = trailers.and_then(asked_pause).or(self.asked);
        let grpc = self.grpc.then(|| {
            trailers
                .and_then(classify::grpc_status)
                .or(self.grpc_status)
                .unwrap_or(classify::GRPC_UNKNOWN)
        });
        Verdict::new(classes, self.status, grpc, asked)
    }
}

/// `retry-after` (RFC 9110 §10.2.3) or gRPC's `grpc-retry-pushback-ms`.
pub(crate) fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    if let Some(millis) = text("grpc-retry-pushback-ms").and_then(|v| v.trim().parse().ok()) {
        return Some(Duration::from_millis(millis));
    }
    let after = text(header::RETRY_AFTER.as_str())?.trim();
    match after.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(after)
            .ok()?
            .duration_since(SystemTime::now())
            .ok(),
    }
}

const RESOURCE_EXHAUSTED: u16 = 8;
/// Besides RESOURCE_EXHAUSTED: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
const PENALIZED: [u16; 5] = [2, 4, 13, 14, 15];

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    fn of(status: u16, head: &[(&'static str, &str)]) -> Option<Verdict> {
        Head::new(StatusCode::from_u16(status).unwrap(), &headers(head)).verdict(&Classes::Default)
    }

    const GRPC: (&str, &str) = ("content-type", "application/grpc");

    #[test]
    fn the_status_tells_of_http() {
        let found = |status| of(status, &[]).map(|v| (v.outcome, v.penalty));
        assert_eq!(found(200), Some((Outcome::Success, false)));
        assert_eq!(found(404), Some((Outcome::Success, false)));
        assert_eq!(found(429), Some((Outcome::Exhausted, true)));
        assert_eq!(found(503), Some((Outcome::Failure, true)));
    }

    #[test]
    fn trailers_tell_of_grpc() {
        assert_eq!(of(200, &[GRPC]), None);
        assert_eq!(
            of(200, &[GRPC, ("grpc-status", "14")]).map(|v| v.outcome),
            Some(Outcome::Failure)
        );
        let head = Head::new(StatusCode::OK, &headers(&[GRPC]));
        let end = |trailers: Option<&[(&'static str, &str)]>| {
            let verdict = head.verdict_at_end(&Classes::Default, trailers.map(headers).as_ref());
            (verdict.outcome, verdict.penalty)
        };
        assert_eq!(end(Some(&[("grpc-status", "0")])), (Outcome::Success, false));
        assert_eq!(end(Some(&[("grpc-status", "8")])), (Outcome::Exhausted, true));
        assert_eq!(end(Some(&[("grpc-status", "7")])), (Outcome::Failure, false));
        assert_eq!(end(None), (Outcome::Failure, true));
    }

    #[test]
    fn a_pause_is_asked_for_in_three_ways() {
        let asked = |name, value: &str| asked_pause(&headers(&[(name, value)]));
        assert_eq!(asked("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(
            asked("grpc-retry-pushback-ms", "250"),
            Some(Duration::from_millis(250))
        );
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!((58..=60).contains(&asked("retry-after", &soon).unwrap().as_secs()));
        for nonsense in ["-1", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(asked("retry-after", nonsense), None);
        }
        assert_eq!(asked("grpc-retry-pushback-ms", "-1"), None);
    }
}
