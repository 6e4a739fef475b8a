//! Filters of routes.

use super::{Invalid, invalid, matching::scheme};
use http::{HeaderName, HeaderValue, StatusCode};
use linkerd_policy::filter::{
    FailureInjector, GrpcFailure, HeaderModifier, HttpFailure, PathModifier, Ratio, Redirect,
};
use linkerd_proto::{grpc_route, http_route, http_types};

pub(super) fn request_headers(message: http_route::RequestHeaderModifier) -> Result<HeaderModifier, Invalid> {
    modifier(message.add, message.set, &message.remove)
}

pub(super) fn response_headers(
    message: http_route::ResponseHeaderModifier,
) -> Result<HeaderModifier, Invalid> {
    modifier(message.add, message.set, &message.remove)
}

fn modifier(
    add: Option<http_types::Headers>,
    set: Option<http_types::Headers>,
    remove: &[String],
) -> Result<HeaderModifier, Invalid> {
    let remove = remove
        .iter()
        .map(|name| name.parse().map_err(invalid("header name")))
        .collect::<Result<_, _>>()?;
    Ok(HeaderModifier {
        add: headers(add)?,
        set: headers(set)?,
        remove,
    })
}

fn headers(message: Option<http_types::Headers>) -> Result<Vec<(HeaderName, HeaderValue)>, Invalid> {
    let header = |header: http_types::headers::Header| {
        let name = header.name.parse().map_err(invalid("header name"))?;
        Ok((
            name,
            HeaderValue::from_bytes(&header.value).map_err(invalid("header value"))?,
        ))
    };
    message
        .unwrap_or_default()
        .headers
        .into_iter()
        .map(header)
        .collect()
}

pub(super) fn redirect(message: http_route::RequestRedirect) -> Result<Redirect, Invalid> {
    use http_route::path_modifier::Replace;
    let status = if message.status == 0 {
        StatusCode::MOVED_PERMANENTLY
    } else {
        status(message.status)?
    };
    Ok(Redirect {
        scheme: message.scheme.map(scheme).transpose()?.flatten(),
        host: (!message.host.is_empty()).then_some(message.host),
        port: Some(u16::try_from(message.port).map_err(invalid("redirect port"))?).filter(|port| *port > 0),
        path: message
            .path
            .and_then(|path| path.replace)
            .map(|replace| match replace {
                Replace::Full(full) => PathModifier::Full(full),
                Replace::Prefix(prefix) => PathModifier::Prefix(prefix),
            }),
        status,
    })
}

pub(super) fn http_failure(
    message: http_route::HttpFailureInjector,
) -> Result<FailureInjector<HttpFailure>, Invalid> {
    let failure = HttpFailure {
        status: status(message.status)?,
        message: message.message.into(),
    };
    Ok(FailureInjector {
        failure,
        ratio: ratio(message.ratio)?,
    })
}

pub(super) fn grpc_failure(
    message: grpc_route::GrpcFailureInjector,
) -> Result<FailureInjector<GrpcFailure>, Invalid> {
    let code = u16::try_from(message.code).map_err(invalid("gRPC code"))?;
    let failure = GrpcFailure {
        code,
        message: message.message.into(),
    };
    Ok(FailureInjector {
        failure,
        ratio: ratio(message.ratio)?,
    })
}

fn ratio(message: Option<http_route::Ratio>) -> Result<Ratio, Invalid> {
    let Some(message) = message else {
        return Ok(Ratio::ALWAYS);
    };
    Ratio::new(message.numerator, message.denominator).ok_or_else(|| Invalid("invalid ratio".into()))
}

fn status(code: u32) -> Result<StatusCode, Invalid> {
    let code = u16::try_from(code).map_err(invalid("status"))?;
    StatusCode::from_u16(code).map_err(invalid("status"))
}
