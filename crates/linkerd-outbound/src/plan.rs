//! What to do with the connections to one destination: discovery's values with balancers in place of names.

use crate::{
    Outbound,
    backend::{Backend, How},
    budget::Budget,
    metrics::{BackendSeries, RouteSeries},
    retry::Retry,
};
use http::HeaderValue;
use linkerd_control::PolicyAnswer;
use linkerd_metrics::{Counter, HttpSeries, Labels, RouteProtocol};
use linkerd_policy::{
    ClientPolicy, Endpoint, Meta, Profile,
    client::{self, Dispatch, FailureAccrual, Timeouts},
    filter::{
        FailureInjector, GrpcFailure, GrpcFilter, HeaderModifier, HttpFailure, HttpFilter, OpaqueFilter,
        Redirect,
    },
    grpc_match::GrpcMatch,
    host::{self, HostMatch},
    http_match::HttpMatch,
    profile::{LookupTarget, RetryBudget},
    route,
};
use rand::Rng;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) protocol: Protocol,
    pub(crate) parent: Arc<Meta>,
    pub(crate) target: LookupTarget,
    /// Counts the plans that discovery has led to for one destination.
    pub(crate) revision: u64,
    pub(crate) made: Instant,
}

#[derive(Clone, Debug)]
pub(crate) enum Protocol {
    Detect {
        http1: Arc<Http>,
        http2: Arc<Http>,
        opaque: Arc<Bytes>,
    },
    Http1(Arc<Http>),
    Http2(Arc<Http>),
    Bytes(Arc<Bytes>),
    Tls(Arc<Vec<TlsRoute>>),
    Invalid(Arc<str>),
}

/// How HTTP requests are routed.
#[derive(Debug)]
pub(crate) enum Http {
    Profile(Box<ProfileRoutes>),
    Routes(Vec<route::Route<Arc<Meta>, HttpMatch, Rule>>),
    Grpc(Vec<route::Route<Arc<Meta>, GrpcMatch, Rule>>),
}

/// A ServiceProfile's routes and splits.
#[derive(Debug)]
pub(crate) struct ProfileRoutes {
    pub(crate) profile: Arc<Profile>,
    /// `l5d-dst-canonical`: tells the other proxy which profile it is.
    pub(crate) canonical: Option<HeaderValue>,
    pub(crate) authority: Arc<str>,
    pub(crate) budget: Option<Budget>,
    pub(crate) targets: Distribution,
    /// One for each route, and the last for requests without one.
    series: Vec<ProfileSeries>,
}

#[derive(Debug)]
pub(crate) struct ProfileSeries {
    pub(crate) logical: Arc<HttpSeries>,
    pub(crate) actual: Arc<HttpSeries>,
    pub(crate) no_budget: Arc<Counter>,
}

#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) series: Arc<RouteSeries>,
    pub(crate) filters: Vec<Filter>,
    pub(crate) backends: Distribution,
    pub(crate) timeouts: Timeouts,
    pub(crate) retry: Option<Retry>,
    /// A policy has none of its own; this is the one that ServiceProfiles have by default, so that retries cannot
    /// multiply the load of a service that fails.
    pub(crate) budget: Budget,
    /// Whether a request's own headers say how it is retried and how long it may take.
    pub(crate) overridable: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    Redirect(Redirect),
    HttpFailure(FailureInjector<HttpFailure>),
    GrpcFailure(FailureInjector<GrpcFailure>),
    Unknown,
}

/// Backends with their weights.
#[derive(Debug, Default)]
pub(crate) struct Distribution {
    backends: Vec<(RouteBackend, u32)>,
    /// Whether the order counts instead of the weights.
    in_order: bool,
}

#[derive(Debug)]
pub(crate) struct RouteBackend {
    pub(crate) backend: Arc<Backend>,
    pub(crate) filters: Vec<Filter>,
    /// Absent where routes are not counted: in profiles, and for bytes.
    pub(crate) series: Option<BackendSeries>,
}

/// Where bytes go.
#[derive(Debug)]
pub(crate) struct Bytes {
    pub(crate) refused: Option<Refused>,
    pub(crate) backends: Distribution,
}

#[derive(Clone, Debug)]
pub(crate) enum Refused {
    Forbidden,
    Invalid(Arc<str>),
}

#[derive(Debug)]
pub(crate) struct TlsRoute {
    snis: Vec<HostMatch>,
    pub(crate) bytes: Arc<Bytes>,
}

impl Plan {
    /// Joins what the two services say about `dst`.
    pub(crate) fn new(
        outbound: &Arc<Outbound>,
        dst: &LookupTarget,
        profile: &Arc<Profile>,
        answer: &PolicyAnswer,
        revision: u64,
    ) -> Self {
        let policy = match answer {
            PolicyAnswer::Policy(policy) => policy.clone(),
            PolicyAnswer::NotFound => Arc::new(synthesized(dst, profile)),
        };
        let made = Instant::now();
        let parent = policy.parent.clone();
        let maker = Maker {
            outbound,
            parent: &parent,
        };
        if profile.opaque {
            let bytes = maker
                .profile_bytes(profile, &policy)
                .unwrap_or_else(|| maker.policy_bytes(&policy));
            return Self {
                protocol: Protocol::Bytes(Arc::new(bytes)),
                parent,
                target: dst.clone(),
                revision,
                made,
            };
        }
        let mut protocol = maker.protocol(&policy, profile);
        if let (true, LookupTarget::Addr(_)) = (outbound.config.ingress, dst) {
            protocol = maker.without_override(dst, protocol, profile);
        }
        Self {
            protocol,
            parent,
            target: dst.clone(),
            revision,
            made,
        }
    }
}

/// The policy of a destination that the policy service does not know.
fn synthesized(dst: &LookupTarget, profile: &Profile) -> ClientPolicy {
    let (dispatch, name) = match (&profile.endpoint, dst) {
        (Some(endpoint), _) => (Dispatch::Forward(endpoint.clone()), "endpoint"),
        (None, LookupTarget::Addr(addr)) => (Dispatch::Forward(Arc::new(Endpoint::bare(*addr))), "fallback"),
        (None, LookupTarget::Name(name)) => {
            let dispatch = Dispatch::Balance {
                authority: name.clone(),
                load: client::Load::default(),
            };
            (dispatch, "name")
        }
    };
    ClientPolicy::without_routes(dispatch, &Meta::default_named(name), Duration::from_secs(10))
}

struct Maker<'a> {
    outbound: &'a Arc<Outbound>,
    parent: &'a Arc<Meta>,
}

impl Maker<'_> {
    fn protocol(&self, policy: &ClientPolicy, profile: &Arc<Profile>) -> Protocol {
        let by_profile = profile
            .has_routes_or_targets()
            .then(|| self.profile_routes(profile, policy))
            .flatten();
        if let Some(routes) = by_profile {
            let http = Arc::new(Http::Profile(Box::new(routes)));
            let bytes = self
                .profile_bytes(profile, policy)
                .unwrap_or_else(|| self.policy_bytes(policy));
            return match &policy.protocol {
                client::Protocol::Http1(_) => Protocol::Http1(http),
                client::Protocol::Http2(_) | client::Protocol::Grpc(_) => Protocol::Http2(http),
                client::Protocol::Opaque(_) => Protocol::Bytes(Arc::new(bytes)),
                _ => Protocol::Detect {
                    http1: http.clone(),
                    http2: http,
                    opaque: Arc::new(bytes),
                },
            };
        }
        match &policy.protocol {
            client::Protocol::Detect {
                http1, http2, opaque, ..
            } => Protocol::Detect {
                http1: self.http(http1),
                http2: self.http(http2),
                opaque: Arc::new(self.bytes(opaque)),
            },
            client::Protocol::Http1(http) => Protocol::Http1(self.http(http)),
            client::Protocol::Http2(http) => Protocol::Http2(self.http(http)),
            client::Protocol::Grpc(grpc) => Protocol::Http2(self.grpc(grpc)),
            client::Protocol::Opaque(opaque) => Protocol::Bytes(Arc::new(self.bytes(opaque))),
            client::Protocol::Tls(tls) => Protocol::Tls(Arc::new(self.tls(tls))),
            client::Protocol::Invalid(reason) => Protocol::Invalid(reason.clone()),
        }
    }

    /// An ingress chooses endpoints itself: HTTP requests that name no other destination go where they were sent.
    fn without_override(&self, dst: &LookupTarget, protocol: Protocol, profile: &Profile) -> Protocol {
        let opaque = match protocol {
            Protocol::Detect { opaque, .. } | Protocol::Bytes(opaque) => opaque,
            Protocol::Http1(_) | Protocol::Http2(_) | Protocol::Tls(_) | Protocol::Invalid(_) => {
                return protocol;
            }
        };
        match self.protocol(&synthesized(dst, profile), &Arc::default()) {
            Protocol::Detect { http1, http2, .. } => Protocol::Detect { http1, http2, opaque },
            other => other,
        }
    }

    fn http(&self, http: &client::Http) -> Arc<Http> {
        let protocol = RouteProtocol::Http;
        let rule = |route: &Arc<Meta>, rule: &client::HttpRule| Rule {
            series: self.route_series(protocol, route),
            filters: rule.filters.iter().map(Filter::from).collect(),
            backends: self.distribution(&rule.backends, http.failure_accrual, Some((protocol, route))),
            timeouts: rule.timeouts,
            retry: rule.retry.as_ref().map(|r| Retry {
                http: r.conditions.clone(),
                ..Retry::new(r)
            }),
            budget: Budget::new(RULE_BUDGET, Instant::now()),
            overridable: rule.allow_l5d_request_headers,
        };
        Arc::new(Http::Routes(
            http.routes.iter().map(|r| with_rules(r, rule)).collect(),
        ))
    }

    fn grpc(&self, grpc: &client::Grpc) -> Arc<Http> {
        let protocol = RouteProtocol::Grpc;
        let rule = |route: &Arc<Meta>, rule: &client::GrpcRule| Rule {
            series: self.route_series(protocol, route),
            filters: rule.filters.iter().map(Filter::from).collect(),
            backends: self.distribution(&rule.backends, grpc.failure_accrual, Some((protocol, route))),
            timeouts: rule.timeouts,
            retry: rule.retry.as_ref().map(|r| Retry {
                grpc: r.conditions,
                ..Retry::new(r)
            }),
            budget: Budget::new(RULE_BUDGET, Instant::now()),
            overridable: rule.allow_l5d_request_headers,
        };
        Arc::new(Http::Grpc(
            grpc.routes.iter().map(|r| with_rules(r, rule)).collect(),
        ))
    }

    fn route_series(&self, protocol: RouteProtocol, route: &Meta) -> Arc<RouteSeries> {
        let families = &self.outbound.metrics.routes;
        Arc::new(families.route(protocol, self.parent, route))
    }

    fn tls(&self, tls: &client::Tls) -> Vec<TlsRoute> {
        tls.routes
            .iter()
            .map(|route| TlsRoute {
                snis: route.snis.clone(),
                bytes: Arc::new(self.bytes_of(&route.filters, &route.backends)),
            })
            .collect()
    }

    fn bytes(&self, opaque: &client::Opaque) -> Bytes {
        match opaque.routes.first() {
            Some(route) => self.bytes_of(&route.filters, &route.backends),
            None => Bytes {
                refused: Some(Refused::Invalid("no route".into())),
                backends: Distribution::default(),
            },
        }
    }

    fn bytes_of(&self, filters: &[OpaqueFilter], backends: &client::Distribution<OpaqueFilter>) -> Bytes {
        let refused = filters.first().map(|filter| match filter {
            OpaqueFilter::Forbidden => Refused::Forbidden,
            OpaqueFilter::Invalid(reason) => Refused::Invalid(reason.clone()),
            OpaqueFilter::Unknown => Refused::Invalid("unknown filter".into()),
        });
        Bytes {
            refused,
            backends: self.distribution(backends, FailureAccrual::NONE, None),
        }
    }

    /// The bytes' way in a policy that says how HTTP goes.
    fn policy_bytes(&self, policy: &ClientPolicy) -> Bytes {
        match &policy.protocol {
            client::Protocol::Detect { opaque, .. } | client::Protocol::Opaque(opaque) => self.bytes(opaque),
            client::Protocol::Http1(http) | client::Protocol::Http2(http) => {
                let rule = http.routes.first().and_then(|r| r.rules.first());
                let backends = rule.map(|r| self.distribution(&r.value.backends, http.failure_accrual, None));
                Bytes {
                    refused: None,
                    backends: backends.unwrap_or_default(),
                }
            }
            _ => Bytes {
                refused: Some(Refused::Invalid("no opaque route".into())),
                backends: Distribution::default(),
            },
        }
    }

    fn distribution<F>(
        &self,
        given: &client::Distribution<F>,
        accrual: FailureAccrual,
        counted: Option<(RouteProtocol, &Meta)>,
    ) -> Distribution
    where
        for<'f> Filter: From<&'f F>,
    {
        let backend = |b: &client::RouteBackend<F>| RouteBackend {
            backend: Arc::new(Backend::new(self.outbound, &b.backend, accrual)),
            filters: b.filters.iter().map(Filter::from).collect(),
            series: counted.map(|(protocol, route)| {
                let families = &self.outbound.metrics.routes;
                families.backend(protocol, self.parent, route, &b.backend.meta)
            }),
        };
        match given {
            client::Distribution::Empty => Distribution::default(),
            client::Distribution::FirstAvailable(all) => Distribution {
                backends: all.iter().map(|b| (backend(b), 1)).collect(),
                in_order: true,
            },
            client::Distribution::RandomAvailable(all) => Distribution {
                backends: all
                    .iter()
                    .filter(|(_, w)| *w > 0)
                    .map(|(b, w)| (backend(b), *w))
                    .collect(),
                in_order: false,
            },
        }
    }

    fn profile_routes(&self, profile: &Arc<Profile>, policy: &ClientPolicy) -> Option<ProfileRoutes> {
        let authority = profile.logical.clone()?;
        let metrics = &self.outbound.metrics;
        let series = (0..=profile.routes.len()).map(|i| {
            let mut labels = Labels::new()
                .with("direction", "outbound")
                .with("dst", &authority);
            for (key, value) in profile.routes.get(i).iter().flat_map(|r| r.labels.iter()) {
                labels.push(&format!("rt_{key}"), value);
            }
            ProfileSeries {
                no_budget: metrics
                    .route_retryable
                    .series(&labels.clone().with("skipped", "no_budget")),
                logical: Arc::new(metrics.route.series(labels.clone())),
                actual: Arc::new(metrics.route_actual.series(labels)),
            }
        });
        Some(ProfileRoutes {
            profile: profile.clone(),
            canonical: HeaderValue::from_str(&authority).ok(),
            budget: profile
                .retry_budget
                .map(|limits| Budget::new(limits, Instant::now())),
            targets: self.targets(profile, &authority, policy),
            series: series.collect(),
            authority,
        })
    }

    /// A profile says where requests go. How endpoints are judged there, and how long requests wait, is what the
    /// policy of the same service says.
    fn targets(&self, profile: &Profile, authority: &Arc<str>, policy: &ClientPolicy) -> Distribution {
        let backend = |target: &Arc<str>, meta: Option<&Arc<Meta>>| {
            let like = policy.balancer(target);
            let how = How {
                load: like.map(|(load, _)| load).unwrap_or_default(),
                queue: like.and_then(|(_, queue)| queue),
                accrual: policy.failure_accrual(),
                logical: (target != authority).then(|| authority.clone()),
            };
            let meta = meta
                .cloned()
                .unwrap_or_else(|| Meta::default_named(target.clone()));
            RouteBackend {
                backend: Arc::new(Backend::balanced(self.outbound, &meta, target, how)),
                filters: Vec::new(),
                series: None,
            }
        };
        let mut backends: Vec<_> = profile
            .targets
            .iter()
            .filter(|t| t.weight > 0)
            .map(|t| (backend(&t.authority, t.backend.as_ref()), t.weight))
            .collect();
        if backends.is_empty() {
            backends.push((backend(authority, profile.parent.as_ref()), 1));
        }
        Distribution {
            backends,
            in_order: false,
        }
    }

    /// Where a profile sends bytes: its splits, its only endpoint, or its service.
    fn profile_bytes(&self, profile: &Profile, policy: &ClientPolicy) -> Option<Bytes> {
        if let Some(endpoint) = &profile.endpoint {
            let meta = profile
                .parent
                .clone()
                .unwrap_or_else(|| Meta::default_named("endpoint"));
            let backend = Backend::forward(self.outbound, &meta, endpoint, FailureAccrual::NONE, None);
            let backends = vec![(
                RouteBackend {
                    backend: Arc::new(backend),
                    filters: Vec::new(),
                    series: None,
                },
                1,
            )];
            return Some(Bytes {
                refused: None,
                backends: Distribution {
                    backends,
                    in_order: true,
                },
            });
        }
        if profile.targets.is_empty() {
            return None;
        }
        let authority = profile.logical.clone()?;
        Some(Bytes {
            refused: None,
            backends: self.targets(profile, &authority, policy),
        })
    }
}

fn with_rules<M: Clone, R>(
    route: &route::Route<Arc<Meta>, M, R>,
    rule: impl Fn(&Arc<Meta>, &R) -> Rule,
) -> route::Route<Arc<Meta>, M, Rule> {
    route::Route {
        hosts: route.hosts.clone(),
        rules: route
            .rules
            .iter()
            .map(|r| route::Rule {
                matches: r.matches.clone(),
                value: rule(&route.value, &r.value),
            })
            .collect(),
        value: route.value.clone(),
    }
}

impl ProfileRoutes {
    pub(crate) fn series(&self, route: usize) -> Option<&ProfileSeries> {
        self.series.get(route).or(self.series.last())
    }
}

impl Distribution {
    /// The backend of one connection, then the others in case it cannot be had.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let first = self.choose().map(|b| &b.backend);
        let others = self.backends.iter().map(|(b, _)| &b.backend);
        let others = others.filter(move |b| first.is_some_and(|f| !Arc::ptr_eq(f, b)));
        first.into_iter().chain(others)
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = (&Arc<Backend>, u32)> {
        self.backends.iter().map(|(b, weight)| (&b.backend, *weight))
    }

    /// The backend of one request: one that would not fail at once, if there is any.
    pub(crate) fn choose(&self) -> Option<&RouteBackend> {
        let available = || self.backends.iter().filter(|(b, _)| !b.backend.is_failfast());
        match self.backends.as_slice() {
            [] => None,
            [(only, _)] => Some(only),
            [(first, _), ..] if self.in_order => Some(available().next().map_or(first, |(b, _)| b)),
            all => Some(draw(available()).or_else(|| draw(all.iter()))?),
        }
    }
}

/// One of the backends, by weight.
fn draw<'b>(backends: impl Iterator<Item = &'b (RouteBackend, u32)> + Clone) -> Option<&'b RouteBackend> {
    let total: u64 = backends.clone().map(|(_, w)| u64::from(*w)).sum();
    if total == 0 {
        return None;
    }
    let mut point = rand::rng().random_range(0..total);
    for (backend, weight) in backends {
        let weight = u64::from(*weight);
        if point < weight {
            return Some(backend);
        }
        point -= weight;
    }
    None
}

impl TlsRoute {
    pub(crate) fn names(&self) -> String {
        let names: Vec<_> = self.snis.iter().map(ToString::to_string).collect();
        names.join(", ")
    }

    /// The route of a server name, by the most specific pattern.
    pub(crate) fn find<'r>(routes: &'r [Self], sni: &str) -> Option<&'r Arc<Bytes>> {
        routes
            .iter()
            .filter_map(|r| host::best(&r.snis, Some(sni)).map(|score| (score, r)))
            .max_by(|(a, _), (b, _)| a.cmp(b))
            .map(|(_, r)| &r.bytes)
    }
}

impl From<&HttpFilter> for Filter {
    fn from(filter: &HttpFilter) -> Self {
        match filter {
            HttpFilter::RequestHeaders(m) => Self::RequestHeaders(m.clone()),
            HttpFilter::ResponseHeaders(m) => Self::ResponseHeaders(m.clone()),
            HttpFilter::Redirect(r) => Self::Redirect(r.clone()),
            HttpFilter::Failure(f) => Self::HttpFailure(f.clone()),
            HttpFilter::Unknown => Self::Unknown,
        }
    }
}

impl From<&GrpcFilter> for Filter {
    fn from(filter: &GrpcFilter) -> Self {
        match filter {
            GrpcFilter::RequestHeaders(m) => Self::RequestHeaders(m.clone()),
            GrpcFilter::Failure(f) => Self::GrpcFailure(f.clone()),
            GrpcFilter::Unknown => Self::Unknown,
        }
    }
}

/// Filters of opaque backends have no effect on bytes once a route is chosen.
impl From<&OpaqueFilter> for Filter {
    fn from(_: &OpaqueFilter) -> Self {
        Self::Unknown
    }
}

/// What the control plane gives to profiles that say nothing.
const RULE_BUDGET: RetryBudget = RetryBudget {
    ttl: Duration::from_secs(10),
    min_per_second: 10,
    ratio: 0.2,
};
