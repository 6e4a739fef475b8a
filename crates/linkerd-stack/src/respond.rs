//! The one place where an error becomes an answer.

use crate::{Cause, Error};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};

/// Who will read the answer.
#[derive(Copy, Clone, Debug)]
pub struct Client {
    pub version: Version,
    /// The request was gRPC, so the answer must be as well.
    pub grpc: bool,
    pub informational: Informational,
}

/// Whether the client may learn the proxy's reasons.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Informational {
    Allowed,
    /// Unmeshed clients of the inbound proxy, or switched off by configuration.
    Suppressed,
}

/// An answer that the proxy made itself. It has no body.
#[derive(Debug)]
pub struct Synthetic {
    pub cause: Cause,
    pub status: StatusCode,
    /// Set when the answer is gRPC: the `grpc-status` that it carries.
    pub grpc_status: Option<u16>,
    /// Carries the [`Cause`] as an extension too, for those who see only the response.
    pub head: Response<()>,
}

impl Synthetic {
    /// Answers `error` in the form that `client` understands.
    ///
    /// `status` overrides the cause's own status: redirects and injected faults bring theirs.
    #[must_use]
    pub fn from_error(error: &Error, client: Client, status: Option<StatusCode>) -> Self {
        let cause = error.cause();
        if client.grpc {
            return Self::grpc(error, client, grpc_status_of(cause));
        }
        let status = status.unwrap_or_else(|| status_of(cause));
        let mut head = empty(client.version, status);
        if cause.closes_connection() {
            close(&mut head, client);
        }
        explain(head.headers_mut(), error, client);
        head.extensions_mut().insert(cause);
        Self {
            cause,
            status,
            grpc_status: None,
            head,
        }
    }

    /// A trailers-only gRPC answer with a status code of the caller's choice (injected faults).
    #[must_use]
    pub fn grpc(error: &Error, client: Client, code: u16) -> Self {
        let mut head = empty(client.version, StatusCode::OK);
        let headers = head.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(code));
        if client.informational == Informational::Allowed {
            headers.insert("grpc-message", percent_encoded(&error.to_string()));
        }
        explain(headers, error, client);
        if error.cause().closes_connection() {
            close(&mut head, client);
        }
        head.extensions_mut().insert(error.cause());
        Self {
            cause: error.cause(),
            status: StatusCode::OK,
            grpc_status: Some(code),
            head,
        }
    }
}

/// A request or response is gRPC when its content type says so (`application/grpc`, `application/grpc+proto`, …).
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return false;
    };
    let Some(rest) = value.as_bytes().strip_prefix(b"application/grpc") else {
        return false;
    };
    matches!(rest.first(), None | Some(b'+' | b';'))
}

/// The HTTP status by which a cause is answered.
const fn status_of(cause: Cause) -> StatusCode {
    match cause {
        Cause::MalformedRequest | Cause::DownstreamClosed => StatusCode::BAD_REQUEST,
        Cause::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Cause::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
        Cause::NoRoute | Cause::GatewayDomain => StatusCode::NOT_FOUND,
        Cause::Unauthorized | Cause::Forbidden => StatusCode::FORBIDDEN,
        Cause::RateLimit => StatusCode::TOO_MANY_REQUESTS,
        Cause::Redirect => StatusCode::MOVED_PERMANENTLY,
        Cause::GatewayLoop | Cause::Loop => StatusCode::LOOP_DETECTED,
        Cause::LoadShed | Cause::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        Cause::FailFast
        | Cause::ConnectTimeout
        | Cause::DetectTimeout
        | Cause::RequestTimeout
        | Cause::ResponseTimeout
        | Cause::IdleTimeout => StatusCode::GATEWAY_TIMEOUT,
        Cause::NoBackend
        | Cause::IdentityRequired
        | Cause::ConnectRefused
        | Cause::ConnectError
        | Cause::TlsHandshake
        | Cause::UpstreamReset
        | Cause::UpstreamClosed
        | Cause::UpstreamProtocol => StatusCode::BAD_GATEWAY,
        Cause::FaultInjected | Cause::InvalidPolicy | Cause::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The gRPC status code by which a cause is answered.
#[must_use]
pub const fn grpc_status_of(cause: Cause) -> u16 {
    const CANCELLED: u16 = 1;
    const UNKNOWN: u16 = 2;
    const INVALID_ARGUMENT: u16 = 3;
    const DEADLINE_EXCEEDED: u16 = 4;
    const NOT_FOUND: u16 = 5;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const ABORTED: u16 = 10;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    match cause {
        Cause::MalformedRequest | Cause::HeadTooLarge => INVALID_ARGUMENT,
        Cause::DownstreamClosed => CANCELLED,
        Cause::NoRoute | Cause::GatewayDomain => NOT_FOUND,
        Cause::Unauthorized | Cause::Forbidden => PERMISSION_DENIED,
        Cause::RateLimit => RESOURCE_EXHAUSTED,
        Cause::Redirect => UNKNOWN,
        Cause::GatewayLoop | Cause::Loop => ABORTED,
        Cause::FailFast
        | Cause::ConnectTimeout
        | Cause::DetectTimeout
        | Cause::HeadTimeout
        | Cause::RequestTimeout
        | Cause::ResponseTimeout
        | Cause::IdleTimeout => DEADLINE_EXCEEDED,
        Cause::LoadShed
        | Cause::ShuttingDown
        | Cause::NoBackend
        | Cause::IdentityRequired
        | Cause::ConnectRefused
        | Cause::ConnectError
        | Cause::TlsHandshake
        | Cause::UpstreamReset
        | Cause::UpstreamClosed
        | Cause::UpstreamProtocol => UNAVAILABLE,
        Cause::FaultInjected | Cause::InvalidPolicy | Cause::Internal => INTERNAL,
    }
}

fn empty(version: Version, status: StatusCode) -> Response<()> {
    let mut head = Response::new(());
    *head.version_mut() = version;
    *head.status_mut() = status;
    head.headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    head
}

fn close(head: &mut Response<()>, client: Client) {
    if client.version <= Version::HTTP_11 {
        head.headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if client.informational == Informational::Allowed {
        head.headers_mut()
            .insert("l5d-proxy-connection", HeaderValue::from_static("close"));
    }
}

fn explain(headers: &mut HeaderMap, error: &Error, client: Client) {
    if client.informational == Informational::Suppressed {
        return;
    }
    let text: String = error
        .to_string()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let value =
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(error.cause().code()));
    headers.insert("l5d-proxy-error", value);
}

/// `grpc-message` is percent-encoded UTF-8 (gRPC over HTTP/2, "Responses").
fn percent_encoded(text: &str) -> HeaderValue {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    HeaderValue::from_str(&out).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(grpc: bool, informational: Informational) -> Client {
        Client {
            version: Version::HTTP_11,
            grpc,
            informational,
        }
    }

    #[test]
    fn a_plain_client_gets_status_and_reason() {
        let error = Error::new(Cause::FailFast, "service in fail-fast").within("logical service 10.1.2.3:80");
        let answer = Synthetic::from_error(&error, client(false, Informational::Allowed), None);
        assert_eq!(answer.head.status(), 504);
        assert_eq!(answer.head.headers()["content-length"], "0");
        assert_eq!(
            answer.head.headers()["l5d-proxy-error"],
            "failfast: logical service 10.1.2.3:80: service in fail-fast"
        );
    }

    #[test]
    fn a_grpc_client_gets_a_trailers_only_answer() {
        let error = Error::new(Cause::Unauthorized, "100% ünauthorised");
        let answer = Synthetic::from_error(&error, client(true, Informational::Allowed), None);
        assert_eq!(answer.head.status(), 200);
        assert_eq!(answer.head.headers()["grpc-status"], "7");
        assert_eq!(
            answer.head.headers()["grpc-message"],
            "unauthorized: 100%25 %C3%BCnauthorised"
        );
    }

    #[test]
    fn strangers_learn_nothing() {
        let error = Error::new(Cause::Unauthorized, "secret policy");
        let answer = Synthetic::from_error(&error, client(true, Informational::Suppressed), None);
        assert!(!answer.head.headers().contains_key("l5d-proxy-error"));
        assert!(!answer.head.headers().contains_key("grpc-message"));
    }

    #[test]
    fn a_fatal_error_closes_the_connection() {
        let error = Error::new(Cause::MalformedRequest, "no host\r\nx: y");
        let answer = Synthetic::from_error(&error, client(false, Informational::Allowed), None);
        assert_eq!(answer.head.headers()["connection"], "close");
        assert_eq!(answer.head.headers()["l5d-proxy-connection"], "close");
        assert_eq!(
            answer.head.headers()["l5d-proxy-error"],
            "malformed-request: no host  x: y"
        );
    }

    #[test]
    fn grpc_web_is_not_grpc() {
        let mut headers = HeaderMap::new();
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web", false),
            ("text/html", false),
        ] {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), expected, "{value}");
        }
    }
}
