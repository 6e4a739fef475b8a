//! Whether and when a policy's request is sent again.

use crate::{
    budget::Budget,
    dispatch::Unanswered,
    limits::{Limits, Peeked},
    verdict::asked_pause,
};
use http::Method;
use linkerd_http::{Response, classify};
use linkerd_policy::client::{self, Backoff, GrpcRetryConditions, HttpRetryConditions};
use linkerd_stack::{Cause, Retry as Retryable, is_grpc};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Debug)]
pub(crate) struct Retry {
    pub(crate) limit: u16,
    /// The largest body that is kept for another attempt.
    pub(crate) max_bytes: usize,
    /// Until an attempt's response begins.
    pub(crate) timeout: Option<Duration>,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) http: HttpRetryConditions,
    pub(crate) grpc: GrpcRetryConditions,
}

/// What becomes of an attempt's outcome.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is good, or nothing that another attempt could mend.
    Done,
    Again(Duration),
    /// It should be sent again, but that was done often enough already.
    LimitExceeded,
    /// … but too much is being sent again already.
    NoBudget,
    /// … but it cannot: the body is not kept, or there is no time.
    Impossible,
}

/// What is known when a decision is made.
pub(crate) struct Attempt<'a> {
    pub(crate) outcome: &'a Result<Response, Unanswered>,
    pub(crate) method: &'a Method,
    /// How many attempts came before this one.
    pub(crate) number: u32,
    /// The body can be sent once more.
    pub(crate) whole: bool,
    pub(crate) limits: Limits<'a>,
}

impl Retry {
    pub(crate) fn new<C>(policy: &client::Retry<C>) -> Self {
        Self {
            limit: policy.max_retries,
            max_bytes: policy.max_request_bytes.min(MAX_BODY),
            timeout: policy.timeout,
            backoff: policy.backoff,
            http: HttpRetryConditions::default(),
            grpc: GrpcRetryConditions::default(),
        }
    }

    /// Reads on where the status of a gRPC response decides and is not in its head.
    pub(crate) async fn peek(
        &self,
        outcome: Result<Response, Unanswered>,
        limits: &Limits<'_>,
    ) -> Result<Response, Unanswered> {
        if self.grpc == GrpcRetryConditions::default() {
            return outcome;
        }
        peek(outcome, limits).await
    }

    pub(crate) fn decide(&self, attempt: &Attempt<'_>, budget: &Budget) -> Decision {
        if !self.wants(attempt.outcome, attempt.method) {
            return Decision::Done;
        }
        if attempt.number >= u32::from(self.limit) {
            return Decision::LimitExceeded;
        }
        let Some(pause) = self.pause(attempt) else {
            return Decision::Impossible;
        };
        if !attempt.whole || !attempt.limits.outlast(pause) {
            return Decision::Impossible;
        }
        if !budget.withdraw(Instant::now()) {
            return Decision::NoBudget;
        }
        Decision::Again(pause)
    }

    /// Before the next attempt; none when the server wants to be left alone for longer than would ever be waited.
    fn pause(&self, attempt: &Attempt<'_>) -> Option<Duration> {
        let Some(backoff) = self.backoff else {
            return Some(Duration::ZERO);
        };
        let pause = backoff.pause(attempt.number, rand::random());
        let asked = attempt
            .outcome
            .as_ref()
            .ok()
            .and_then(|r| asked_pause(r.headers()));
        match backoff.heeded(asked) {
            Some(asked) if asked > backoff.max() => None,
            asked => Some(pause.max(asked.unwrap_or_default())),
        }
    }

    /// Whether the rule asks for another attempt. A connection that was lost after the request was sent says nothing
    /// of what the server has done, so only requests that may be repeated (RFC 9110 §9.2.2) are sent again then.
    fn wants(&self, outcome: &Result<Response, Unanswered>, method: &Method) -> bool {
        match outcome {
            Ok(response) => match status_of(response) {
                Some(code) => self.grpc.contains(code),
                None => self.http.contains(response.status()),
            },
            Err(unanswered) => match unanswered.error.retry() {
                Retryable::Unsent => true,
                Retryable::Maybe => {
                    let cause = unanswered.error.cause();
                    method.is_idempotent() || matches!(cause, Cause::ResponseTimeout | Cause::FailFast)
                }
                Retryable::Never => false,
            },
        }
    }
}

/// The status of a gRPC response, as far as it is known before its end.
#[derive(Copy, Clone, Debug)]
struct KnownStatus(u16);

pub(crate) fn status_of(response: &Response) -> Option<u16> {
    if !is_grpc(response.headers()) {
        return None;
    }
    let peeked = response.extensions().get::<KnownStatus>().map(|s| s.0);
    classify::grpc_status(response.headers()).or(peeked)
}

/// Finds out the status of a gRPC response that has it in its trailers, as long as they follow its first message.
pub(crate) async fn peek(
    outcome: Result<Response, Unanswered>,
    limits: &Limits<'_>,
) -> Result<Response, Unanswered> {
    let response = outcome?;
    if !is_grpc(response.headers()) || classify::grpc_status(response.headers()).is_some() {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let limits = Limits {
        head: None,
        ..*limits
    };
    let peeked = match limits.within("response", Peeked::read(body)).await {
        Ok(Ok(peeked)) => peeked,
        Ok(Err(error)) | Err(error) => return Err(Unanswered { error, counted: true }),
    };
    if let Some(code) = peeked.trailers().and_then(classify::grpc_status) {
        parts.extensions.insert(KnownStatus(code));
    }
    Ok(Response::from_parts(parts, peeked.into_body()))
}

/// The most that a policy may ask to keep.
const MAX_BODY: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use linkerd_http::Body;
    use linkerd_policy::profile::RetryBudget;
    use linkerd_stack::Error;

    fn retry() -> Retry {
        Retry {
            limit: 2,
            max_bytes: 64 * 1024,
            timeout: None,
            backoff: None,
            http: HttpRetryConditions {
                statuses: vec![500..=599],
            },
            grpc: GrpcRetryConditions::default().with(14),
        }
    }

    fn budget() -> Budget {
        let limits = RetryBudget::new(Duration::from_secs(10), 1, 0.2).unwrap();
        Budget::new(limits, Instant::now())
    }

    fn status(code: u16) -> Result<Response, Unanswered> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        Ok(response)
    }

    fn failed(error: Error) -> Result<Response, Unanswered> {
        Err(Unanswered {
            error,
            counted: false,
        })
    }

    fn decide(
        retry: &Retry,
        outcome: &Result<Response, Unanswered>,
        method: &Method,
        number: u32,
    ) -> Decision {
        let attempt = Attempt {
            outcome,
            method,
            number,
            whole: true,
            limits: Limits::default(),
        };
        retry.decide(&attempt, &budget())
    }

    const AGAIN: Decision = Decision::Again(Duration::ZERO);

    #[test]
    fn conditions_decide_up_to_the_limit() {
        let of = |code, number| decide(&retry(), &status(code), &Method::POST, number);
        assert_eq!(
            [of(200, 0), of(503, 0), of(503, 1)],
            [Decision::Done, AGAIN, AGAIN]
        );
        assert_eq!(of(503, 2), Decision::LimitExceeded);
        assert_eq!(of(200, 2), Decision::Done);
    }

    #[test]
    fn what_a_server_may_have_done_is_repeated_only_where_that_does_no_harm() {
        let of = |cause, method| decide(&retry(), &failed(Error::new(cause, "")), &method, 0);
        assert_eq!(of(Cause::UpstreamClosed, Method::GET), AGAIN);
        assert_eq!(of(Cause::UpstreamClosed, Method::POST), Decision::Done);
        assert_eq!(of(Cause::ConnectRefused, Method::POST), AGAIN);
        assert_eq!(of(Cause::FailFast, Method::POST), AGAIN);
        assert_eq!(of(Cause::ResponseTimeout, Method::POST), AGAIN);
        assert_eq!(of(Cause::LoadShed, Method::GET), Decision::Done);
        assert_eq!(of(Cause::RequestTimeout, Method::GET), Decision::Done);
    }

    #[test]
    fn the_budget_bounds_all_requests_of_a_rule() {
        let (budget, retry, outcome) = (budget(), retry(), status(503));
        let attempt = Attempt {
            outcome: &outcome,
            method: &Method::GET,
            number: 0,
            whole: true,
            limits: Limits::default(),
        };
        let all: Vec<_> = (0..11).map(|_| retry.decide(&attempt, &budget)).collect();
        assert_eq!(all[..10], [AGAIN; 10]);
        assert_eq!(all[10], Decision::NoBudget);
    }

    #[test]
    fn a_server_that_asks_for_too_long_a_pause_is_not_asked_again() {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(2), 0.0).unwrap();
        let of = |after: &'static str| {
            let mut outcome = status(503);
            let headers = outcome.as_mut().unwrap().headers_mut();
            headers.insert("retry-after", http::HeaderValue::from_static(after));
            let retry = Retry {
                backoff: Some(backoff.heeding_server(true)),
                ..retry()
            };
            decide(&retry, &outcome, &Method::GET, 0)
        };
        assert_eq!(of("1"), Decision::Again(Duration::from_secs(1)));
        assert_eq!(of("3"), Decision::Impossible);
    }

    #[tokio::test]
    async fn a_status_in_trailers_is_read() {
        let (sender, body) = Body::channel(4);
        sender.data("a".into()).await.unwrap();
        let trailers =
            [("grpc-status", "14")].map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap()));
        sender.trailers(trailers.into_iter().collect()).await.unwrap();
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
        let outcome = retry().peek(Ok(response), &Limits::default()).await;
        assert_eq!(decide(&retry(), &outcome, &Method::POST, 0), AGAIN);
    }
}
