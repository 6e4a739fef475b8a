//! Matching of gRPC calls.

use crate::http_match::HeaderMatch;
use http::{HeaderMap, Method, Uri};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GrpcMatch {
    /// `package.Service`; absent: any.
    pub service: Option<String>,
    pub method: Option<String>,
    pub headers: Vec<HeaderMatch>,
}

/// How specific a match is. The order of the fields is the precedence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrpcScore {
    service: usize,
    method: usize,
    headers: usize,
}

impl GrpcMatch {
    /// A call is a POST to `/service/method`; nothing else matches.
    #[must_use]
    pub fn score(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<GrpcScore> {
        let (service, rpc) = call(method, uri)?;
        if self.service.as_deref().is_some_and(|s| s != service) {
            return None;
        }
        if self.method.as_deref().is_some_and(|m| m != rpc) {
            return None;
        }
        if !self.headers.iter().all(|m| m.matches(headers)) {
            return None;
        }
        Some(GrpcScore {
            service: self.service.as_ref().map_or(0, String::len),
            method: self.method.as_ref().map_or(0, String::len),
            headers: self.headers.len(),
        })
    }
}

fn call<'u>(method: &Method, uri: &'u Uri) -> Option<(&'u str, &'u str)> {
    if method != Method::POST {
        return None;
    }
    let (service, rpc) = uri.path().strip_prefix('/')?.split_once('/')?;
    (!service.is_empty() && !rpc.is_empty() && !rpc.contains('/')).then_some((service, rpc))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(m: &GrpcMatch, method: &Method, uri: &str) -> Option<GrpcScore> {
        m.score(method, &uri.parse().unwrap(), &HeaderMap::new())
    }

    #[test]
    fn only_calls_match() {
        let any = GrpcMatch::default();
        assert!(score(&any, &Method::POST, "/pkg.Svc/Call").is_some());
        assert!(score(&any, &Method::GET, "/pkg.Svc/Call").is_none());
        assert!(score(&any, &Method::POST, "/pkg.Svc").is_none());
        assert!(score(&any, &Method::POST, "/a/b/c").is_none());
    }

    #[test]
    fn naming_the_method_is_more_specific() {
        let service = GrpcMatch {
            service: Some("pkg.Svc".into()),
            ..GrpcMatch::default()
        };
        let method = GrpcMatch {
            method: Some("Call".into()),
            ..service.clone()
        };
        let of = |m| score(m, &Method::POST, "/pkg.Svc/Call");
        assert!(of(&method) > of(&service));
        assert!(score(&method, &Method::POST, "/pkg.Svc/Other").is_none());
    }
}
