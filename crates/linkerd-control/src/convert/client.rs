//! Outbound policies.

use super::{
    Invalid, duration,
    endpoint::endpoint,
    filter::{grpc_failure, http_failure, redirect, request_headers, response_headers},
    invalid, limit,
    matching::{grpc_match, hosts, http_match, snis},
    metadata,
};
use linkerd_policy::{
    ClientPolicy,
    client::{
        Backend, Backoff, Dispatch, Distribution, FailureAccrual, Grpc, GrpcRetryConditions, GrpcRoute,
        GrpcRule, Http, HttpRetryConditions, HttpRoute, HttpRule, Load, Opaque, OpaqueRoute, Penalty,
        Protocol, Queue, Retry, RouteBackend, Timeouts, Tls, TlsRoute, Trip,
    },
    filter::{GrpcFilter, HttpFilter, OpaqueFilter},
    route::Rule,
};
use linkerd_proto::{http_route, outbound};
use std::{collections::HashMap, sync::Arc, time::Duration};

pub(crate) fn client_policy(
    message: outbound::OutboundPolicy,
    detect_timeout: Duration,
) -> Result<ClientPolicy, Invalid> {
    let kind = message.protocol.and_then(|protocol| protocol.kind);
    Ok(ClientPolicy {
        protocol: protocol(kind.ok_or_else(|| Invalid::missing("protocol"))?, detect_timeout)?,
        parent: metadata(message.metadata)?,
    })
}

fn protocol(kind: outbound::proxy_protocol::Kind, detect_timeout: Duration) -> Result<Protocol, Invalid> {
    use outbound::proxy_protocol::Kind;
    Ok(match kind {
        Kind::Detect(detect) => {
            let http1 = detect
                .http1
                .ok_or_else(|| Invalid::missing("HTTP/1 of detection"))?;
            let http2 = detect
                .http2
                .ok_or_else(|| Invalid::missing("HTTP/2 of detection"))?;
            Protocol::Detect {
                timeout: detect_timeout,
                http1: http(http1.routes, http1.failure_accrual)?,
                http2: http(http2.routes, http2.failure_accrual)?,
                opaque: opaque(
                    detect
                        .opaque
                        .ok_or_else(|| Invalid::missing("opaque of detection"))?,
                )?,
            }
        }
        Kind::Opaque(message) => Protocol::Opaque(opaque(message)?),
        Kind::Http1(message) => Protocol::Http1(http(message.routes, message.failure_accrual)?),
        Kind::Http2(message) => Protocol::Http2(http(message.routes, message.failure_accrual)?),
        Kind::Grpc(message) => Protocol::Grpc(Arc::new(Grpc {
            routes: each(message.routes, grpc_route)?,
            failure_accrual: failure_accrual(message.failure_accrual)?,
        })),
        Kind::Tls(message) => Protocol::Tls(Arc::new(Tls {
            routes: each(message.routes, tls_route)?,
        })),
    })
}

fn each<M, T>(messages: Vec<M>, one: impl Fn(M) -> Result<T, Invalid>) -> Result<Vec<T>, Invalid> {
    messages.into_iter().map(one).collect()
}

fn http(
    routes: Vec<outbound::HttpRoute>,
    accrual: Option<outbound::FailureAccrual>,
) -> Result<Arc<Http>, Invalid> {
    let routes = each(routes, http_route)?;
    Ok(Arc::new(Http {
        routes,
        failure_accrual: failure_accrual(accrual)?,
    }))
}

fn opaque(message: outbound::proxy_protocol::Opaque) -> Result<Arc<Opaque>, Invalid> {
    Ok(Arc::new(Opaque {
        routes: each(message.routes, opaque_route)?,
    }))
}

fn http_route(message: outbound::HttpRoute) -> Result<HttpRoute, Invalid> {
    Ok(HttpRoute {
        hosts: hosts(message.hosts)?,
        rules: each(message.rules, http_rule)?,
        value: metadata(message.metadata)?,
    })
}

fn http_rule(
    message: outbound::http_route::Rule,
) -> Result<Rule<linkerd_policy::http_match::HttpMatch, HttpRule>, Invalid> {
    Ok(Rule {
        matches: each(message.matches, http_match)?,
        value: HttpRule {
            filters: each(message.filters, http_filter)?,
            backends: http_distribution(message.backends)?,
            timeouts: timeouts(message.timeouts)?,
            retry: message.retry.map(http_retry).transpose()?,
            allow_l5d_request_headers: message.allow_l5d_request_headers,
        },
    })
}

fn grpc_route(message: outbound::GrpcRoute) -> Result<GrpcRoute, Invalid> {
    Ok(GrpcRoute {
        hosts: hosts(message.hosts)?,
        rules: each(message.rules, grpc_rule)?,
        value: metadata(message.metadata)?,
    })
}

fn grpc_rule(
    message: outbound::grpc_route::Rule,
) -> Result<Rule<linkerd_policy::grpc_match::GrpcMatch, GrpcRule>, Invalid> {
    Ok(Rule {
        matches: each(message.matches, grpc_match)?,
        value: GrpcRule {
            filters: each(message.filters, grpc_filter)?,
            backends: grpc_distribution(message.backends)?,
            timeouts: timeouts(message.timeouts)?,
            retry: message.retry.map(grpc_retry).transpose()?,
            allow_l5d_request_headers: message.allow_l5d_request_headers,
        },
    })
}

fn opaque_route(message: outbound::OpaqueRoute) -> Result<OpaqueRoute, Invalid> {
    let rule = message.rules.into_iter().next().unwrap_or_default();
    Ok(OpaqueRoute {
        meta: metadata(message.metadata)?,
        filters: each(rule.filters, opaque_filter)?,
        backends: opaque_distribution(rule.backends)?,
    })
}

fn tls_route(message: outbound::TlsRoute) -> Result<TlsRoute, Invalid> {
    let rule = message.rules.into_iter().next().unwrap_or_default();
    Ok(TlsRoute {
        meta: metadata(message.metadata)?,
        snis: snis(message.snis)?,
        filters: each(rule.filters, tls_filter)?,
        backends: tls_distribution(rule.backends)?,
    })
}

fn http_filter(filter: outbound::http_route::Filter) -> Result<HttpFilter, Invalid> {
    use outbound::http_route::filter::Kind;
    match filter.kind {
        Some(Kind::FailureInjector(failure)) => http_failure(failure).map(HttpFilter::Failure),
        Some(Kind::RequestHeaderModifier(headers)) => {
            request_headers(headers).map(HttpFilter::RequestHeaders)
        }
        Some(Kind::ResponseHeaderModifier(headers)) => {
            response_headers(headers).map(HttpFilter::ResponseHeaders)
        }
        Some(Kind::Redirect(to)) => redirect(to).map(HttpFilter::Redirect),
        None => Ok(HttpFilter::Unknown),
    }
}

fn grpc_filter(filter: outbound::grpc_route::Filter) -> Result<GrpcFilter, Invalid> {
    use outbound::grpc_route::filter::Kind;
    match filter.kind {
        Some(Kind::FailureInjector(failure)) => grpc_failure(failure).map(GrpcFilter::Failure),
        Some(Kind::RequestHeaderModifier(headers)) => {
            request_headers(headers).map(GrpcFilter::RequestHeaders)
        }
        None => Ok(GrpcFilter::Unknown),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the form that all filters have")]
fn opaque_filter(filter: outbound::opaque_route::Filter) -> Result<OpaqueFilter, Invalid> {
    use outbound::opaque_route::filter::Kind;
    Ok(match filter.kind {
        Some(Kind::Forbidden(_)) => OpaqueFilter::Forbidden,
        Some(Kind::Invalid(invalid)) => OpaqueFilter::Invalid(invalid.message.into()),
        None => OpaqueFilter::Unknown,
    })
}

#[expect(clippy::unnecessary_wraps, reason = "the form that all filters have")]
fn tls_filter(filter: outbound::tls_route::Filter) -> Result<OpaqueFilter, Invalid> {
    use outbound::tls_route::filter::Kind;
    Ok(match filter.kind {
        Some(Kind::Forbidden(_)) => OpaqueFilter::Forbidden,
        Some(Kind::Invalid(invalid)) => OpaqueFilter::Invalid(invalid.message.into()),
        None => OpaqueFilter::Unknown,
    })
}

/// The wire has the same three messages once for each kind of route.
macro_rules! distribution {
    ($name:ident, $route:ident, $one_filter:ident, $filter:ty) => {
        fn $name(message: Option<outbound::$route::Distribution>) -> Result<Distribution<$filter>, Invalid> {
            use outbound::$route::distribution::Kind;
            let route_backend = |message: outbound::$route::RouteBackend| {
                let one = message.backend.ok_or_else(|| Invalid::missing("backend"))?;
                Ok(RouteBackend {
                    backend: backend(one)?,
                    filters: each(message.filters, $one_filter)?,
                })
            };
            let kind = message.and_then(|distribution| distribution.kind);
            match kind.ok_or_else(|| Invalid::missing("distribution"))? {
                Kind::Empty(_) => Ok(Distribution::Empty),
                Kind::FirstAvailable(first) => {
                    each(first.backends, route_backend).map(Distribution::FirstAvailable)
                }
                Kind::RandomAvailable(random) => {
                    let weighted = random
                        .backends
                        .into_iter()
                        .filter(|weighted| weighted.weight > 0)
                        .map(|weighted| {
                            let one = weighted
                                .backend
                                .ok_or_else(|| Invalid::missing("backend"))?;
                            Ok((route_backend(one)?, weighted.weight))
                        });
                    weighted
                        .collect::<Result<_, _>>()
                        .map(Distribution::RandomAvailable)
                }
            }
        }
    };
}

distribution!(http_distribution, http_route, http_filter, HttpFilter);
distribution!(grpc_distribution, grpc_route, grpc_filter, GrpcFilter);
distribution!(opaque_distribution, opaque_route, opaque_filter, OpaqueFilter);
distribution!(tls_distribution, tls_route, tls_filter, OpaqueFilter);

fn backend(message: outbound::Backend) -> Result<Backend, Invalid> {
    use outbound::backend::Kind;
    let dispatch = match message.kind {
        Some(Kind::Forward(addr)) => Dispatch::Forward(Arc::new(endpoint(addr, &HashMap::new())?)),
        Some(Kind::Balancer(balancer)) => balance(balancer)?,
        None => Dispatch::Unknown,
    };
    Ok(Backend {
        meta: metadata(message.metadata)?,
        dispatch,
        queue: message.queue.map(queue).transpose()?,
    })
}

fn queue(message: outbound::Queue) -> Result<Queue, Invalid> {
    let timeout = message.failfast_timeout;
    Ok(Queue {
        capacity: usize::try_from(message.capacity).unwrap_or(usize::MAX),
        failfast: duration(timeout.ok_or_else(|| Invalid::missing("fail-fast timeout of a queue"))?)?,
    })
}

fn balance(message: outbound::backend::BalanceP2c) -> Result<Dispatch, Invalid> {
    use outbound::backend::{balance_p2c, endpoint_discovery};
    let discovery = message.discovery.and_then(|discovery| discovery.kind);
    let Some(endpoint_discovery::Kind::Dst(dst)) = discovery else {
        return Err(Invalid::missing("discovery of a balancer"));
    };
    let required = |value: Option<prost_types::Duration>, what| {
        value.ok_or_else(|| Invalid::missing(what)).and_then(duration)
    };
    let load = match message
        .load
        .ok_or_else(|| Invalid::missing("load of a balancer"))?
    {
        balance_p2c::Load::PeakEwma(ewma) => Load {
            default_rtt: required(ewma.default_rtt, "default RTT")?,
            decay: required(ewma.decay, "decay")?,
            penalty: None,
        },
        balance_p2c::Load::PenaltyPeakEwma(ewma) => Load {
            default_rtt: required(ewma.default_rtt, "default RTT")?,
            decay: required(ewma.decay, "decay")?,
            penalty: Some(Penalty {
                rtt: limit(ewma.penalty)?.unwrap_or(PENALTY),
                max_retry_after: limit(ewma.max_retry_after)?.unwrap_or(MAX_RETRY_AFTER),
                decay: limit(ewma.penalty_decay)?.unwrap_or(PENALTY_DECAY),
            }),
        },
    };
    Ok(Dispatch::Balance {
        authority: dst.path.into(),
        load,
    })
}

fn timeouts(message: Option<http_route::Timeouts>) -> Result<Timeouts, Invalid> {
    let message = message.unwrap_or_default();
    Ok(Timeouts {
        request: limit(message.request)?,
        response: limit(message.response)?,
        idle: limit(message.idle)?,
    })
}

fn http_retry(message: outbound::http_route::Retry) -> Result<Retry<HttpRetryConditions>, Invalid> {
    let status = |code: u32| u16::try_from(code).map_err(invalid("status"));
    let ranges = message
        .conditions
        .unwrap_or_default()
        .status_ranges
        .into_iter()
        .map(|range| Ok(status(range.start)?..=status(range.end)?));
    Ok(Retry {
        max_retries: u16::try_from(message.max_retries).unwrap_or(u16::MAX),
        max_request_bytes: usize::try_from(message.max_request_bytes).unwrap_or(usize::MAX),
        timeout: limit(message.timeout)?,
        backoff: message.backoff.map(backoff).transpose()?,
        conditions: HttpRetryConditions {
            statuses: ranges.collect::<Result<_, Invalid>>()?,
        },
    })
}

fn grpc_retry(message: outbound::grpc_route::Retry) -> Result<Retry<GrpcRetryConditions>, Invalid> {
    let conditions = message.conditions.unwrap_or_default();
    let codes = [
        (conditions.cancelled, 1),
        (conditions.deadine_exceeded, 4),
        (conditions.resource_exhausted, 8),
        (conditions.internal, 13),
        (conditions.unavailable, 14),
    ];
    Ok(Retry {
        max_retries: u16::try_from(message.max_retries).unwrap_or(u16::MAX),
        max_request_bytes: usize::try_from(message.max_request_bytes).unwrap_or(usize::MAX),
        timeout: limit(message.timeout)?,
        backoff: message.backoff.map(backoff).transpose()?,
        conditions: codes
            .into_iter()
            .filter(|(wanted, _)| *wanted)
            .fold(GrpcRetryConditions::default(), |set, (_, code)| set.with(code)),
    })
}

fn failure_accrual(message: Option<outbound::FailureAccrual>) -> Result<FailureAccrual, Invalid> {
    use outbound::failure_accrual::Kind;
    let required = |value: Option<outbound::ExponentialBackoff>| {
        value
            .ok_or_else(|| Invalid::missing("backoff of failure accrual"))
            .and_then(backoff)
    };
    let message = message.unwrap_or_default();
    let min_ready = message
        .ejection
        .map_or(FailureAccrual::NONE.min_ready, |ejection| {
            usize::try_from(ejection.min_ready_endpoints).unwrap_or(usize::MAX)
        });
    let trip = match message.kind {
        None => Trip::Never,
        Some(Kind::ConsecutiveFailures(consecutive)) => Trip::ConsecutiveFailures {
            max_failures: consecutive.max_failures,
            backoff: required(consecutive.backoff)?,
        },
        Some(Kind::Unified(unified)) => Trip::Unified {
            success_rate_threshold: unified.success_rate_threshold.clamp(0.0, 1.0),
            window: limit(unified.decay)?
                .unwrap_or(ACCRUAL_WINDOW)
                .max(MIN_ACCRUAL_WINDOW),
            min_requests: unified.min_requests.min(MAX_ACCRUAL_REQUESTS),
            max_consecutive_failures: unified.max_consecutive_failures,
            backoff: required(unified.backoff)?,
        },
    };
    Ok(FailureAccrual { trip, min_ready })
}

fn backoff(message: outbound::ExponentialBackoff) -> Result<Backoff, Invalid> {
    let required = |value: Option<prost_types::Duration>, what| {
        value.ok_or_else(|| Invalid::missing(what)).and_then(duration)
    };
    let min = required(message.min_backoff, "minimum backoff")?;
    let max = required(message.max_backoff, "maximum backoff")?;
    Backoff::new(min, max, message.jitter_ratio)
        .map(|backoff| backoff.heeding_server(message.respect_retry_after_hint))
        .map_err(invalid("backoff"))
}

const PENALTY: Duration = Duration::from_secs(5);
const PENALTY_DECAY: Duration = Duration::from_secs(10);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
const ACCRUAL_WINDOW: Duration = Duration::from_secs(10);
const MIN_ACCRUAL_WINDOW: Duration = Duration::from_millis(10);
const MAX_ACCRUAL_REQUESTS: u32 = 1_000_000;
