//! What an application asks for in a request's own headers, where the route allows it.

use crate::retry::Retry;
use http::{HeaderMap, HeaderName};
use linkerd_policy::client::{Backoff, GrpcRetryConditions, HttpRetryConditions, Timeouts};
use std::{ops::RangeInclusive, time::Duration};

/// Takes the headers off the request; returns what holds for it then. Values that cannot be read have no effect.
pub(crate) fn take(
    headers: &mut HeaderMap,
    mut timeouts: Timeouts,
    retry: Option<&Retry>,
) -> (Timeouts, Option<Retry>) {
    let mut taken = |name: &HeaderName| {
        let value = headers.remove(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let (first, second) = (taken(&L5D_TIMEOUT), taken(&L5D_REQUEST_TIMEOUT));
    let parsed = |text: Option<String>| text.as_deref().and_then(duration);
    timeouts.request = parsed(second).or(parsed(first)).or(timeouts.request);
    timeouts.response = parsed(taken(&L5D_RESPONSE_TIMEOUT)).or(timeouts.response);
    let http = taken(&L5D_RETRY_HTTP).map(|text| http_conditions(&text));
    let grpc = taken(&L5D_RETRY_GRPC).map(|text| grpc_conditions(&text));
    let limit = taken(&L5D_RETRY_LIMIT).and_then(|text| text.trim().parse().ok());
    let timeout = parsed(taken(&L5D_RETRY_TIMEOUT));
    if http.is_none() && grpc.is_none() && limit.is_none() && timeout.is_none() {
        return (timeouts, retry.cloned());
    }
    let mut retry = retry.cloned().unwrap_or_else(by_default);
    retry.http = http.unwrap_or(retry.http);
    retry.grpc = grpc.unwrap_or(retry.grpc);
    retry.limit = limit.unwrap_or(retry.limit);
    retry.timeout = timeout.or(retry.timeout);
    (timeouts, Some(retry))
}

/// Whether a request has any of the headers.
pub(crate) fn asked(headers: &HeaderMap) -> bool {
    ALL.iter().any(|name| headers.contains_key(name))
}

/// What a request that asks for retries gets where its route has none.
fn by_default() -> Retry {
    Retry {
        limit: 1,
        max_bytes: 64 * 1024,
        timeout: None,
        backoff: Backoff::new(Duration::from_millis(25), Duration::from_millis(250), 1.0).ok(),
        http: HttpRetryConditions::default(),
        grpc: GrpcRetryConditions::default(),
    }
}

fn http_conditions(text: &str) -> HttpRetryConditions {
    HttpRetryConditions {
        statuses: text.split(',').filter_map(|part| statuses(part.trim())).collect(),
    }
}

fn statuses(text: &str) -> Option<RangeInclusive<u16>> {
    match text {
        "5xx" => return Some(500..=599),
        "gateway-error" => return Some(502..=504),
        _ => {}
    }
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let range = low.parse().ok()?..=high.parse().ok()?;
    (*range.start() >= 100 && *range.end() <= 599 && !range.is_empty()).then_some(range)
}

fn grpc_conditions(text: &str) -> GrpcRetryConditions {
    let codes = text.split(',').filter_map(|part| match part.trim() {
        "cancelled" => Some(1),
        "deadline-exceeded" => Some(4),
        "resource-exhausted" => Some(8),
        "internal" => Some(13),
        "unavailable" => Some(14),
        _ => None,
    });
    codes.fold(GrpcRetryConditions::default(), GrpcRetryConditions::with)
}

/// An integer with `ms`, `s`, `m`, `h` or `d`, as in the proxy's environment.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == 0 => 1,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

const L5D_RETRY_HTTP: HeaderName = HeaderName::from_static("l5d-retry-http");
const L5D_RETRY_GRPC: HeaderName = HeaderName::from_static("l5d-retry-grpc");
const L5D_RETRY_LIMIT: HeaderName = HeaderName::from_static("l5d-retry-limit");
const L5D_RETRY_TIMEOUT: HeaderName = HeaderName::from_static("l5d-retry-timeout");
const L5D_TIMEOUT: HeaderName = HeaderName::from_static("l5d-timeout");
const L5D_REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("l5d-request-timeout");
const L5D_RESPONSE_TIMEOUT: HeaderName = HeaderName::from_static("l5d-response-timeout");
const ALL: [HeaderName; 7] = [
    L5D_RETRY_HTTP,
    L5D_RETRY_GRPC,
    L5D_RETRY_LIMIT,
    L5D_RETRY_TIMEOUT,
    L5D_TIMEOUT,
    L5D_REQUEST_TIMEOUT,
    L5D_RESPONSE_TIMEOUT,
];

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, StatusCode};
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn taken(all: &[(HeaderName, &'static str)]) -> (Timeouts, Option<Retry>) {
        let values = all
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut headers: HeaderMap = values.collect();
        assert!(asked(&headers) || all.is_empty());
        let result = take(&mut headers, Timeouts::default(), None);
        assert!(headers.is_empty());
        result
    }

    #[test]
    fn timeouts_are_taken_and_the_more_precise_name_wins() {
        let (timeouts, retry) = taken(&[
            (L5D_TIMEOUT, "1s"),
            (L5D_REQUEST_TIMEOUT, "250ms"),
            (L5D_RESPONSE_TIMEOUT, "2m"),
        ]);
        assert_eq!(timeouts.request, Some(SECOND / 4));
        assert_eq!(timeouts.response, Some(120 * SECOND));
        assert!(retry.is_none());
        assert_eq!(taken(&[(L5D_TIMEOUT, "1s")]).0.request, Some(SECOND));
        let unreadable = taken(&[(L5D_TIMEOUT, "1s"), (L5D_REQUEST_TIMEOUT, "soon")]);
        assert_eq!(unreadable.0.request, Some(SECOND));
    }

    #[test]
    fn retries_are_made_where_there_were_none() {
        let (_, retry) = taken(&[(L5D_RETRY_HTTP, "gateway-error, nonsense,404,410-412")]);
        let retry = retry.unwrap();
        let wanted: Vec<_> = (400..600)
            .filter(|s| retry.http.contains(StatusCode::from_u16(*s).unwrap()))
            .collect();
        assert_eq!(wanted, [404, 410, 411, 412, 502, 503, 504]);
        assert_eq!((retry.limit, retry.max_bytes), (1, 64 * 1024));
        let (_, retry) = taken(&[
            (L5D_RETRY_GRPC, "internal,unavailable"),
            (L5D_RETRY_LIMIT, "5"),
            (L5D_RETRY_TIMEOUT, "1s"),
        ]);
        let retry = retry.unwrap();
        assert_eq!(
            (retry.limit, retry.timeout, retry.grpc),
            (5, Some(SECOND), GrpcRetryConditions::default().with(13).with(14))
        );
    }

    proptest! {
        #[test]
        fn no_value_breaks_anything(values in prop::collection::vec("[ -~]{0,20}", 7)) {
            let mut headers: HeaderMap = ALL.into_iter().zip(&values)
                .map(|(name, value)| (name, HeaderValue::from_str(value).unwrap()))
                .collect();
            take(&mut headers, Timeouts::default(), None);
            prop_assert!(headers.is_empty());
        }
    }
}
