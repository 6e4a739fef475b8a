//! HTTP/2 by the `h2` crate, without a client or server between it and the request.

mod client;
mod keepalive;
mod pump;
mod server;
mod shared;

pub(crate) use self::client::Slot;
pub use self::{
    client::{Client, ClientParams},
    keepalive::KeepAlive,
    server::{ServerParams, serve},
    shared::Shared,
};

use linkerd_stack::{Cause, Error};

/// What a failed stream or connection to a server means.
pub(crate) fn upstream_error(error: &h2::Error) -> Error {
    if let Some(reason) = error.reason() {
        let described = Error::new(Cause::UpstreamReset, error.to_string());
        // RFC 9113 §8.7: neither a refused stream nor one above a GOAWAY's last stream was processed.
        let unprocessed = reason == h2::Reason::REFUSED_STREAM || (error.is_go_away() && error.is_remote());
        return with_reason(
            if unprocessed {
                described.unsent()
            } else {
                described
            },
            error,
        );
    }
    if error.is_io() {
        return Error::new(Cause::UpstreamClosed, crate::body::chain(error));
    }
    Error::new(Cause::UpstreamProtocol, error.to_string())
}

pub(crate) fn with_reason(described: Error, error: &h2::Error) -> Error {
    match error.reason() {
        Some(reason) => described.with_reset(reason.into()),
        None => described,
    }
}

const DEFAULT_STREAM_WINDOW: u32 = 65_535;
const DEFAULT_CONNECTION_WINDOW: u32 = 1_048_576;
/// How much of a stream may wait in memory for its peer's window.
const SEND_BUFFER: usize = 128 * 1024;
