//! What went wrong, whose fault it is and whether the request may be sent again.

use std::fmt;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The closed list of reasons for which the proxy itself answers a request or ends a connection.
///
/// The same [code](Cause::code) appears in the `l5d-proxy-error` header, in the `error` label of metrics, in tap
/// events and in log lines, so that a person can go from any of them to the others.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The request breaks HTTP: a missing host, a bad target, contradicting lengths.
    MalformedRequest,
    /// Request head larger than the proxy's limit.
    HeadTooLarge,
    /// Request head not complete in time.
    HeadTimeout,
    /// No route of the policy matches the request.
    NoRoute,
    /// No authorization of the server or route admits this client.
    Unauthorized,
    /// A rate limit of the server's policy is used up.
    RateLimit,
    /// A redirect filter of a route answered.
    Redirect,
    /// A fault-injection filter of a route answered.
    FaultInjected,
    /// The control plane sent a policy that cannot be understood.
    InvalidPolicy,
    /// A policy forbids this destination or connection.
    Forbidden,
    /// The gateway is not allowed to forward to this name.
    GatewayDomain,
    /// The request has passed this gateway before.
    GatewayLoop,
    /// The destination is this proxy itself.
    Loop,
    /// No endpoint became available within the fail-fast timeout.
    FailFast,
    /// Too many requests in flight, or no backend of the route is available.
    LoadShed,
    /// The route's backend cannot be dispatched to.
    NoBackend,
    /// The target's identity is not the one that the application asked for.
    IdentityRequired,
    /// The TCP connection was not established in time.
    ConnectTimeout,
    /// The peer refused the TCP connection.
    ConnectRefused,
    /// The TCP connection failed in another way.
    ConnectError,
    /// The TLS handshake with the peer failed.
    TlsHandshake,
    /// The client's first bytes did not come in time.
    DetectTimeout,
    /// The whole request took longer than its timeout.
    RequestTimeout,
    /// The response did not begin or end in time.
    ResponseTimeout,
    /// Nothing was sent either way for the stream's idle timeout.
    IdleTimeout,
    /// The peer reset the stream.
    UpstreamReset,
    /// The peer closed the connection before the response was complete.
    UpstreamClosed,
    /// The peer broke HTTP.
    UpstreamProtocol,
    /// The client went away or reset the stream before the response was complete.
    DownstreamClosed,
    /// The proxy is ending.
    ShuttingDown,
    /// A fault of the proxy itself.
    Internal,
}

/// Whose fault an error is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client of this proxy.
    Downstream,
    /// The server behind this proxy.
    Upstream,
    /// Policy or the proxy itself.
    Internal,
}

/// Whether the same request may be sent once more.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No server has seen the request: sending it again is always right.
    Unsent,
    /// A server may have acted on the request: only its route can allow another attempt.
    Maybe,
    /// Another attempt would end in the same way.
    Never,
}

/// A failed request or connection.
#[derive(Clone)]
pub struct Error {
    cause: Cause,
    retry: Retry,
    reset: Option<u32>,
    detail: Box<str>,
}

impl Cause {
    /// The code by which the cause is known outside.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformed-request",
            Self::HeadTooLarge => "head-too-large",
            Self::HeadTimeout => "head-timeout",
            Self::NoRoute => "no-route",
            Self::Unauthorized => "unauthorized",
            Self::RateLimit => "rate-limit",
            Self::Redirect => "redirect",
            Self::FaultInjected => "fault-injected",
            Self::InvalidPolicy => "invalid-policy",
            Self::Forbidden => "forbidden",
            Self::GatewayDomain => "gateway-domain",
            Self::GatewayLoop => "gateway-loop",
            Self::Loop => "loop",
            Self::FailFast => "failfast",
            Self::LoadShed => "loadshed",
            Self::NoBackend => "no-backend",
            Self::IdentityRequired => "identity-required",
            Self::ConnectTimeout => "connect-timeout",
            Self::ConnectRefused => "connect-refused",
            Self::ConnectError => "connect-error",
            Self::TlsHandshake => "tls-handshake",
            Self::DetectTimeout => "detect-timeout",
            Self::RequestTimeout => "request-timeout",
            Self::ResponseTimeout => "response-timeout",
            Self::IdleTimeout => "idle-timeout",
            Self::UpstreamReset => "upstream-reset",
            Self::UpstreamClosed => "upstream-closed",
            Self::UpstreamProtocol => "upstream-protocol",
            Self::DownstreamClosed => "downstream-closed",
            Self::ShuttingDown => "shutting-down",
            Self::Internal => "internal",
        }
    }

    /// Every cause, for documentation and for tables that are indexed by it.
    pub const ALL: [Self; 31] = [
        Self::MalformedRequest,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::NoRoute,
        Self::Unauthorized,
        Self::RateLimit,
        Self::Redirect,
        Self::FaultInjected,
        Self::InvalidPolicy,
        Self::Forbidden,
        Self::GatewayDomain,
        Self::GatewayLoop,
        Self::Loop,
        Self::FailFast,
        Self::LoadShed,
        Self::NoBackend,
        Self::IdentityRequired,
        Self::ConnectTimeout,
        Self::ConnectRefused,
        Self::ConnectError,
        Self::TlsHandshake,
        Self::DetectTimeout,
        Self::RequestTimeout,
        Self::ResponseTimeout,
        Self::IdleTimeout,
        Self::UpstreamReset,
        Self::UpstreamClosed,
        Self::UpstreamProtocol,
        Self::DownstreamClosed,
        Self::ShuttingDown,
        Self::Internal,
    ];

    /// The cause that a header value written by [`Error`]'s `Display` begins with.
    #[must_use]
    pub fn parse_header(value: &[u8]) -> Option<Self> {
        let code = value.split(|b| *b == b':').next()?;
        Self::ALL.into_iter().find(|c| c.code().as_bytes() == code)
    }

    #[must_use]
    pub const fn source(self) -> Source {
        match self {
            Self::MalformedRequest
            | Self::HeadTooLarge
            | Self::HeadTimeout
            | Self::DetectTimeout
            | Self::DownstreamClosed => Source::Downstream,
            Self::FailFast
            | Self::ConnectTimeout
            | Self::ConnectRefused
            | Self::ConnectError
            | Self::TlsHandshake
            | Self::IdentityRequired
            | Self::RequestTimeout
            | Self::ResponseTimeout
            | Self::IdleTimeout
            | Self::UpstreamReset
            | Self::UpstreamClosed
            | Self::UpstreamProtocol => Source::Upstream,
            Self::NoRoute
            | Self::Unauthorized
            | Self::RateLimit
            | Self::Redirect
            | Self::FaultInjected
            | Self::InvalidPolicy
            | Self::Forbidden
            | Self::GatewayDomain
            | Self::GatewayLoop
            | Self::Loop
            | Self::LoadShed
            | Self::NoBackend
            | Self::ShuttingDown
            | Self::Internal => Source::Internal,
        }
    }

    /// Whether an error of this cause leaves the client's connection unfit for another request.
    #[must_use]
    pub const fn closes_connection(self) -> bool {
        matches!(
            self,
            Self::MalformedRequest
                | Self::HeadTooLarge
                | Self::HeadTimeout
                | Self::ShuttingDown
                | Self::GatewayLoop
                | Self::Loop
        )
    }

    /// The default retryability; an [`Error`] may know better.
    const fn retry(self) -> Retry {
        match self {
            Self::ConnectTimeout
            | Self::ConnectRefused
            | Self::ConnectError
            | Self::TlsHandshake
            | Self::ShuttingDown => Retry::Unsent,
            Self::FailFast
            | Self::ResponseTimeout
            | Self::UpstreamReset
            | Self::UpstreamClosed
            | Self::UpstreamProtocol => Retry::Maybe,
            _ => Retry::Never,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Error {
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self {
            cause,
            retry: cause.retry(),
            reset: None,
            detail: detail.into().into_boxed_str(),
        }
    }

    /// Says that no server has seen the request.
    #[must_use]
    pub fn unsent(mut self) -> Self {
        self.retry = Retry::Unsent;
        self
    }

    /// Says that another attempt would have no more time.
    #[must_use]
    pub fn for_good(mut self) -> Self {
        self.retry = Retry::Never;
        self
    }

    /// Remembers the HTTP/2 error code of a reset stream, so that it can be passed on.
    #[must_use]
    pub fn with_reset(mut self, code: u32) -> Self {
        self.reset = Some(code);
        self
    }

    #[must_use]
    pub const fn reset(&self) -> Option<u32> {
        self.reset
    }

    /// Prefixes the detail by the place that the error passed, outermost first.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.detail = format!("{place}: {}", self.detail).into_boxed_str();
        self
    }

    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    #[must_use]
    pub const fn retry(&self) -> Retry {
        self.retry
    }

    /// Whether the server could not be connected to.
    #[must_use]
    pub const fn is_connect(&self) -> bool {
        matches!(
            self.cause,
            Cause::ConnectTimeout | Cause::ConnectRefused | Cause::ConnectError | Cause::TlsHandshake
        )
    }

    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause, self.detail)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.retry)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_is_its_own_and_fit_for_a_label() {
        let codes: HashSet<_> = Cause::ALL.iter().map(|c| c.code()).collect();
        assert_eq!(codes.len(), Cause::ALL.len());
        assert!(
            codes
                .iter()
                .all(|c| c.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
        );
    }

    #[test]
    fn the_cause_can_be_read_back_from_the_header() {
        let error =
            Error::new(Cause::ConnectRefused, "server: 10.0.0.1:80: Connection refused").within("inbound");
        let header = error.to_string();
        assert_eq!(
            Cause::parse_header(header.as_bytes()),
            Some(Cause::ConnectRefused)
        );
        assert_eq!(Cause::parse_header(b"HTTP/1.1 whatever"), None);
    }
}
