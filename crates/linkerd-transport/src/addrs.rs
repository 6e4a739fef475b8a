//! The ends of a connection. Which is which decides about policy, so each has a type.

use std::{fmt, net::SocketAddr};

/// Who connected. An IPv4 client of an IPv6 socket is an IPv4 client.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddr(pub SocketAddr);

/// Where the client wanted to go before the kernel redirected the connection to the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrigDst(pub SocketAddr);

/// `::ffff:10.0.0.1` as `10.0.0.1`: the form in which policies and endpoints name it.
pub(crate) fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

macro_rules! shown_as_addr {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

shown_as_addr!(ClientAddr, OrigDst);
