//! Inbound policies.

use super::{
    Invalid,
    authz::{authorizations, meta_from_labels},
    filter::{grpc_failure, http_failure, redirect, request_headers, response_headers},
    invalid, limit,
    matching::{grpc_match, hosts, http_match},
    metadata,
};
use linkerd_policy::{
    Meta, ServerPolicy,
    filter::{GrpcFilter, HttpFilter},
    route::Rule,
    server::{
        GrpcRoute, GrpcServer, HttpRoute, HttpServer, Protocol, RateLimit, RateLimitOverride, RouteInfo,
    },
};
use linkerd_proto::inbound;
use std::{sync::Arc, time::Duration};

pub(crate) fn server_policy(message: inbound::Server) -> Result<ServerPolicy, Invalid> {
    let kind = message.protocol.and_then(|protocol| protocol.kind);
    let meta = meta_from_labels(&message.labels, "server")?;
    Ok(ServerPolicy {
        protocol: protocol(kind.ok_or_else(|| Invalid::missing("protocol"))?)?,
        authorizations: authorizations(message.authorizations)?.into(),
        audit: *meta == Meta::Default { name: "audit".into() },
        meta,
    })
}

fn protocol(kind: inbound::proxy_protocol::Kind) -> Result<Protocol, Invalid> {
    use inbound::proxy_protocol::Kind;
    Ok(match kind {
        Kind::Detect(detect) => Protocol::Detect {
            timeout: limit(detect.timeout)?.unwrap_or(DETECT_TIMEOUT),
            http: http(detect.http_routes, detect.http_local_rate_limit)?,
        },
        Kind::Http1(http1) => Protocol::Http1(http(http1.routes, http1.local_rate_limit)?),
        Kind::Http2(http2) => Protocol::Http2(http(http2.routes, http2.local_rate_limit)?),
        Kind::Grpc(grpc) => {
            let routes = grpc
                .routes
                .into_iter()
                .map(grpc_route)
                .collect::<Result<_, _>>()?;
            let rate_limit = grpc.local_rate_limit.map(rate_limit).transpose()?.map(Arc::new);
            Protocol::Grpc(Arc::new(GrpcServer { routes, rate_limit }))
        }
        Kind::Opaque(_) => Protocol::Opaque,
        Kind::Tls(_) => Protocol::Tls,
    })
}

fn http(
    routes: Vec<inbound::HttpRoute>,
    limit: Option<inbound::HttpLocalRateLimit>,
) -> Result<Arc<HttpServer>, Invalid> {
    let routes = routes.into_iter().map(http_route).collect::<Result<_, _>>()?;
    Ok(Arc::new(HttpServer {
        routes,
        rate_limit: limit.map(rate_limit).transpose()?.map(Arc::new),
    }))
}

fn http_route(message: inbound::HttpRoute) -> Result<HttpRoute, Invalid> {
    use inbound::http_route::filter::Kind;
    let filter = |filter: inbound::http_route::Filter| match filter.kind {
        Some(Kind::FailureInjector(failure)) => http_failure(failure).map(HttpFilter::Failure),
        Some(Kind::RequestHeaderModifier(headers)) => {
            request_headers(headers).map(HttpFilter::RequestHeaders)
        }
        Some(Kind::Redirect(to)) => redirect(to).map(HttpFilter::Redirect),
        None => Ok(HttpFilter::Unknown),
    };
    let rule = |rule: inbound::http_route::Rule| {
        Ok(Rule {
            matches: rule
                .matches
                .into_iter()
                .map(http_match)
                .collect::<Result<_, _>>()?,
            value: rule
                .filters
                .into_iter()
                .map(filter)
                .chain(
                    rule.response_header_modifier
                        .map(|headers| response_headers(headers).map(HttpFilter::ResponseHeaders)),
                )
                .collect::<Result<_, _>>()?,
        })
    };
    Ok(HttpRoute {
        hosts: hosts(message.hosts)?,
        rules: message.rules.into_iter().map(rule).collect::<Result<_, _>>()?,
        value: RouteInfo {
            meta: metadata(message.metadata)?,
            authorizations: authorizations(message.authorizations)?,
        },
    })
}

fn grpc_route(message: inbound::GrpcRoute) -> Result<GrpcRoute, Invalid> {
    use inbound::grpc_route::filter::Kind;
    let filter = |filter: inbound::grpc_route::Filter| match filter.kind {
        Some(Kind::FailureInjector(failure)) => grpc_failure(failure).map(GrpcFilter::Failure),
        Some(Kind::RequestHeaderModifier(headers)) => {
            request_headers(headers).map(GrpcFilter::RequestHeaders)
        }
        None => Ok(GrpcFilter::Unknown),
    };
    let rule = |rule: inbound::grpc_route::Rule| {
        Ok(Rule {
            matches: rule
                .matches
                .into_iter()
                .map(grpc_match)
                .collect::<Result<_, _>>()?,
            value: rule.filters.into_iter().map(filter).collect::<Result<_, _>>()?,
        })
    };
    Ok(GrpcRoute {
        hosts: hosts(message.hosts)?,
        rules: message.rules.into_iter().map(rule).collect::<Result<_, _>>()?,
        value: RouteInfo {
            meta: metadata(message.metadata)?,
            authorizations: authorizations(message.authorizations)?,
        },
    })
}

fn rate_limit(message: inbound::HttpLocalRateLimit) -> Result<RateLimit, Invalid> {
    let rate = |limit: inbound::http_local_rate_limit::Limit| limit.requests_per_second;
    let overrides = message.overrides.into_iter().map(|o| {
        let clients = o.clients.unwrap_or_default().identities;
        Ok(RateLimitOverride {
            requests_per_second: o
                .limit
                .map(rate)
                .ok_or_else(|| Invalid::missing("limit of an override"))?,
            clients: clients
                .iter()
                .map(|id| id.name.parse().map_err(invalid("identity")))
                .collect::<Result<_, _>>()?,
        })
    });
    Ok(RateLimit {
        meta: metadata(message.metadata)?,
        total: message.total.map(rate),
        identity: message.identity.map(rate),
        overrides: overrides.collect::<Result<_, _>>()?,
    })
}

const DETECT_TIMEOUT: Duration = Duration::from_secs(10);
