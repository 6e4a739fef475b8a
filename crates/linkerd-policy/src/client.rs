//! How to reach a destination.

use crate::{
    Endpoint, Meta,
    filter::{GrpcFilter, HttpFilter, OpaqueFilter},
    grpc_match::GrpcMatch,
    host::HostMatch,
    http_match::HttpMatch,
    route,
};
use http::StatusCode;
use std::{ops::RangeInclusive, sync::Arc, time::Duration};

#[derive(Clone, Debug, PartialEq)]
pub struct ClientPolicy {
    pub protocol: Protocol,
    pub parent: Arc<Meta>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Protocol {
    Detect {
        timeout: Duration,
        http1: Arc<Http>,
        http2: Arc<Http>,
        opaque: Arc<Opaque>,
    },
    Http1(Arc<Http>),
    Http2(Arc<Http>),
    Grpc(Arc<Grpc>),
    Opaque(Arc<Opaque>),
    Tls(Arc<Tls>),
    /// The control plane's answer could not be understood: HTTP requests are answered with a 500, others refused.
    Invalid(Arc<str>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Http {
    pub routes: Vec<HttpRoute>,
    pub failure_accrual: FailureAccrual,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grpc {
    pub routes: Vec<GrpcRoute>,
    pub failure_accrual: FailureAccrual,
}

/// The first route counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opaque {
    pub routes: Vec<OpaqueRoute>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    pub routes: Vec<TlsRoute>,
}

pub type HttpRoute = route::Route<Arc<Meta>, HttpMatch, HttpRule>;
pub type GrpcRoute = route::Route<Arc<Meta>, GrpcMatch, GrpcRule>;

#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    pub filters: Vec<HttpFilter>,
    pub backends: Distribution<HttpFilter>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry<HttpRetryConditions>>,
    /// Whether the application's `l5d-retry-*` and `l5d-*timeout` headers count.
    pub allow_l5d_request_headers: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct GrpcRule {
    pub filters: Vec<GrpcFilter>,
    pub backends: Distribution<GrpcFilter>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry<GrpcRetryConditions>>,
    pub allow_l5d_request_headers: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OpaqueRoute {
    pub meta: Arc<Meta>,
    pub filters: Vec<OpaqueFilter>,
    pub backends: Distribution<OpaqueFilter>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TlsRoute {
    pub meta: Arc<Meta>,
    pub snis: Vec<HostMatch>,
    pub filters: Vec<OpaqueFilter>,
    pub backends: Distribution<OpaqueFilter>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub enum Distribution<F> {
    /// Never available.
    #[default]
    Empty,
    FirstAvailable(Vec<RouteBackend<F>>),
    /// Weights are > 0.
    RandomAvailable(Vec<(RouteBackend<F>, u32)>),
}

impl<F> Distribution<F> {
    fn all(&self) -> Vec<&Backend> {
        match self {
            Self::Empty => Vec::new(),
            Self::FirstAvailable(all) => all.iter().map(|b| &b.backend).collect(),
            Self::RandomAvailable(all) => all.iter().map(|(b, _)| &b.backend).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct RouteBackend<F> {
    pub backend: Backend,
    pub filters: Vec<F>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub meta: Arc<Meta>,
    pub dispatch: Dispatch,
    /// Absent: the proxy's own.
    pub queue: Option<Queue>,
}

/// Requests that wait for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    pub capacity: usize,
    /// How long no endpoint may be available before requests fail at once.
    pub failfast: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Dispatch {
    Forward(Arc<Endpoint>),
    Balance {
        /// The path for the endpoint stream, `host:port`.
        authority: Arc<str>,
        load: Load,
    },
    /// Nothing said: requests fail with a 502.
    Unknown,
}

/// Peak EWMA of the round-trip time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub default_rtt: Duration,
    pub decay: Duration,
    /// What a failure adds, with the penalty variant.
    pub penalty: Option<Penalty>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            default_rtt: Duration::from_millis(30),
            decay: Duration::from_secs(10),
            penalty: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalty {
    pub rtt: Duration,
    pub max_retry_after: Duration,
    pub decay: Duration,
}

/// Absent: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole stream, retries included.
    pub request: Option<Duration>,
    /// From the end of the request to the end of the response.
    pub response: Option<Duration>,
    /// Between frames.
    pub idle: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retry<C> {
    pub max_retries: u16,
    pub max_request_bytes: usize,
    /// For each attempt, until response headers.
    pub timeout: Option<Duration>,
    pub backoff: Option<Backoff>,
    pub conditions: C,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRetryConditions {
    pub statuses: Vec<RangeInclusive<u16>>,
}

impl HttpRetryConditions {
    #[must_use]
    pub fn contains(&self, status: StatusCode) -> bool {
        self.statuses.iter().any(|range| range.contains(&status.as_u16()))
    }
}

/// A set of gRPC status codes, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrpcRetryConditions(u32);

impl GrpcRetryConditions {
    #[must_use]
    pub fn with(self, code: u16) -> Self {
        Self(self.0 | 1_u32.checked_shl(code.into()).unwrap_or(0))
    }

    #[must_use]
    pub fn contains(self, code: u16) -> bool {
        self.0 & 1_u32.checked_shl(code.into()).unwrap_or(0) != 0
    }
}

/// Exponential backoff; min ≤ max, max > 0, 0 ≤ jitter ≤ 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    jitter: f32,
    /// Whether a server's own wish (`retry-after`, `grpc-retry-pushback-ms`) may make a pause longer.
    heeds_server: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackoff {
    #[error("maximum backoff must not be less than the minimum")]
    MaxBelowMin,
    #[error("maximum backoff must not be zero")]
    ZeroMax,
    #[error("jitter must be a number from 0 to 100")]
    Jitter,
}

impl Backoff {
    /// # Errors
    /// When the values contradict each other.
    pub fn new(min: Duration, max: Duration, jitter: f32) -> Result<Self, InvalidBackoff> {
        if max.is_zero() {
            return Err(InvalidBackoff::ZeroMax);
        }
        if min > max {
            return Err(InvalidBackoff::MaxBelowMin);
        }
        if !jitter.is_finite() || !(0.0..=100.0).contains(&jitter) {
            return Err(InvalidBackoff::Jitter);
        }
        Ok(Self {
            min,
            max,
            jitter,
            heeds_server: false,
        })
    }

    #[must_use]
    pub const fn heeding_server(mut self, heeds: bool) -> Self {
        self.heeds_server = heeds;
        self
    }

    /// What counts of the pause that a server asks for.
    #[must_use]
    pub fn heeded(&self, asked: Option<Duration>) -> Option<Duration> {
        asked.filter(|_| self.heeds_server)
    }

    #[must_use]
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// The pause before attempt `attempt` (0: the first retry): min × 2^attempt, at most max, plus up to
    /// `jitter` times that. `draw` is evenly distributed over 0..1; the result exceeds max only by jitter.
    #[must_use]
    pub fn pause(&self, attempt: u32, draw: f32) -> Duration {
        let base = self
            .min
            .saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX))
            .min(self.max);
        base + base.mul_f32(self.jitter * draw.clamp(0.0, 1.0))
    }
}

/// When endpoints that fail are left out, and how many may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FailureAccrual {
    pub trip: Trip,
    /// No endpoint is left out when fewer than these would be ready then. Where a policy says nothing it is one: the
    /// last endpoint stays, because a destination that fails sometimes is better than none.
    pub min_ready: usize,
}

impl FailureAccrual {
    pub const NONE: Self = Self {
        trip: Trip::Never,
        min_ready: 1,
    };
}

impl Default for FailureAccrual {
    fn default() -> Self {
        Self::NONE
    }
}

/// When one endpoint's responses are too bad.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Trip {
    #[default]
    Never,
    ConsecutiveFailures {
        max_failures: u32,
        backoff: Backoff,
    },
    Unified {
        /// Below this share of successes it trips; 0: never.
        success_rate_threshold: f64,
        window: Duration,
        min_requests: u32,
        /// 0: never.
        max_consecutive_failures: u32,
        backoff: Backoff,
    },
}

impl ClientPolicy {
    /// A policy for a destination that is known without routes: a pod's address, or a place outside of the cluster.
    #[must_use]
    pub fn without_routes(dispatch: Dispatch, parent: &Arc<Meta>, detect_timeout: Duration) -> Self {
        let backend = Backend {
            meta: parent.clone(),
            dispatch,
            queue: None,
        };
        let rule = HttpRule {
            filters: Vec::new(),
            backends: Distribution::FirstAvailable(vec![RouteBackend {
                backend: backend.clone(),
                filters: Vec::new(),
            }]),
            timeouts: Timeouts::default(),
            retry: None,
            allow_l5d_request_headers: false,
        };
        let http_route = HttpRoute {
            hosts: Vec::new(),
            rules: vec![route::Rule {
                matches: Vec::new(),
                value: rule,
            }],
            value: Meta::default_named("default"),
        };
        let opaque_route = OpaqueRoute {
            meta: Meta::default_named("default"),
            filters: Vec::new(),
            backends: Distribution::FirstAvailable(vec![RouteBackend {
                backend,
                filters: Vec::new(),
            }]),
        };
        let http = Arc::new(Http {
            routes: vec![http_route],
            failure_accrual: FailureAccrual::NONE,
        });
        let opaque = Arc::new(Opaque {
            routes: vec![opaque_route],
        });
        let protocol = Protocol::Detect {
            timeout: detect_timeout,
            http1: http.clone(),
            http2: http,
            opaque,
        };
        Self {
            protocol,
            parent: parent.clone(),
        }
    }

    /// When its HTTP endpoints are left out.
    #[must_use]
    pub fn failure_accrual(&self) -> FailureAccrual {
        match &self.protocol {
            Protocol::Detect { http1: http, .. } | Protocol::Http1(http) | Protocol::Http2(http) => {
                http.failure_accrual
            }
            Protocol::Grpc(grpc) => grpc.failure_accrual,
            Protocol::Opaque(_) | Protocol::Tls(_) | Protocol::Invalid(_) => FailureAccrual::NONE,
        }
    }

    /// How it balances HTTP requests to `authority`, or to any other when it does not know that one.
    #[must_use]
    pub fn balancer(&self, authority: &str) -> Option<(Load, Option<Queue>)> {
        let all = match &self.protocol {
            Protocol::Detect { http1: http, .. } | Protocol::Http1(http) | Protocol::Http2(http) => {
                let rules = http.routes.iter().flat_map(|route| &route.rules);
                rules.flat_map(|rule| rule.value.backends.all()).collect()
            }
            Protocol::Grpc(grpc) => {
                let rules = grpc.routes.iter().flat_map(|route| &route.rules);
                rules.flat_map(|rule| rule.value.backends.all()).collect()
            }
            Protocol::Opaque(_) | Protocol::Tls(_) | Protocol::Invalid(_) => Vec::new(),
        };
        let balanced = |backend: &&Backend| match &backend.dispatch {
            Dispatch::Balance { authority, load } => Some((authority.clone(), (*load, backend.queue))),
            Dispatch::Forward(_) | Dispatch::Unknown => None,
        };
        let all: Vec<_> = all.iter().filter_map(balanced).collect();
        let same = all.iter().find(|(known, _)| **known == *authority);
        same.or(all.first()).map(|(_, how)| *how)
    }

    #[must_use]
    pub fn invalid(reason: impl Into<Arc<str>>) -> Self {
        Self {
            protocol: Protocol::Invalid(reason.into()),
            parent: Meta::default_named("invalid"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grpc_codes_are_a_set() {
        let set = GrpcRetryConditions::default().with(14).with(1);
        assert!(set.contains(14) && set.contains(1) && !set.contains(2));
        assert!(!set.with(99).contains(99));
    }

    #[test]
    fn contradictory_backoffs_are_refused() {
        let ms = Duration::from_millis;
        assert_eq!(Backoff::new(ms(2), ms(1), 0.0), Err(InvalidBackoff::MaxBelowMin));
        assert_eq!(Backoff::new(ms(0), ms(0), 0.0), Err(InvalidBackoff::ZeroMax));
        assert_eq!(Backoff::new(ms(1), ms(1), f32::NAN), Err(InvalidBackoff::Jitter));
    }

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1), 0.5).unwrap();
        let millis = |attempt, draw| backoff.pause(attempt, draw).as_millis();
        assert_eq!(
            [millis(0, 0.0), millis(1, 0.0), millis(9, 0.0), millis(0, 1.0)],
            [100, 200, 1000, 150]
        );
    }

    proptest! {
        #[test]
        fn pauses_stay_within_bounds(min in 1_u64..10_000, more in 0_u64..100_000, jitter in 0.0_f32..=1.0,
                                     attempt: u32, draw in 0.0_f32..1.0) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(min + more));
            let pause = Backoff::new(min, max, jitter).unwrap().pause(attempt, draw);
            prop_assert!(pause >= min && pause <= max * 2 + Duration::from_millis(1));
        }
    }
}
