//! Routes of requests, beside a reference that is slow and says what the Gateway API says.

use crate::Target;
use arbitrary::Unstructured;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use linkerd_policy::{
    host::HostMatch,
    http_match::{
        HeaderMatch, HeaderValueMatch, HttpMatch, PathMatch, QueryParamMatch, StringMatch, anchored,
    },
    route::{self, Route, Rule},
};

pub(crate) const TARGET: Target = Target {
    name: "route",
    run,
    seeds: &[
        b"\x03\x01\x01\x02\x02\x00\x01\x00\x02\x01\x00\x03\x02\x01\x02\x00\x01\x01\x02",
        b"\x02\x00\x03\x03\x02\x01\x01\x00\x00\x02\x01\x03\x03\x01\x00\x02\x00\x00\x01\x00\x01",
        &[7; 96],
        &[0xa5; 64],
    ],
};

/// Bytes that end too early are no case.
fn run(bytes: &[u8]) {
    let _ = compare(&mut Unstructured::new(bytes));
}

type Routes = Vec<Route<usize, HttpMatch, usize>>;

/// Few names, so that they often meet.
const HOSTS: [&str; 6] = ["a", "a.b", "x.a.b", "b", "a.b.", "A.B"];
const PATHS: [&str; 7] = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c", "/b"];
const EXPRESSIONS: [&str; 4] = ["/a.*", "/a|/b", ".*", "/a/b/c"];
const NAMES: [&str; 2] = ["x", "y"];
const VALUES: [&str; 3] = ["", "1", "2"];

fn compare(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let routes = (0..u.int_in_range(0..=4)?)
        .map(|n| arbitrary_route(u, n))
        .collect::<Result<Routes, _>>()?;
    let mut headers = HeaderMap::new();
    for _ in 0..u.int_in_range(0..=2)? {
        let name = HeaderName::from_static(u.choose(&NAMES)?);
        headers.append(name, HeaderValue::from_static(u.choose(&VALUES)?));
    }
    let method = method(u)?;
    let host = if u.arbitrary()? {
        Some(*u.choose(&HOSTS)?)
    } else {
        None
    };
    let mut target = (*u.choose(&PATHS)?).to_owned();
    if u.arbitrary()? {
        target = format!("{target}?{}={}", u.choose(&NAMES)?, u.choose(&VALUES)?);
    }
    let uri: Uri = target.parse().unwrap();
    let found = route::find(&routes, host, &method, &uri, &headers).map(|f| (*f.route, *f.rule));
    let expected = slow(&routes, host, &method, &uri, &headers);
    assert_eq!(
        found, expected,
        "{method} {uri} {host:?} {headers:?} in {routes:#?}"
    );
    Ok(())
}

fn arbitrary_route(
    u: &mut Unstructured<'_>,
    value: usize,
) -> arbitrary::Result<Route<usize, HttpMatch, usize>> {
    let hosts = (0..u.int_in_range(0..=2)?).map(|_| {
        let host = *u.choose(&HOSTS)?;
        if u.arbitrary()? {
            return Ok(HostMatch::Exact(host.into()));
        }
        let labels = host.trim_end_matches('.').rsplit('.');
        Ok(HostMatch::Suffix(labels.map(Into::into).collect()))
    });
    let hosts = hosts.collect::<Result<_, _>>()?;
    let rules = (0..u.int_in_range(0..=3)?).map(|value| {
        let matches = (0..u.int_in_range(0..=2)?).map(|_| arbitrary_match(u));
        Ok(Rule {
            matches: matches.collect::<Result<_, _>>()?,
            value,
        })
    });
    Ok(Route {
        hosts,
        rules: rules.collect::<Result<_, _>>()?,
        value,
    })
}

fn arbitrary_match(u: &mut Unstructured<'_>) -> arbitrary::Result<HttpMatch> {
    let path = match u.int_in_range(0..=3)? {
        0 => None,
        1 => Some(PathMatch::Exact((*u.choose(&PATHS)?).into())),
        2 => Some(PathMatch::Prefix((*u.choose(&PATHS)?).into())),
        _ => Some(PathMatch::Regex(anchored(u.choose(&EXPRESSIONS)?).unwrap())),
    };
    let headers = (0..u.int_in_range(0..=2)?).map(|_| {
        Ok(HeaderMatch {
            name: HeaderName::from_static(u.choose(&NAMES)?),
            value: HeaderValueMatch::Exact(u.choose(&VALUES)?.as_bytes().to_vec()),
        })
    });
    let headers = headers.collect::<Result<_, _>>()?;
    let query_params = (0..u.int_in_range(0..=1)?).map(|_| {
        Ok(QueryParamMatch {
            name: (*u.choose(&NAMES)?).into(),
            value: StringMatch::Exact((*u.choose(&VALUES)?).into()),
        })
    });
    Ok(HttpMatch {
        path,
        headers,
        query_params: query_params.collect::<Result<_, _>>()?,
        method: if u.arbitrary()? { Some(method(u)?) } else { None },
    })
}

fn method(u: &mut Unstructured<'_>) -> arbitrary::Result<Method> {
    Ok(if u.arbitrary()? { Method::GET } else { Method::POST })
}

/// How specific a candidate is: host, path, headers, query parameters, method. Larger is more specific.
type Rank = ((u8, usize), (u8, usize), usize, usize, bool);

/// Writes down every candidate, then takes the first of the most specific.
fn slow(
    routes: &Routes,
    host: Option<&str>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<(usize, usize)> {
    let anything = HttpMatch::default();
    let mut candidates: Vec<(Rank, (usize, usize))> = Vec::new();
    for route in routes {
        let Some(host) = slow_host(&route.hosts, host) else {
            continue;
        };
        for rule in &route.rules {
            let matches = if rule.matches.is_empty() {
                std::slice::from_ref(&anything)
            } else {
                &rule.matches
            };
            for m in matches {
                if let Some((path, headers, query, method)) = slow_match(m, method, uri, headers) {
                    candidates.push(((host, path, headers, query, method), (route.value, rule.value)));
                }
            }
        }
    }
    let best = candidates.iter().map(|(rank, _)| *rank).max()?;
    candidates
        .iter()
        .find(|(rank, _)| *rank == best)
        .map(|(_, found)| *found)
}

fn slow_host(hosts: &[HostMatch], host: Option<&str>) -> Option<(u8, usize)> {
    if hosts.is_empty() {
        return Some((0, 0));
    }
    let host = host?.trim_end_matches('.').to_lowercase();
    let ranks = hosts.iter().filter_map(|m| {
        // `*.a.b` or `a.b`, as people write them.
        let written = m.to_string().trim_end_matches('.').to_lowercase();
        match written.strip_prefix('*') {
            None => (written == host).then_some((2, 0)),
            Some(suffix) => {
                let below = host.ends_with(suffix) && host.len() > suffix.len();
                below.then_some((1, suffix.split('.').count() - 1))
            }
        }
    });
    ranks.max()
}

fn slow_match(
    m: &HttpMatch,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<((u8, usize), usize, usize, bool)> {
    let have = uri.path();
    let path = match &m.path {
        None => (0, 0),
        Some(PathMatch::Exact(path)) if path == have => (3, path.len()),
        Some(PathMatch::Prefix(prefix)) if segments(have).starts_with(&segments(prefix)) => (1, prefix.len()),
        Some(PathMatch::Regex(regex)) if regex.is_match(have) => (2, have.len()),
        Some(_) => return None,
    };
    let has = |h: &HeaderMatch| {
        let HeaderValueMatch::Exact(value) = &h.value else {
            return false;
        };
        headers.iter().any(|(n, v)| *n == h.name && v.as_bytes() == value)
    };
    let asks = |q: &QueryParamMatch| {
        let StringMatch::Exact(value) = &q.value else {
            return false;
        };
        uri.query() == Some(&format!("{}={value}", q.name))
    };
    let all = m.headers.iter().all(has)
        && m.query_params.iter().all(asks)
        && m.method.as_ref().is_none_or(|wanted| wanted == method);
    all.then_some((path, m.headers.len(), m.query_params.len(), m.method.is_some()))
}

/// `/a/b` and `/a/b/` are the same prefix: `a`, `b`.
fn segments(path: &str) -> Vec<&str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        Vec::new()
    } else {
        path.split('/').collect()
    }
}
