//! Connections to the application.

use linkerd_http::{Connect, Counted, Failed, Request, Response, detect::Version, h1, h2};
use linkerd_metrics::TcpSeries;
use linkerd_stack::{Cause, Error};
use linkerd_transport::{ConnectError, ConnectParams, connect};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::net::TcpStream;

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
}

impl App {
    pub(crate) fn new(
        addr: SocketAddr,
        params: ConnectParams,
        series: Arc<TcpSeries>,
        pool: h1::PoolParams,
        http2: h2::ClientParams,
    ) -> Self {
        let connect = AppConnect { addr, params, series };
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
        connect(self.addr, &self.params)
            .await
            .map_err(|error| describe(self.addr, &error))
    }
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
