//! Connections to the application.

use linkerd_http::{Connect, Counted, Failed, Request, Response, detect::Version, h1, h2};
use linkerd_metrics::TcpSeries;
use linkerd_stack::{Cause, Error};
use linkerd_transport::{ConnectError, ConnectParams, connect};
use parking_lot::Mutex;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::Instant};

/// One port of the application, reached at the address that clients asked for.
#[derive(Debug)]
pub(crate) struct App {
    connect: AppConnect,
    http1: h1::Client<AppConnect>,
    http2: h2::Shared<AppConnect>,
}

#[derive(Clone, Debug)]
pub(crate) struct AppConnect {
    addr: SocketAddr,
    params: ConnectParams,
    series: Arc<TcpSeries>,
    way: Arc<Way>,
}

/// How a port of the application is reached.
#[derive(Debug)]
pub(crate) enum Way {
    Dial,
    /// First by the connection that found it: the application need not wonder about one that brings nothing.
    Connected(Mutex<Option<(TcpStream, Instant)>>),
    /// Not at all: nobody listened there.
    Closed,
}

impl App {
    pub(crate) fn new(
        addr: SocketAddr,
        params: ConnectParams,
        series: Arc<TcpSeries>,
        pool: h1::PoolParams,
        http2: h2::ClientParams,
        way: Way,
    ) -> Self {
        let connect = AppConnect {
            addr,
            params,
            series,
            way: Arc::new(way),
        };
        Self {
            http1: h1::Client::new(connect.clone(), pool),
            http2: h2::Shared::new(connect.clone(), http2),
            connect,
        }
    }

    pub(crate) async fn send(&self, version: Version, request: Request) -> Result<Response, Failed> {
        match version {
            Version::Http1 => self.http1.send(request).await,
            Version::Http2 => self.http2.send(request).await,
        }
    }

    /// A connection that is not yet counted; [`AppConnect::counted`] follows once it is used.
    pub(crate) async fn dial(&self) -> Result<TcpStream, Error> {
        self.connect.dial().await
    }

    pub(crate) fn counted(&self, io: TcpStream) -> Counted<TcpStream> {
        Counted::new(io, self.connect.series.open())
    }
}

impl AppConnect {
    async fn dial(&self) -> Result<TcpStream, Error> {
        let connected = match &*self.way {
            Way::Dial => None,
            Way::Connected(first) => first.lock().take(),
            Way::Closed => {
                let detail = format!("server: {}: nobody listens", self.addr);
                return Err(Error::new(Cause::ConnectRefused, detail));
            }
        };
        match connected {
            Some((io, when)) if when.elapsed() < FRESH => Ok(io),
            _ => dial(self.addr, &self.params).await,
        }
    }
}

impl Way {
    pub(crate) fn connected(io: TcpStream) -> Self {
        Self::Connected(Mutex::new(Some((io, Instant::now()))))
    }
}

pub(crate) async fn dial(addr: SocketAddr, params: &ConnectParams) -> Result<TcpStream, Error> {
    connect(addr, params)
        .await
        .map_err(|error| describe(addr, &error))
}

impl Connect for AppConnect {
    type Io = Counted<TcpStream>;

    async fn connect(&self) -> Result<Self::Io, Error> {
        let io = self.dial().await?;
        Ok(Counted::new(io, self.series.open()))
    }
}

fn describe(addr: SocketAddr, error: &ConnectError) -> Error {
    let cause = match error {
        ConnectError::Timeout(_) => Cause::ConnectTimeout,
        ConnectError::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => Cause::ConnectRefused,
        ConnectError::Io(_) => Cause::ConnectError,
    };
    Error::new(cause, format!("server: {addr}: {error}"))
}

/// A server may close a connection on which nothing comes; it does not do so at once.
const FRESH: Duration = Duration::from_millis(500);
