//! One endpoint and the connections to it.

use crate::{Outbound, metrics};
use linkerd_http::{Connect, Counted, Failed, Request, Response, detect::Version, h1, h2};
use linkerd_metrics::{HttpSeries, Labels, TcpSeries};
use linkerd_policy::{
    Endpoint as Spec,
    endpoint::{Http2Params, ProtocolHint},
};
use linkerd_stack::{Cause, Error};
use linkerd_tls::{ClientTls, Credentials, NoClientTls};
use linkerd_transport::{BoxIo, ConnectError, ConnectParams, SessionProtocol, TransportHeader, connect};
use std::{io, net::SocketAddr, num::NonZeroU16, sync::Arc, time::Duration};
use tokio::{io::AsyncWriteExt, time::timeout};

/// What a balancer chooses among.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) spec: Arc<Spec>,
    pub(crate) tls: ClientTls,
    pub(crate) series: Arc<HttpSeries>,
    http1: h1::Client<Dial>,
    http2: h2::Shared<Dial>,
    opaque: Dial,
}

/// Opens connections to an endpoint for one protocol.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    spec: Arc<Spec>,
    secured: bool,
    /// What the other proxy is told in the transport header.
    protocol: Option<SessionProtocol>,
    params: ConnectParams,
    credentials: Credentials,
    series: Arc<TcpSeries>,
    inbound_port: u16,
    local: bool,
}

/// A connection for one request.
pub(crate) enum Ready {
    Http1(h1::Connection<Io>),
    Http2(h2::Client),
}

pub(crate) type Io = Counted<BoxIo>;

impl Endpoint {
    /// `authority` is the logical destination, for the metrics' label of that name.
    pub(crate) fn new(outbound: &Outbound, spec: &Arc<Spec>, authority: &str) -> Self {
        let config = &outbound.config;
        let tls = client_tls(outbound, spec, authority);
        let dst = metrics::dst(&spec.labels);
        let target = metrics::target(spec.addr).join(&metrics::tls(&tls));
        let out = Labels::new().with("direction", "outbound");
        let http = out.clone().with("authority", authority).join(&target).join(&dst);
        let tcp = out.with("peer", "dst").join(&target).join(&dst);
        let dial = |protocol| Dial {
            spec: spec.clone(),
            secured: matches!(tls, ClientTls::Established { .. }),
            protocol,
            params: config.connect,
            credentials: outbound.credentials.clone(),
            series: outbound.metrics.tcp.series(tcp.clone()),
            inbound_port: config.inbound_port,
            local: config.inbound_ips.contains(&spec.addr.ip()),
        };
        let session = |protocol| (spec.hint != ProtocolHint::Opaque).then_some(protocol);
        Self {
            http1: h1::Client::new(dial(session(SessionProtocol::Http1)), config.pool),
            http2: h2::Shared::new(
                dial(session(SessionProtocol::Http2)),
                http2_params(config, &spec.http2),
            ),
            opaque: dial(None),
            series: Arc::new(outbound.metrics.http.series(http)),
            spec: spec.clone(),
            tls,
        }
    }

    pub(crate) fn is_meshed(&self) -> bool {
        matches!(self.tls, ClientTls::Established { .. })
    }

    /// Whether HTTP/1 requests go to it over HTTP/2.
    pub(crate) fn upgrades(&self) -> bool {
        self.spec.hint == ProtocolHint::Http2 && self.is_meshed()
    }

    /// A connection; one that nobody else uses before or after when it is for `once`.
    /// A connection that is open already and shared.
    pub(crate) fn ready_now(&self, version: Version) -> Option<Ready> {
        match version {
            Version::Http1 => None,
            Version::Http2 => self.http2.ready_now().map(Ready::Http2),
        }
    }

    pub(crate) async fn ready(&self, version: Version, once: bool) -> Result<Ready, Error> {
        match version {
            Version::Http1 if once => {
                let none = h1::PoolParams {
                    max_idle: 0,
                    idle_timeout: Duration::ZERO,
                };
                let client = h1::Client::new(self.http1.connector().clone(), none);
                client.ready().await.map(Ready::Http1)
            }
            Version::Http1 => self.http1.ready().await.map(Ready::Http1),
            Version::Http2 => self.http2.ready().await.map(Ready::Http2),
        }
    }

    /// A connection for bytes.
    pub(crate) async fn open(&self) -> Result<Io, Error> {
        self.opaque.connect().await
    }
}

impl Ready {
    /// Whether the connection may have ended unnoticed since it was last used.
    pub(crate) fn may_be_stale(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_reused(),
            Self::Http2(_) => true,
        }
    }

    pub(crate) async fn send(self, request: Request) -> Result<Response, Failed> {
        match self {
            Self::Http1(connection) => connection.send(request).await,
            Self::Http2(client) => client.send(request).await,
        }
    }
}

fn client_tls(outbound: &Outbound, spec: &Spec, authority: &str) -> ClientTls {
    match &spec.tls {
        // Where an ingress goes by itself nothing was discovered.
        None if outbound.config.ingress && authority.is_empty() => {
            ClientTls::None(NoClientTls::IngressWithoutOverride)
        }
        None => ClientTls::None(NoClientTls::NotProvidedByServiceDiscovery),
        Some(_) if outbound.config.inbound_ips.contains(&spec.addr.ip()) => {
            ClientTls::None(NoClientTls::Loopback)
        }
        Some(tls) => ClientTls::Established {
            server_id: tls.server_id.clone(),
        },
    }
}

fn http2_params(config: &crate::Config, given: &Http2Params) -> h2::ClientParams {
    let mut params = config.http2_client.clone();
    if let Some(window) = given.initial_stream_window {
        params.stream_window = window;
    }
    if let Some(window) = given.initial_connection_window {
        params.connection_window = window;
    }
    params.max_frame_size = given.max_frame_size.or(params.max_frame_size);
    if let Some(k) = given.keep_alive {
        params.keep_alive = Some(h2::KeepAlive {
            interval: k.interval,
            timeout: k.timeout,
        });
    }
    params
}

impl Dial {
    async fn dial(&self) -> Result<BoxIo, Error> {
        let addr = match self.spec.opaque_port {
            Some(port) if self.secured => SocketAddr::new(self.spec.addr.ip(), port),
            _ => self.spec.addr,
        };
        if self.local && addr.port() == self.inbound_port {
            return Err(Error::new(Cause::Loop, format!("endpoint {addr} is this proxy")));
        }
        let io = connect(addr, &self.params)
            .await
            .map_err(|e| describe(addr, &e))?;
        let Some(tls) = self.spec.tls.as_ref().filter(|_| self.secured) else {
            return Ok(Box::new(io));
        };
        let with_header = self.spec.opaque_port.is_some();
        let failed =
            |e: &dyn std::fmt::Display| Error::new(Cause::TlsHandshake, format!("endpoint {addr}: {e}"));
        let (mut io, agreed) = self
            .credentials
            .connect(io, tls, with_header)
            .await
            .map_err(|e| failed(&e))?;
        if with_header {
            if !agreed {
                return Err(failed(&"peer does not take a transport header"));
            }
            let header = self.header()?;
            io.write_all(&header.encode()).await.map_err(|e| failed(&e))?;
        }
        Ok(Box::new(io))
    }

    fn header(&self) -> Result<TransportHeader, Error> {
        let (name, port) = match self
            .spec
            .authority_override
            .as_deref()
            .and_then(|a| a.rsplit_once(':'))
        {
            Some((name, port)) => (Some(name.into()), port.parse().ok()),
            None => (None, NonZeroU16::new(self.spec.addr.port())),
        };
        let port = port.ok_or_else(|| Error::new(Cause::InvalidPolicy, "endpoint without a port"))?;
        Ok(TransportHeader {
            port,
            name,
            protocol: self.protocol,
        })
    }
}

impl Connect for Dial {
    type Io = Io;

    async fn connect(&self) -> Result<Io, Error> {
        let late = || {
            let limit = self.params.timeout;
            Error::new(
                Cause::ConnectTimeout,
                format!("endpoint {}: connect timed out after {limit:?}", self.spec.addr),
            )
        };
        let io = timeout(self.params.timeout, self.dial())
            .await
            .map_err(|_| late())??;
        Ok(Counted::new(io, self.series.open()))
    }
}

fn describe(addr: SocketAddr, error: &ConnectError) -> Error {
    let cause = match error {
        ConnectError::Timeout(_) => Cause::ConnectTimeout,
        ConnectError::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused => Cause::ConnectRefused,
        ConnectError::Io(_) => Cause::ConnectError,
    };
    Error::new(cause, format!("endpoint {addr}: {error}"))
}
