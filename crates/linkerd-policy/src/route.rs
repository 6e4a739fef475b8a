//! Choosing the route of a request.

use crate::{
    grpc_match::{GrpcMatch, GrpcScore},
    host::{self, HostMatch},
    http_match::{HttpMatch, HttpScore, PathMatch, first_wins},
};
use http::{HeaderMap, Method, Uri};

/// A host's rules. `R` is what the rule of the inbound or outbound side carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Route<T, M, R> {
    /// Empty: every host.
    pub hosts: Vec<HostMatch>,
    pub rules: Vec<Rule<M, R>>,
    /// What the route itself carries (metadata, authorizations).
    pub value: T,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule<M, R> {
    /// Empty: every request.
    pub matches: Vec<M>,
    pub value: R,
}

/// A request's route and rule, and the path prefix by which it was found, if it was one.
#[derive(Debug)]
pub struct Found<'r, T, R> {
    pub route: &'r T,
    pub rule: &'r R,
    pub matched_prefix: Option<&'r str>,
}

/// One kind of request match.
pub trait Matches {
    type Score: Ord + Default;

    fn score(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Self::Score>;

    fn prefix(&self) -> Option<&str> {
        None
    }
}

impl Matches for HttpMatch {
    type Score = HttpScore;

    fn score(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<HttpScore> {
        self.score(method, uri, headers)
    }

    fn prefix(&self) -> Option<&str> {
        match &self.path {
            Some(PathMatch::Prefix(prefix)) => Some(prefix),
            _ => None,
        }
    }
}

impl Matches for GrpcMatch {
    type Score = GrpcScore;

    fn score(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<GrpcScore> {
        self.score(method, uri, headers)
    }
}

/// The most specific rule for a request: host first, then the match; of equals the first listed.
///
/// `authority` is the request's host, from the URI or the Host header. A request that matches no rule of the most
/// specific host falls through to less specific hosts.
pub fn find<'r, T, M: Matches, R>(
    routes: &'r [Route<T, M, R>],
    authority: Option<&str>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<Found<'r, T, R>> {
    routes
        .iter()
        .enumerate()
        .filter_map(|(position, route)| {
            let host = host::best(&route.hosts, authority)?;
            let (score, rule, matched) = best_rule(&route.rules, method, uri, headers)?;
            Some(((host, score, first_wins(position)), route, rule, matched))
        })
        .max_by(|(a, ..), (b, ..)| a.cmp(b))
        .map(|(_, route, rule, matched)| Found {
            route: &route.value,
            rule: &rule.value,
            matched_prefix: matched.and_then(Matches::prefix),
        })
}

type Best<'r, M, R> = (<M as Matches>::Score, &'r Rule<M, R>, Option<&'r M>);

fn best_rule<'r, M: Matches, R>(
    rules: &'r [Rule<M, R>],
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<Best<'r, M, R>> {
    let mut best: Option<Best<'r, M, R>> = None;
    let mut offer = |candidate: Best<'r, M, R>| {
        if best.as_ref().is_none_or(|(score, ..)| candidate.0 > *score) {
            best = Some(candidate);
        }
    };
    for rule in rules {
        if rule.matches.is_empty() {
            offer((M::Score::default(), rule, None));
        }
        for m in &rule.matches {
            if let Some(score) = m.score(method, uri, headers) {
                offer((score, rule, Some(m)));
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    type HttpRoute = Route<&'static str, HttpMatch, u8>;

    fn prefix(path: &str) -> HttpMatch {
        HttpMatch {
            path: Some(PathMatch::Prefix(path.into())),
            ..HttpMatch::default()
        }
    }

    fn route(name: &'static str, hosts: &[&str], rules: Vec<Vec<HttpMatch>>) -> HttpRoute {
        let hosts = hosts.iter().map(|h| HostMatch::Exact((*h).into())).collect();
        let rules = (0..)
            .zip(rules)
            .map(|(value, matches)| Rule { matches, value })
            .collect();
        Route {
            hosts,
            rules,
            value: name,
        }
    }

    fn found(routes: &[HttpRoute], host: &str, path: &str) -> Option<(&'static str, u8)> {
        find(
            routes,
            Some(host),
            &Method::GET,
            &path.parse().unwrap(),
            &HeaderMap::new(),
        )
        .map(|f| (*f.route, *f.rule))
    }

    #[test]
    fn the_longest_prefix_wins_across_rules_and_routes() {
        let routes = [
            route("a", &[], vec![vec![prefix("/")], vec![prefix("/x")]]),
            route("b", &[], vec![vec![prefix("/x/y")]]),
        ];
        assert_eq!(found(&routes, "h", "/x/y/z"), Some(("b", 0)));
        assert_eq!(found(&routes, "h", "/x"), Some(("a", 1)));
        assert_eq!(found(&routes, "h", "/"), Some(("a", 0)));
    }

    #[test]
    fn of_equals_the_first_wins() {
        let routes = [
            route("a", &[], vec![vec![], vec![]]),
            route("b", &[], vec![vec![]]),
        ];
        assert_eq!(found(&routes, "h", "/"), Some(("a", 0)));
    }

    #[test]
    fn a_named_host_beats_any_host_unless_no_rule_matches() {
        let routes = [
            route("any", &[], vec![vec![prefix("/x")]]),
            route("host", &["h"], vec![vec![prefix("/y")], vec![prefix("/")]]),
            route("other", &["o"], vec![vec![prefix("/y")]]),
        ];
        assert_eq!(found(&routes, "h", "/x"), Some(("host", 1)));
        assert_eq!(found(&routes, "o", "/x"), Some(("any", 0)));
        assert_eq!(found(&routes, "o", "/z"), None);
    }

    #[test]
    fn the_matched_prefix_is_told() {
        let routes = [route("a", &[], vec![vec![prefix("/x")]])];
        let uri = "/x/y".parse().unwrap();
        let found = find(&routes, None, &Method::GET, &uri, &HeaderMap::new()).unwrap();
        assert_eq!(found.matched_prefix, Some("/x"));
    }
}
