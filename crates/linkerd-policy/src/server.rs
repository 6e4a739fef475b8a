//! What a port of this pod accepts, and from whom.

use crate::{
    Authorization, ClientInfo, Denied, Id, Meta,
    authz::authorize,
    filter::{GrpcFilter, HttpFilter},
    grpc_match::GrpcMatch,
    http_match::HttpMatch,
    route,
};
use std::{sync::Arc, time::Duration};

#[derive(Clone, Debug, PartialEq)]
pub struct ServerPolicy {
    pub protocol: Protocol,
    pub authorizations: Arc<[Authorization]>,
    pub meta: Arc<Meta>,
    /// Let in whom no authorization permits, and say so in the log (`audit`).
    pub audit: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Protocol {
    Detect {
        timeout: Duration,
        http: Arc<HttpServer>,
    },
    Http1(Arc<HttpServer>),
    Http2(Arc<HttpServer>),
    Grpc(Arc<GrpcServer>),
    Opaque,
    /// TLS of the application: handed on as it is, without a look for HTTP.
    Tls,
    /// The control plane's answer could not be understood; every request is answered with a 500.
    Invalid(Arc<str>),
}

pub type HttpRoute = route::Route<RouteInfo, HttpMatch, Vec<HttpFilter>>;
pub type GrpcRoute = route::Route<RouteInfo, GrpcMatch, Vec<GrpcFilter>>;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpServer {
    /// Empty: no request has a route.
    pub routes: Vec<HttpRoute>,
    pub rate_limit: Option<Arc<RateLimit>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrpcServer {
    pub routes: Vec<GrpcRoute>,
    pub rate_limit: Option<Arc<RateLimit>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RouteInfo {
    pub meta: Arc<Meta>,
    /// Added to those of the server.
    pub authorizations: Vec<Authorization>,
}

/// Requests a second; absent: no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub meta: Arc<Meta>,
    pub total: Option<u32>,
    /// For each identity that has no override; clients without one share a limit.
    pub identity: Option<u32>,
    pub overrides: Vec<RateLimitOverride>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitOverride {
    pub requests_per_second: u32,
    pub clients: Vec<Id>,
}

impl ServerPolicy {
    /// Whether a connection, as opposed to a request on it, is permitted; clients on loopback always are.
    ///
    /// # Errors
    /// [`Denied`] when no authorization permits it.
    pub fn authorize(&self, client: &ClientInfo<'_>) -> Result<&Authorization, Denied> {
        authorize(self.authorizations.iter(), client)
    }

    /// [`ServerPolicy::authorize`] with a route's own authorizations too.
    ///
    /// # Errors
    /// [`Denied`] when no authorization permits it.
    pub fn authorize_route<'p>(
        &'p self,
        route: &'p RouteInfo,
        client: &ClientInfo<'_>,
    ) -> Result<&'p Authorization, Denied> {
        authorize(self.authorizations.iter().chain(&route.authorizations), client)
    }

    /// What a policy is called that could not be understood.
    #[must_use]
    pub fn invalid(reason: impl Into<Arc<str>>) -> Self {
        Self {
            protocol: Protocol::Invalid(reason.into()),
            authorizations: Arc::new([]),
            meta: Meta::default_named("invalid"),
            audit: false,
        }
    }

    #[must_use]
    pub fn is_opaque(&self) -> bool {
        matches!(self.protocol, Protocol::Opaque)
    }
}
