//! Service profiles: routes, retries and splits of a service as Linkerd's ServiceProfile tells them.

use crate::{Endpoint, Labels, Meta, http_match::anchored};
use http::{Method, StatusCode, Uri};
use regex::Regex;
use std::{net::SocketAddr, ops::RangeInclusive, sync::Arc, time::Duration};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// `service.namespace.svc.domain:port`; absent: no logical service.
    pub logical: Option<Arc<str>>,
    pub opaque: bool,
    pub routes: Vec<Route>,
    pub retry_budget: Option<RetryBudget>,
    /// Where requests go instead of `logical`, by weight; empty: to `logical`.
    pub targets: Vec<Target>,
    /// The address is this one endpoint.
    pub endpoint: Option<Arc<Endpoint>>,
    pub parent: Option<Arc<Meta>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub condition: RequestMatch,
    pub response_classes: Vec<ResponseClass>,
    /// `rt_` labels of metrics.
    pub labels: Arc<Labels>,
    pub retryable: bool,
    /// Until response headers, retries included.
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug)]
pub enum RequestMatch {
    All(Vec<RequestMatch>),
    Any(Vec<RequestMatch>),
    Not(Box<RequestMatch>),
    Path(Regex),
    Method(Method),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ResponseClass {
    pub condition: ResponseMatch,
    pub is_failure: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ResponseMatch {
    All(Vec<ResponseMatch>),
    Any(Vec<ResponseMatch>),
    Not(Box<ResponseMatch>),
    Status(RangeInclusive<u16>),
}

/// Retries may add `ratio` to the requests of the last `ttl`, and always `min_per_second`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryBudget {
    pub ttl: Duration,
    pub min_per_second: u32,
    pub ratio: f32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `host:port`, the path of its endpoint stream.
    pub authority: Arc<str>,
    /// > 0.
    pub weight: u32,
    pub backend: Option<Arc<Meta>>,
}

impl RetryBudget {
    /// The limits within which a budget is believed; others are none, as in Linkerd's proxy.
    #[must_use]
    pub fn new(ttl: Duration, min_per_second: u32, ratio: f32) -> Option<Self> {
        let ttl_ok = (Duration::from_secs(1)..=Duration::from_secs(60)).contains(&ttl);
        (ttl_ok && (0.0..=1000.0).contains(&ratio)).then_some(Self {
            ttl,
            min_per_second,
            ratio,
        })
    }
}

impl Profile {
    /// The first route whose condition holds.
    #[must_use]
    pub fn route(&self, method: &Method, uri: &Uri) -> Option<&Route> {
        self.routes
            .iter()
            .find(|route| route.condition.matches(method, uri))
    }

    /// Whether it says more about HTTP requests than where they go.
    #[must_use]
    pub fn has_routes_or_targets(&self) -> bool {
        !self.routes.is_empty() || !self.targets.is_empty()
    }
}

/// What is known of an address or name besides its policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LookupTarget {
    Addr(SocketAddr),
    /// `name:port`.
    Name(Arc<str>),
}

impl std::fmt::Display for LookupTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl RequestMatch {
    /// A path that has to match the expression as a whole.
    ///
    /// # Errors
    /// When the expression does not compile.
    pub fn path(pattern: &str) -> Result<Self, regex::Error> {
        anchored(pattern).map(Self::Path)
    }

    #[must_use]
    pub fn matches(&self, method: &Method, uri: &Uri) -> bool {
        match self {
            Self::All(all) => all.iter().all(|m| m.matches(method, uri)),
            Self::Any(any) => any.iter().any(|m| m.matches(method, uri)),
            Self::Not(m) => !m.matches(method, uri),
            Self::Path(regex) => regex.is_match(uri.path()),
            Self::Method(m) => m == method,
        }
    }
}

impl ResponseMatch {
    #[must_use]
    pub fn matches(&self, status: StatusCode) -> bool {
        match self {
            Self::All(all) => all.iter().all(|m| m.matches(status)),
            Self::Any(any) => any.iter().any(|m| m.matches(status)),
            Self::Not(m) => !m.matches(status),
            Self::Status(range) => range.contains(&status.as_u16()),
        }
    }
}

impl Route {
    /// Whether a response of this status is a failure: the first class that matches says, otherwise the 5xx are.
    #[must_use]
    pub fn is_failure(&self, status: StatusCode) -> bool {
        self.response_classes
            .iter()
            .find(|class| class.condition.matches(status))
            .map_or_else(|| status.is_server_error(), |class| class.is_failure)
    }
}

impl PartialEq for RequestMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All(a), Self::All(b)) | (Self::Any(a), Self::Any(b)) => a == b,
            (Self::Not(a), Self::Not(b)) => a == b,
            (Self::Path(a), Self::Path(b)) => a.as_str() == b.as_str(),
            (Self::Method(a), Self::Method(b)) => a == b,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(condition: RequestMatch) -> Route {
        Route {
            condition,
            response_classes: vec![],
            labels: Arc::default(),
            retryable: false,
            timeout: None,
        }
    }

    #[test]
    fn the_first_matching_route_wins() {
        let get = RequestMatch::Method(Method::GET);
        let path = RequestMatch::path("/users/[^/]*").unwrap();
        let both = route(RequestMatch::All(vec![get, path.clone()]));
        let profile = Profile {
            routes: vec![both.clone(), route(path)],
            ..Profile::default()
        };
        let of = |method: Method, uri: &str| profile.route(&method, &uri.parse().unwrap());
        assert_eq!(of(Method::GET, "/users/1?x=y"), Some(&both));
        assert_eq!(of(Method::POST, "/users/1"), Some(&profile.routes[1]));
        assert_eq!(of(Method::GET, "/users/1/orders"), None);
    }

    #[test]
    fn response_classes_come_before_the_default() {
        let mut r = route(RequestMatch::Any(vec![]));
        assert!(r.is_failure(StatusCode::BAD_GATEWAY) && !r.is_failure(StatusCode::NOT_FOUND));
        let class = |range, is_failure| ResponseClass {
            condition: ResponseMatch::Status(range),
            is_failure,
        };
        r.response_classes = vec![class(404..=404, true), class(500..=599, false)];
        assert!(!r.is_failure(StatusCode::BAD_GATEWAY) && r.is_failure(StatusCode::NOT_FOUND));
    }

    #[test]
    fn budgets_outside_of_the_limits_are_none() {
        assert!(RetryBudget::new(Duration::from_secs(10), 10, 0.2).is_some());
        assert!(RetryBudget::new(Duration::from_secs(61), 10, 0.2).is_none());
        assert!(RetryBudget::new(Duration::from_secs(10), 10, f32::NAN).is_none());
    }
}
