//! Whether a response is a success.

use http::{HeaderMap, StatusCode};
use linkerd_metrics::Classification;

/// The gRPC status in headers or trailers; one that is no number counts as UNKNOWN.
#[must_use]
pub fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    let value = headers.get("grpc-status")?;
    Some(
        value
            .to_str()
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(GRPC_UNKNOWN),
    )
}

/// Classifies a complete response: HTTP by status, gRPC by `grpc-status`.
#[must_use]
pub fn classify(status: StatusCode, grpc_status: Option<u16>) -> Classification {
    match grpc_status {
        Some(code) => classify_grpc(code),
        None if status.is_server_error() => Classification::Failure,
        None => Classification::Success,
    }
}

/// Unknown, DeadlineExceeded, PermissionDenied, Internal, Unavailable and DataLoss are failures; the others say that
/// the server did what it was asked or that the client asked for nonsense.
#[must_use]
pub const fn classify_grpc(code: u16) -> Classification {
    match code {
        GRPC_UNKNOWN | 4 | 7 | 13 | 14 | 15 => Classification::Failure,
        _ => Classification::Success,
    }
}

pub const GRPC_UNKNOWN: u16 = 2;
