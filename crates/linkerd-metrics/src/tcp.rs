//! Linkerd's transport families.

use crate::{Counter, Family, Gauge, Labels, Registry};
use std::{io, sync::Arc};

#[derive(Clone, Debug)]
pub struct TcpFamilies {
    open_total: Family<Counter>,
    open_connections: Family<Gauge>,
    close_total: Family<Counter>,
    read_bytes: Family<Counter>,
    write_bytes: Family<Counter>,
}

/// The series of one peer.
#[derive(Debug)]
pub struct TcpSeries {
    families: TcpFamilies,
    labels: Labels,
    open_total: Arc<Counter>,
    open_connections: Arc<Gauge>,
    read_bytes: Arc<Counter>,
    write_bytes: Arc<Counter>,
}

/// One open connection; counted as closed when dropped.
#[derive(Debug)]
pub struct TcpOpen {
    series: Arc<TcpSeries>,
    errno: Option<&'static str>,
}

impl TcpFamilies {
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            open_total: registry.counter("tcp_open_total", "Total count of opened connections."),
            open_connections: registry.gauge("tcp_open_connections", "Number of currently open connections."),
            close_total: registry.counter("tcp_close_total", "Total count of closed connections."),
            read_bytes: registry.counter("tcp_read_bytes_total", "Total count of bytes read from peers."),
            write_bytes: registry.counter("tcp_write_bytes_total", "Total count of bytes written to peers."),
        }
    }

    #[must_use]
    pub fn series(&self, labels: Labels) -> Arc<TcpSeries> {
        Arc::new(TcpSeries {
            open_total: self.open_total.series(&labels),
            open_connections: self.open_connections.series(&labels),
            read_bytes: self.read_bytes.series(&labels),
            write_bytes: self.write_bytes.series(&labels),
            families: self.clone(),
            labels,
        })
    }
}

impl TcpSeries {
    #[must_use]
    pub fn open(self: &Arc<Self>) -> TcpOpen {
        self.open_total.incr();
        self.open_connections.incr();
        TcpOpen {
            series: self.clone(),
            errno: None,
        }
    }

    #[must_use]
    pub fn labels(&self) -> &Labels {
        &self.labels
    }
}

impl TcpOpen {
    pub fn read(&self, bytes: u64) {
        self.series.read_bytes.add(bytes);
    }

    pub fn wrote(&self, bytes: u64) {
        self.series.write_bytes.add(bytes);
    }

    /// Remembers why the connection ends; the first reason counts.
    pub fn failed(&mut self, error: &io::Error) {
        self.errno.get_or_insert(errno_name(error));
    }
}

impl Drop for TcpOpen {
    fn drop(&mut self) {
        let TcpSeries {
            families,
            labels,
            open_connections,
            ..
        } = &*self.series;
        open_connections.decr();
        let labels = labels.clone().with("errno", self.errno.unwrap_or(""));
        families.close_total.series(&labels).incr();
    }
}

/// The symbol of an error as Linkerd writes it, from a list that the network cannot extend.
fn errno_name(error: &io::Error) -> &'static str {
    use io::ErrorKind::{
        AddrNotAvailable, BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        NetworkUnreachable, NotConnected, TimedOut, UnexpectedEof,
    };
    match error.kind() {
        ConnectionReset => "ECONNRESET",
        ConnectionRefused => "ECONNREFUSED",
        ConnectionAborted => "ECONNABORTED",
        BrokenPipe => "EPIPE",
        NotConnected => "ENOTCONN",
        AddrNotAvailable => "EADDRNOTAVAIL",
        TimedOut => "ETIMEDOUT",
        HostUnreachable => "EHOSTUNREACH",
        NetworkUnreachable => "ENETUNREACH",
        UnexpectedEof => "UNEXPECTED_EOF",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_connection_is_counted_from_open_to_close() {
        let registry = Registry::new(Duration::from_secs(600));
        let series = TcpFamilies::new(&registry).series(Labels::new().with("peer", "src"));
        let mut first = series.open();
        let second = series.open();
        first.read(10);
        first.wrote(20);
        first.failed(&io::ErrorKind::ConnectionReset.into());
        drop(first);
        let mut text = String::new();
        registry.render(&mut text);
        for line in [
            "tcp_open_total{peer=\"src\"} 2\n",
            "tcp_open_connections{peer=\"src\"} 1\n",
            "tcp_close_total{peer=\"src\",errno=\"ECONNRESET\"} 1\n",
            "tcp_read_bytes_total{peer=\"src\"} 10\n",
            "tcp_write_bytes_total{peer=\"src\"} 20\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop(second);
    }
}
