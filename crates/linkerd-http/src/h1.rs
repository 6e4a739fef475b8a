//! HTTP/1: a server, and a client with a pool of idle connections.
//!
//! The core is pure: `parse`, `decode` and `encode` turn bytes into heads and body events and back. Around it `conn`
//! reads and writes; `server`, `client` and `pool` say when. A body is read from its connection when its reader wants
//! it, so nothing piles up in between.

mod buffers;
mod client;
mod conn;
mod decode;
mod encode;
mod incoming;
mod outgoing;
mod parse;
mod pool;
mod server;
mod upgrade;

pub(crate) use self::incoming::Incoming;
pub use self::{
    client::{Client, Connection},
    pool::PoolParams,
    server::serve,
    upgrade::is_tunnel,
};

use self::parse::Limits;
use std::time::Duration;

/// What an HTTP/1 server allows.
#[derive(Clone, Debug)]
pub struct ServerParams {
    /// The largest request head.
    pub max_head_bytes: usize,
    /// How long a head may take from its first byte to its last.
    pub head_timeout: Duration,
}

impl Default for ServerParams {
    fn default() -> Self {
        Self {
            max_head_bytes: LIMITS.bytes,
            head_timeout: HEAD_TIMEOUT,
        }
    }
}

/// How a message's body is delimited (RFC 9112 §6.3).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Framing {
    /// There is none.
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

const LIMITS: Limits = Limits {
    bytes: 64 * 1024,
    fields: parse::MAX_FIELDS,
};
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
