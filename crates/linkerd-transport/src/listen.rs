//! Accepting connections that the kernel redirected here.

use crate::addrs::{ClientAddr, OrigDst, unmapped};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};

/// Idle time before the kernel probes a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive(pub Duration);

#[derive(Clone, Debug, Default)]
pub struct ListenParams {
    /// Absent: the kernel's maximum.
    pub backlog: Option<i32>,
    pub keepalive: Option<Keepalive>,
    /// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
    pub orig_dst: OrigDstSource,
}

/// Where a connection's original destination comes from.
#[derive(Clone, Debug, Default)]
pub enum OrigDstSource {
    /// The kernel's connection tracking (`SO_ORIGINAL_DST`).
    #[default]
    Kernel,
    /// Fixed, for proxies that run without redirection.
    Fixed(SocketAddr),
    /// The listener's own address: for servers of the proxy itself.
    Local,
}

#[derive(Debug)]
pub struct Accepted {
    pub io: TcpStream,
    pub client: ClientAddr,
    pub orig_dst: OrigDst,
}

/// A bound socket that several runtimes may accept from.
#[derive(Clone, Debug)]
pub struct BoundListener {
    socket: Arc<StdListener>,
    params: ListenParams,
}

/// A listener of one runtime.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    params: ListenParams,
}

impl Listener {
    /// Binds without a runtime, so that a port that is taken is found before any thread starts.
    ///
    /// # Errors
    /// The kernel's, mostly that the address is in use.
    pub fn bind(addr: SocketAddr, params: ListenParams) -> io::Result<BoundListener> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if addr.is_ipv6() && addr.ip().is_unspecified() {
            // The pod's IPv4 traffic comes to the same listener.
            socket.set_only_v6(false)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(params.backlog.unwrap_or(MAX_BACKLOG))?;
        socket.set_nonblocking(true)?;
        Ok(BoundListener {
            socket: Arc::new(socket.into()),
            params,
        })
    }

    /// # Errors
    /// Those of accept(2) which concern the listener, such as too many open files. A single connection that is
    /// already gone, or whose destination cannot be told, is left out.
    pub async fn accept(&self) -> io::Result<Accepted> {
        loop {
            let (io, client) = match self.socket.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_of_connection(&error) => continue,
                Err(error) => return Err(error),
            };
            if let Ok(orig_dst) = self.prepared(&io) {
                return Ok(Accepted {
                    io,
                    client: ClientAddr(unmapped(client)),
                    orig_dst,
                });
            }
        }
    }

    fn prepared(&self, io: &TcpStream) -> io::Result<OrigDst> {
        set_options(io, self.params.keepalive, self.params.user_timeout)?;
        match self.params.orig_dst {
            OrigDstSource::Kernel => orig_dst(io),
            OrigDstSource::Fixed(addr) => Ok(OrigDst(addr)),
            OrigDstSource::Local => Ok(OrigDst(unmapped(io.local_addr()?))),
        }
    }
}

impl BoundListener {
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The listener for the current runtime. Runtimes that wait on the same socket share its connections: one that
    /// is busy does not come to accept, so the idle ones do.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen(&self) -> io::Result<Listener> {
        let socket = TcpListener::from_std(self.socket.try_clone()?)?;
        Ok(Listener {
            socket,
            params: self.params.clone(),
        })
    }
}

/// IPv6 sockets of IPv4 clients answer the IPv4 question only.
fn orig_dst(io: &TcpStream) -> io::Result<OrigDst> {
    let socket = SockRef::from(io);
    let is_v6 = matches!(io.local_addr()?, SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none());
    let addr = if is_v6 {
        socket.original_dst_v6()?
    } else {
        socket.original_dst_v4()?
    };
    let addr = addr
        .as_socket()
        .ok_or_else(|| io::Error::other("original destination is no IP address"))?;
    Ok(OrigDst(unmapped(addr)))
}

pub(crate) fn set_options(
    io: &TcpStream,
    keepalive: Option<Keepalive>,
    user_timeout: Option<Duration>,
) -> io::Result<()> {
    io.set_nodelay(true)?;
    let socket = SockRef::from(io);
    if let Some(Keepalive(idle)) = keepalive {
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    if user_timeout.is_some() {
        socket.set_tcp_user_timeout(user_timeout)?;
    }
    Ok(())
}

/// Errors by which accept(2) tells of the connection rather than of the listener.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Cut by the kernel to `net.core.somaxconn`.
const MAX_BACKLOG: i32 = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    async fn accepted(orig_dst: OrigDstSource) -> Accepted {
        let keepalive = Some(Keepalive(Duration::from_secs(10)));
        let user_timeout = Some(Duration::from_secs(30));
        let params = ListenParams {
            backlog: None,
            keepalive,
            user_timeout,
            orig_dst,
        };
        let bound = Listener::bind("127.0.0.1:0".parse().unwrap(), params).unwrap();
        let listener = bound.listen().unwrap();
        let addr = bound.local_addr().unwrap();
        let (accepted, _client) = tokio::join!(listener.accept(), TcpStream::connect(addr));
        accepted.unwrap()
    }

    #[tokio::test]
    async fn options_are_set_on_accepted_sockets() {
        let accepted = accepted(OrigDstSource::Local).await;
        let socket = SockRef::from(&accepted.io);
        assert!(accepted.io.nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
    }

    #[tokio::test]
    async fn the_destination_can_be_given() {
        let addr = "10.0.0.1:80".parse().unwrap();
        assert_eq!(accepted(OrigDstSource::Fixed(addr)).await.orig_dst, OrigDst(addr));
    }

    #[test]
    fn a_taken_port_is_an_error() {
        let bound = Listener::bind("127.0.0.1:0".parse().unwrap(), ListenParams::default()).unwrap();
        let again = Listener::bind(bound.local_addr().unwrap(), ListenParams::default());
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
