//! Matches of routes.

use super::{Invalid, invalid};
use http::{HeaderName, Method, uri::Scheme};
use linkerd_policy::{
    grpc_match::GrpcMatch,
    host::HostMatch,
    http_match::{
        HeaderMatch, HeaderValueMatch, HttpMatch, PathMatch, QueryParamMatch, StringMatch, anchored,
        anchored_bytes,
    },
};
use linkerd_proto::{grpc_route, http_route, http_types, tls_route};

pub(super) fn method(message: http_types::HttpMethod) -> Result<Method, Invalid> {
    use http_types::http_method::{Registered, Type};
    match message.r#type {
        Some(Type::Registered(number)) => match Registered::try_from(number) {
            Ok(Registered::Get) => Ok(Method::GET),
            Ok(Registered::Post) => Ok(Method::POST),
            Ok(Registered::Put) => Ok(Method::PUT),
            Ok(Registered::Delete) => Ok(Method::DELETE),
            Ok(Registered::Patch) => Ok(Method::PATCH),
            Ok(Registered::Options) => Ok(Method::OPTIONS),
            Ok(Registered::Connect) => Ok(Method::CONNECT),
            Ok(Registered::Head) => Ok(Method::HEAD),
            Ok(Registered::Trace) => Ok(Method::TRACE),
            Err(error) => Err(invalid("method")(error)),
        },
        Some(Type::Unregistered(name)) => name.parse().map_err(invalid("method")),
        None => Err(Invalid::missing("method")),
    }
}

pub(super) fn scheme(message: http_types::Scheme) -> Result<Option<Scheme>, Invalid> {
    use http_types::scheme::{Registered, Type};
    match message.r#type {
        Some(Type::Registered(number)) => match Registered::try_from(number) {
            Ok(Registered::Http) => Ok(Some(Scheme::HTTP)),
            Ok(Registered::Https) => Ok(Some(Scheme::HTTPS)),
            Err(error) => Err(invalid("scheme")(error)),
        },
        Some(Type::Unregistered(name)) => name.parse().map(Some).map_err(invalid("scheme")),
        None => Ok(None),
    }
}

pub(super) fn hosts(messages: Vec<http_route::HostMatch>) -> Result<Vec<HostMatch>, Invalid> {
    let host = |message: http_route::HostMatch| match message.r#match {
        Some(http_route::host_match::Match::Exact(name)) => Ok(HostMatch::Exact(name)),
        Some(http_route::host_match::Match::Suffix(suffix)) => Ok(HostMatch::Suffix(suffix.reverse_labels)),
        None => Err(Invalid::missing("host match")),
    };
    messages.into_iter().map(host).collect()
}

pub(super) fn snis(messages: Vec<tls_route::SniMatch>) -> Result<Vec<HostMatch>, Invalid> {
    let sni = |message: tls_route::SniMatch| match message.r#match {
        Some(tls_route::sni_match::Match::Exact(name)) => Ok(HostMatch::Exact(name)),
        Some(tls_route::sni_match::Match::Suffix(suffix)) => Ok(HostMatch::Suffix(suffix.reverse_labels)),
        None => Err(Invalid::missing("server name match")),
    };
    messages.into_iter().map(sni).collect()
}

pub(super) fn http_match(message: http_route::HttpRouteMatch) -> Result<HttpMatch, Invalid> {
    Ok(HttpMatch {
        path: message.path.map(path).transpose()?,
        headers: headers(message.headers)?,
        query_params: message
            .query_params
            .into_iter()
            .map(query_param)
            .collect::<Result<_, _>>()?,
        method: message.method.map(method).transpose()?,
    })
}

pub(super) fn grpc_match(message: grpc_route::GrpcRouteMatch) -> Result<GrpcMatch, Invalid> {
    let rpc = message.rpc.unwrap_or_default();
    Ok(GrpcMatch {
        service: (!rpc.service.is_empty()).then_some(rpc.service),
        method: (!rpc.method.is_empty()).then_some(rpc.method),
        headers: headers(message.headers)?,
    })
}

fn path(message: http_route::PathMatch) -> Result<PathMatch, Invalid> {
    use http_route::path_match::Kind;
    match message.kind {
        Some(Kind::Exact(path)) => Ok(PathMatch::Exact(path)),
        Some(Kind::Prefix(prefix)) => Ok(PathMatch::Prefix(prefix)),
        Some(Kind::Regex(regex)) => anchored(&regex)
            .map(PathMatch::Regex)
            .map_err(invalid("path expression")),
        None => Err(Invalid::missing("path match")),
    }
}

fn headers(messages: Vec<http_route::HeaderMatch>) -> Result<Vec<HeaderMatch>, Invalid> {
    use http_route::header_match::Value;
    let header = |message: http_route::HeaderMatch| {
        let name = message
            .name
            .parse::<HeaderName>()
            .map_err(invalid("header name"))?;
        let value = match message.value {
            Some(Value::Exact(bytes)) => HeaderValueMatch::Exact(bytes),
            Some(Value::Regex(regex)) => {
                HeaderValueMatch::Regex(anchored_bytes(&regex).map_err(invalid("header expression"))?)
            }
            None => return Err(Invalid::missing("header value match")),
        };
        Ok(HeaderMatch { name, value })
    };
    messages.into_iter().map(header).collect()
}

fn query_param(message: http_route::QueryParamMatch) -> Result<QueryParamMatch, Invalid> {
    use http_route::query_param_match::Value;
    let value = match message.value {
        Some(Value::Exact(exact)) => StringMatch::Exact(exact),
        Some(Value::Regex(regex)) => {
            StringMatch::Regex(anchored(&regex).map_err(invalid("query expression"))?)
        }
        None => return Err(Invalid::missing("query value match")),
    };
    Ok(QueryParamMatch {
        name: message.name,
        value,
    })
}
