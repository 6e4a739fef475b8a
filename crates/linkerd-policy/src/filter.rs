//! What a route does to requests and responses before they go on.

use crate::http_match::after_prefix;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, uri};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub enum HttpFilter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    Redirect(Redirect),
    Failure(FailureInjector<HttpFailure>),
    /// A filter of a kind that this proxy does not know: the route cannot be served truthfully.
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub enum GrpcFilter {
    RequestHeaders(HeaderModifier),
    Failure(FailureInjector<GrpcFailure>),
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpaqueFilter {
    Forbidden,
    Invalid(Arc<str>),
    Unknown,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderModifier {
    pub add: Vec<(HeaderName, HeaderValue)>,
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

impl HeaderModifier {
    /// In the order of the wire's fields: add, set, remove.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    pub scheme: Option<uri::Scheme>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub path: Option<PathModifier>,
    pub status: StatusCode,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    Full(String),
    /// Replaces the prefix that the route's path match names.
    Prefix(String),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedirect {
    #[error("redirect would go to the same place")]
    Loop,
    #[error("redirect without an authority")]
    NoAuthority,
    #[error("redirect to an invalid URI")]
    InvalidUri,
}

impl Redirect {
    /// Where a request goes. `original` has to be absolute (scheme and authority known); `matched_prefix` is the
    /// route's path prefix, if it matched by one.
    ///
    /// # Errors
    /// When the result would be the original or no URI.
    pub fn location(&self, original: &Uri, matched_prefix: Option<&str>) -> Result<Uri, InvalidRedirect> {
        let scheme = self
            .scheme
            .as_ref()
            .or(original.scheme())
            .unwrap_or(&uri::Scheme::HTTP);
        let host = self
            .host
            .as_deref()
            .or(original.host())
            .ok_or(InvalidRedirect::NoAuthority)?;
        let authority = match self.target_port(original, scheme) {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let location = Uri::builder()
            .scheme(scheme.clone())
            .authority(authority)
            .path_and_query(self.target_path(original, matched_prefix))
            .build()
            .map_err(|_| InvalidRedirect::InvalidUri)?;
        if &location == original {
            Err(InvalidRedirect::Loop)
        } else {
            Ok(location)
        }
    }

    /// A port that is the scheme's default is left out; so is the original's once the scheme changes.
    fn target_port(&self, original: &Uri, scheme: &uri::Scheme) -> Option<u16> {
        let port = match self.port {
            Some(port) => Some(port),
            None if self.scheme.is_some() || self.host.is_some() => None,
            None => original.port_u16(),
        };
        port.filter(|port| *port != if *scheme == uri::Scheme::HTTPS { 443 } else { 80 })
    }

    fn target_path(&self, original: &Uri, matched_prefix: Option<&str>) -> String {
        let path = match &self.path {
            None => original.path().to_string(),
            Some(PathModifier::Full(full)) => full.clone(),
            Some(PathModifier::Prefix(new)) => {
                let rest = after_prefix(matched_prefix.unwrap_or("/"), original.path()).unwrap_or("");
                let joined = format!("{}{rest}", new.strip_suffix('/').unwrap_or(new));
                if joined.is_empty() { "/".into() } else { joined }
            }
        };
        match original.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        }
    }
}

/// Fails `ratio` of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureInjector<F> {
    pub failure: F,
    pub ratio: Ratio,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpFailure {
    pub status: StatusCode,
    pub message: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcFailure {
    pub code: u16,
    pub message: Arc<str>,
}

/// A share of requests; numerator ≤ denominator, denominator > 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    numerator: u32,
    denominator: u32,
}

impl Ratio {
    pub const ALWAYS: Self = Self {
        numerator: 1,
        denominator: 1,
    };

    #[must_use]
    pub fn new(numerator: u32, denominator: u32) -> Option<Self> {
        (denominator > 0 && numerator <= denominator).then_some(Self {
            numerator,
            denominator,
        })
    }

    /// Whether `draw`, evenly distributed over all of `u32`, falls into the share.
    #[must_use]
    pub fn hits(self, draw: u32) -> bool {
        u64::from(draw) * u64::from(self.denominator) < u64::from(self.numerator) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect() -> Redirect {
        Redirect {
            scheme: None,
            host: None,
            port: None,
            path: None,
            status: StatusCode::MOVED_PERMANENTLY,
        }
    }

    fn to(r: &Redirect, from: &str, prefix: Option<&str>) -> Result<String, InvalidRedirect> {
        r.location(&from.parse().unwrap(), prefix)
            .map(|uri| uri.to_string())
    }

    #[test]
    fn redirects_keep_what_they_do_not_name() {
        let https = Redirect {
            scheme: Some(uri::Scheme::HTTPS),
            ..redirect()
        };
        assert_eq!(
            to(&https, "http://a.com:8080/x?y=1", None).unwrap(),
            "https://a.com/x?y=1"
        );
        let host = Redirect {
            host: Some("b.com".into()),
            port: Some(8080),
            ..redirect()
        };
        assert_eq!(to(&host, "http://a.com/x", None).unwrap(), "http://b.com:8080/x");
    }

    #[test]
    fn redirects_replace_the_matched_prefix() {
        let r = Redirect {
            path: Some(PathModifier::Prefix("/new/".into())),
            ..redirect()
        };
        assert_eq!(to(&r, "http://a/old/x", Some("/old")).unwrap(), "http://a/new/x");
        let root = Redirect {
            path: Some(PathModifier::Prefix("/".into())),
            ..redirect()
        };
        assert_eq!(to(&root, "http://a/old", Some("/old")).unwrap(), "http://a/");
    }

    #[test]
    fn a_redirect_to_itself_is_an_error() {
        assert_eq!(to(&redirect(), "http://a/x", None), Err(InvalidRedirect::Loop));
    }

    #[test]
    fn ratios_hit_their_share() {
        assert!(Ratio::ALWAYS.hits(u32::MAX));
        let half = Ratio::new(1, 2).unwrap();
        assert!(half.hits(u32::MAX / 2) && !half.hits(u32::MAX / 2 + 1));
        assert!(!Ratio::new(0, 1).unwrap().hits(0));
        assert_eq!(Ratio::new(2, 1), None);
        assert_eq!(Ratio::new(0, 0), None);
    }

    #[test]
    fn header_modifiers_add_then_set_then_remove() {
        let (a, b) = (HeaderName::from_static("a"), HeaderName::from_static("b"));
        let modifier = HeaderModifier {
            add: vec![(a.clone(), HeaderValue::from_static("2"))],
            set: vec![(b.clone(), HeaderValue::from_static("x"))],
            remove: vec![HeaderName::from_static("c")],
        };
        let mut headers = HeaderMap::new();
        headers.insert("a", HeaderValue::from_static("1"));
        headers.insert("c", HeaderValue::from_static("1"));
        modifier.apply(&mut headers);
        assert_eq!(headers.get_all("a").iter().count(), 2);
        assert_eq!(headers.get("b").unwrap(), "x");
        assert!(!headers.contains_key("c"));
    }
}
