//! Sockets: listeners with original destinations, connections, streams with bytes put back, the transport header.

mod addrs;
mod connect;
pub mod header;
mod io;
mod listen;

pub use self::{
    addrs::{ClientAddr, OrigDst},
    connect::{ConnectError, ConnectParams, connect},
    header::{SessionProtocol, TransportHeader},
    io::{BoxIo, Io, PrefixedIo},
    listen::{Accepted, BoundListener, Keepalive, ListenParams, Listener, OrigDstSource},
};
