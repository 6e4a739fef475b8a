//! Whether the application still runs, told from the sockets of the pod.
//!
//! In a pod whose proxy is an ordinary container, both are told to end at the same moment. The proxy is of use until
//! the application has ended, and nothing tells it when that is: their processes cannot see each other. Their sockets
//! can. A socket that is not of the proxy's user and listens on a declared port, or that is one end of a connection
//! of the pod, is the application's, and disappears with it.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    time::Duration,
};
use tokio::time;

/// Knows nothing, and says "gone", when neither ports nor addresses of the pod are known.
#[derive(Debug)]
pub(crate) struct Application {
    /// That the pod declares; the proxy's own are not among them.
    ports: BTreeSet<u16>,
    ips: HashSet<IpAddr>,
    proxy_uid: Option<u32>,
}

/// One line of `/proc/net/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    state: State,
    uid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Listening,
    /// The peer may have ended its half.
    Connected,
    /// On its way in or out; nobody's any more, perhaps.
    Other,
}

impl Application {
    pub(crate) fn new(ports: BTreeSet<u16>, ips: HashSet<IpAddr>) -> Self {
        let proxy_uid = fs::metadata("/proc/self").ok().map(|own| own.uid());
        Self {
            ports,
            ips,
            proxy_uid,
        }
    }

    /// Whether it still takes connections.
    pub(crate) fn listens(&self) -> bool {
        !self.ports.is_empty() && self.any(|socket| self.is_its_listener(socket))
    }

    /// Resolves once nothing shows that the application is there.
    pub(crate) async fn gone(&self) {
        while self.any(|socket| self.is_its_listener(socket) || self.is_its_connection(socket)) {
            time::sleep(INTERVAL).await;
        }
    }

    fn any(&self, wanted: impl Fn(&Socket) -> bool) -> bool {
        if self.ports.is_empty() && self.ips.is_empty() {
            return false;
        }
        TABLES
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .any(|table| table.lines().filter_map(parse).any(|socket| wanted(&socket)))
    }

    fn is_its_listener(&self, socket: &Socket) -> bool {
        socket.state == State::Listening
            && self.proxy_uid != Some(socket.uid)
            && self.ports.contains(&socket.local.port())
    }

    fn is_its_connection(&self, socket: &Socket) -> bool {
        socket.state == State::Connected
            && self.proxy_uid != Some(socket.uid)
            && self.ips.contains(&socket.local.ip().to_canonical())
    }
}

/// proc_net_tcp(5): number, local and remote address, state, queues, timer, retransmissions, user.
fn parse(line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let state = match fields.nth(1)? {
        "0A" => State::Listening,
        "01" | "08" => State::Connected,
        _ => State::Other,
    };
    let uid = fields.nth(3)?.parse().ok()?;
    Some(Socket { local, state, uid })
}

/// Hexadecimal, each word of the address as it lies in memory.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(&*bytes) {
        Ok(v4) => IpAddr::from(Ipv4Addr::from(v4)),
        Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&*bytes).ok()?)),
    };
    Some(SocketAddr::new(ip, port))
}

const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
const INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpStream};

    /// Of somebody else than the sockets of this process.
    fn application(ports: &[u16], ips: &[IpAddr]) -> Application {
        Application {
            ports: ports.iter().copied().collect(),
            ips: ips.iter().copied().collect(),
            proxy_uid: Some(u32::MAX),
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_lines_are_read() {
        let listening =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1";
        let expected = Socket {
            local: "127.0.0.1:8080".parse().unwrap(),
            state: State::Listening,
            uid: 1000,
        };
        assert_eq!(parse(listening), Some(expected));
        let v6 = "1: 00000000000000000000000001000000:0050 0:0 01 0:0 00:0 0 0 0 1";
        assert_eq!(parse(v6).unwrap().local, "[::1]:80".parse().unwrap());
        assert_eq!(
            parse("  sl  local_address rem_address   st tx_queue rx_queue tr"),
            None
        );
    }

    #[tokio::test]
    async fn it_listens_until_it_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let application = application(&[listener.local_addr().unwrap().port()], &[]);
        assert!(application.listens());
        drop(listener);
        assert!(!application.listens());
        application.gone().await;
    }

    #[tokio::test]
    async fn its_connections_show_that_it_is_there() {
        let ip = "127.9.8.7".parse().unwrap();
        let listener = TcpListener::bind(SocketAddr::new(ip, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let application = application(&[], &[ip]);
        let waited = time::timeout(INTERVAL * 3, application.gone()).await;
        assert!(waited.is_err() && !application.listens());
        drop((client, server));
        application.gone().await;
    }

    #[tokio::test]
    async fn the_proxys_own_sockets_show_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!Application::new([port].into(), HashSet::new()).listens());
    }
}
