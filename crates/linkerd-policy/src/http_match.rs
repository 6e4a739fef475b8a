//! Matching of HTTP requests, with the Gateway API's precedence.

use http::{HeaderMap, HeaderName, Method, Uri};
use regex::{Regex, bytes};
use std::cmp::Reverse;

/// Every part that is set must match. The default matches every request, least specifically.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpMatch {
    pub path: Option<PathMatch>,
    pub headers: Vec<HeaderMatch>,
    pub query_params: Vec<QueryParamMatch>,
    pub method: Option<Method>,
}

#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    /// Whole segments: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
    /// Anchored at both ends by [`anchored`].
    Regex(Regex),
}

#[derive(Clone, Debug)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: HeaderValueMatch,
}

#[derive(Clone, Debug)]
pub enum HeaderValueMatch {
    Exact(Vec<u8>),
    Regex(bytes::Regex),
}

#[derive(Clone, Debug)]
pub struct QueryParamMatch {
    pub name: String,
    pub value: StringMatch,
}

#[derive(Clone, Debug)]
pub enum StringMatch {
    Exact(String),
    Regex(Regex),
}

/// How specific a match is. The order of the fields is the precedence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpScore {
    path: PathScore,
    headers: usize,
    query_params: usize,
    method: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum PathScore {
    #[default]
    Any,
    Prefix(usize),
    Regex(usize),
    Exact(usize),
}

/// How much a compiled expression may take: policies come from whoever may write a route.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// Compiles `pattern` so that it has to match the whole text.
///
/// # Errors
/// When it does not compile or would be too large.
pub fn anchored(pattern: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(REGEX_SIZE_LIMIT)
        .build()
}

/// [`anchored`] for bytes, as header values are.
///
/// # Errors
/// When it does not compile or would be too large.
pub fn anchored_bytes(pattern: &str) -> Result<bytes::Regex, regex::Error> {
    bytes::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(REGEX_SIZE_LIMIT)
        .build()
}

impl HttpMatch {
    #[must_use]
    pub fn score(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<HttpScore> {
        let path = match &self.path {
            None => PathScore::Any,
            Some(path) => path.score(uri.path())?,
        };
        if self.method.as_ref().is_some_and(|m| m != method) {
            return None;
        }
        if !self.headers.iter().all(|m| m.matches(headers)) {
            return None;
        }
        if !self
            .query_params
            .iter()
            .all(|m| m.matches(uri.query().unwrap_or("")))
        {
            return None;
        }
        Some(HttpScore {
            path,
            headers: self.headers.len(),
            query_params: self.query_params.len(),
            method: self.method.is_some(),
        })
    }
}

impl PathMatch {
    fn score(&self, path: &str) -> Option<PathScore> {
        match self {
            Self::Exact(exact) => (exact == path).then_some(PathScore::Exact(exact.len())),
            Self::Prefix(prefix) => prefix_matches(prefix, path).then_some(PathScore::Prefix(prefix.len())),
            Self::Regex(regex) => regex.is_match(path).then_some(PathScore::Regex(path.len())),
        }
    }
}

fn prefix_matches(prefix: &str, path: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What follows a matched path prefix; used by redirects that replace the prefix.
#[must_use]
pub fn after_prefix<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    prefix_matches(prefix, path)
        .then(|| path.get(prefix.len()..))
        .flatten()
}

impl HeaderMatch {
    #[must_use]
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.name).iter().any(|value| match &self.value {
            HeaderValueMatch::Exact(exact) => exact == value.as_bytes(),
            HeaderValueMatch::Regex(regex) => regex.is_match(value.as_bytes()),
        })
    }
}

impl QueryParamMatch {
    fn matches(&self, query: &str) -> bool {
        query.split('&').any(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            decoded(name) == self.name && self.value.matches(&decoded(value))
        })
    }
}

impl StringMatch {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// `application/x-www-form-urlencoded`; what is not an escape stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                if let Some(value) = escape(bytes.get(at + 1..at + 3)) {
                    out.push(value);
                    at += 2;
                } else {
                    out.push(b'%');
                }
            }
            other => out.push(other),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn escape(hex: Option<&[u8]>) -> Option<u8> {
    let hex = std::str::from_utf8(hex?).ok()?;
    if hex.starts_with('+') {
        None
    } else {
        u8::from_str_radix(hex, 16).ok()
    }
}

/// For choosing the first of equals: `max_by_key` keeps the last, so positions count backwards.
#[must_use]
pub(crate) fn first_wins(position: usize) -> Reverse<usize> {
    Reverse(position)
}

impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl PartialEq for HeaderMatch {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && match (&self.value, &other.value) {
                (HeaderValueMatch::Exact(a), HeaderValueMatch::Exact(b)) => a == b,
                (HeaderValueMatch::Regex(a), HeaderValueMatch::Regex(b)) => a.as_str() == b.as_str(),
                _ => false,
            }
    }
}

impl PartialEq for QueryParamMatch {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && match (&self.value, &other.value) {
                (StringMatch::Exact(a), StringMatch::Exact(b)) => a == b,
                (StringMatch::Regex(a), StringMatch::Regex(b)) => a.as_str() == b.as_str(),
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(m: PathMatch, uri: &str) -> Option<HttpScore> {
        let m = HttpMatch {
            path: Some(m),
            ..HttpMatch::default()
        };
        m.score(&Method::GET, &uri.parse().unwrap(), &HeaderMap::new())
    }

    #[test]
    fn prefixes_match_whole_segments() {
        for (prefix, uri, want) in [
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a/", "/a", true),
            ("/a", "/ab", false),
            ("/", "/anything", true),
            ("/a/b", "/a", false),
        ] {
            assert_eq!(
                path(PathMatch::Prefix(prefix.into()), uri).is_some(),
                want,
                "{prefix} {uri}"
            );
        }
    }

    #[test]
    fn expressions_match_the_whole_path() {
        let m = || PathMatch::Regex(anchored("/v[0-9]|/x").unwrap());
        assert!(path(m(), "/v1").is_some());
        assert!(path(m(), "/v1/users").is_none());
        assert!(path(m(), "/a/x").is_none());
    }

    #[test]
    fn exact_beats_expression_beats_prefix_beats_anything() {
        let exact = path(PathMatch::Exact("/a".into()), "/a").unwrap();
        let regex = path(PathMatch::Regex(anchored("/.*").unwrap()), "/a").unwrap();
        let prefix = path(PathMatch::Prefix("/a".into()), "/a").unwrap();
        assert!(exact > regex && regex > prefix && prefix > HttpScore::default());
    }

    #[test]
    fn all_values_of_a_header_are_tried() {
        let mut headers = HeaderMap::new();
        headers.append("x", "1".parse().unwrap());
        headers.append("x", "2".parse().unwrap());
        let name = HeaderName::from_static("x");
        let exact = HeaderMatch {
            name: name.clone(),
            value: HeaderValueMatch::Exact(b"2".to_vec()),
        };
        let regex = HeaderMatch {
            name,
            value: HeaderValueMatch::Regex(anchored_bytes("[3-9]").unwrap()),
        };
        assert!(exact.matches(&headers));
        assert!(!regex.matches(&headers));
    }

    #[test]
    fn query_parameters_are_decoded() {
        let m = QueryParamMatch {
            name: "a b".into(),
            value: StringMatch::Exact("c/d%".into()),
        };
        assert!(m.matches("x=1&a+b=c%2Fd%"));
        assert!(!m.matches("a+b=c"));
    }

    #[test]
    fn a_huge_expression_is_refused() {
        assert!(anchored("(?:[a-z]{1000}){1000}").is_err());
    }

    proptest! {
        #[test]
        fn decoding_never_fails(text in ".{0,64}") {
            let _ = decoded(&text);
        }
    }
}
