//! From an accepted connection to its protocol.
//!
//! Nobody is kept waiting by detection: while a client is silent the application is dialled, and whoever speaks
//! first decides. So a server that greets its clients is forwarded as bytes, and a client that comes with HTTP after
//! a long pause is still HTTP.

use crate::{Inbound, forward, labels, port::Port, session::Session};
use bytes::BytesMut;
use linkerd_http::{
    Counted,
    detect::{self, Outcome, Version},
    h1, h2,
};
use linkerd_metrics::Labels;
use linkerd_policy::{ClientInfo, ServerPolicy, server::Protocol};
use linkerd_stack::{Cause, Error, Throttle, drain};
use linkerd_tls::{Detected, NoServerTls, ServerTls, TlsError};
use linkerd_transport::{Accepted, BoxIo, ClientAddr, OrigDst, PrefixedIo, SessionProtocol, TransportHeader};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};
use tracing::{debug, info};

/// A connection whose TLS is known.
pub(crate) struct Connection {
    pub(crate) io: Client,
    pub(crate) client: SocketAddr,
    pub(crate) tls: ServerTls,
    /// `tls`, `client_id` and the like.
    pub(crate) tls_labels: Labels,
    pub(crate) port: Arc<Port>,
    pub(crate) policy: Arc<ServerPolicy>,
}

pub(crate) type Client = Counted<PrefixedIo<BoxIo>>;

/// What came first on a connection.
enum First {
    Tls(Detected, PrefixedIo<TcpStream>),
    /// The application greeted the client.
    Server {
        client: TcpStream,
        app: TcpStream,
    },
    /// Nobody said anything, and the proxy ends.
    Nothing,
}

/// What a connection turns out to carry.
enum Carries {
    Http(Version),
    Bytes { app: Option<TcpStream> },
    Nothing,
}

pub(crate) async fn serve(inbound: &Arc<Inbound>, accepted: Accepted, drain: drain::Watch) {
    let Accepted {
        io,
        client: ClientAddr(client),
        orig_dst: OrigDst(dst),
    } = accepted;
    let result = if dst.port() == inbound.config.listen_port {
        serve_direct(inbound, io, client, dst, drain).await
    } else if inbound.is_own_ip(dst) {
        serve_port(inbound, io, client, dst, drain).await
    } else {
        Err(Error::new(Cause::Forbidden, "not an address of this pod"))
    };
    if let Err(error) = result {
        static FAILURES: Throttle = Throttle::new();
        let port = inbound.ports.find(dst);
        let target = port.map_or_else(labels::other_target, |port| port.target.clone());
        let labels = target.with("error", error.cause().code());
        inbound.metrics.tcp_errors.series(&labels).incr();
        let (code, error) = (error.cause().code(), error.detail());
        FAILURES.line(|left_out| info!(%client, server = %dst, code, error, left_out, "connection failed"));
    }
}

/// A connection that the kernel redirected.
async fn serve_port(
    inbound: &Arc<Inbound>,
    io: TcpStream,
    client: SocketAddr,
    dst: SocketAddr,
    mut drain: drain::Watch,
) -> Result<(), Error> {
    let port = inbound.ports.of(inbound, dst).await?;
    let first = first(inbound, &port, io, client, &mut drain)
        .await
        .map_err(|e| closed(&e))?;
    // The policy may have changed while the client was silent.
    let policy = port.policy();
    let connection =
        |io, tls: ServerTls| Connection::new(inbound, io, client, tls, port.clone(), policy.clone());
    let (detected, io) = match first {
        First::Nothing => return Ok(()),
        First::Tls(detected, io) => (detected, io),
        First::Server { client: io, app } => {
            let reason = if policy.is_opaque() {
                NoServerTls::PortSkipped
            } else {
                NoServerTls::NoTlsFromRemote
            };
            let connection = connection(boxed(io), ServerTls::None(reason));
            return Box::pin(forward::serve(inbound, connection, Some(app), drain)).await;
        }
    };
    match detected {
        Detected::Closed => Ok(()),
        Detected::Tls { sni } if sni.as_deref() == Some(&**inbound.credentials.server_name()) => {
            let (io, tls, _) = terminate(inbound, io, false).await?;
            serve_transported(inbound, connection(io.into(), tls), drain).await
        }
        Detected::Tls { sni } => {
            let tls = ServerTls::PassThrough {
                sni: sni.map(Into::into),
            };
            let io = connection(PrefixedIo::new(io.prefix().clone(), boxed_tail(io)), tls);
            Box::pin(forward::serve(inbound, io, None, drain)).await
        }
        Detected::NotTls => {
            let reason = if policy.is_opaque() {
                NoServerTls::PortSkipped
            } else {
                NoServerTls::NoTlsFromRemote
            };
            let io = connection(
                PrefixedIo::new(io.prefix().clone(), boxed_tail(io)),
                ServerTls::None(reason),
            );
            serve_transported(inbound, io, drain).await
        }
    }
}

fn boxed(io: TcpStream) -> PrefixedIo<BoxIo> {
    let io: BoxIo = Box::new(io);
    io.into()
}

fn boxed_tail(io: PrefixedIo<TcpStream>) -> BoxIo {
    Box::new(io.into_parts().1)
}

/// A connection from another proxy, which says itself where it wants to go.
async fn serve_direct(
    inbound: &Arc<Inbound>,
    io: TcpStream,
    client: SocketAddr,
    dst: SocketAddr,
    drain: drain::Watch,
) -> Result<(), Error> {
    let limit = handshake_limit(inbound);
    let late = || Error::new(Cause::DetectTimeout, "direct connection without TLS");
    let (detected, io) = timeout(limit, linkerd_tls::detect(io))
        .await
        .map_err(|_| late())?
        .map_err(|e| closed(&e))?;
    match detected {
        Detected::Closed => return Ok(()),
        Detected::Tls { sni } if sni.as_deref() == Some(&**inbound.credentials.server_name()) => {}
        _ => {
            return Err(Error::new(
                Cause::Forbidden,
                "direct connections must be mutually authenticated",
            ));
        }
    }
    let (mut io, tls, has_header) = terminate(inbound, io, true).await?;
    if tls.client_id().is_none() {
        return Err(Error::new(
            Cause::Forbidden,
            "direct connections must be mutually authenticated",
        ));
    }
    if !has_header {
        return Err(Error::new(
            Cause::Forbidden,
            "direct connections require transport header negotiation",
        ));
    }
    let mut buf = BytesMut::with_capacity(512);
    let header = timeout(limit, TransportHeader::read(&mut io, &mut buf))
        .await
        .map_err(|_| Error::new(Cause::DetectTimeout, "transport header timed out"))?
        .map_err(|e| Error::new(Cause::MalformedRequest, e.to_string()))?;
    if let Some(name) = header.name {
        return Err(Error::new(
            Cause::GatewayDomain,
            format!("this proxy is no gateway for {name}"),
        ));
    }
    if header.port.get() == dst.port() {
        return Err(Error::new(
            Cause::Loop,
            "a direct connection to the proxy's own port",
        ));
    }
    let dst = SocketAddr::new(dst.ip(), header.port.get());
    let port = inbound.ports.of(inbound, dst).await?;
    let policy = port.policy();
    let io = PrefixedIo::new(buf.freeze(), io);
    let connection = Connection::new(inbound, io, client, tls, port, policy);
    match header.protocol {
        None => Box::pin(forward::serve(inbound, connection, None, drain)).await,
        Some(SessionProtocol::Http1) => serve_http(inbound, Version::Http1, connection, drain).await,
        Some(SessionProtocol::Http2) => serve_http(inbound, Version::Http2, connection, drain).await,
    }
}

/// Waits for the client's first bytes, or for the application's greeting when the client is silent.
async fn first(
    inbound: &Inbound,
    port: &Port,
    io: TcpStream,
    client: SocketAddr,
    drain: &mut drain::Watch,
) -> io::Result<First> {
    let tls = ServerTls::None(NoServerTls::NoTlsFromRemote);
    let may_greet = may_greet(&port.policy(), client, &tls);
    tokio::select! {
        biased;
        ready = io.readable() => ready?,
        app = greeting(port), if may_greet => return Ok(First::Server { client: io, app }),
        () = waited_enough(drain) => return Ok(First::Nothing),
    }
    let detected = timeout(handshake_limit(inbound), linkerd_tls::detect(io)).await;
    let (detected, io) = detected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    Ok(First::Tls(detected, io))
}

/// Once something has come, the rest of a hello or handshake has to follow, however long a client may be silent.
fn handshake_limit(inbound: &Inbound) -> Duration {
    inbound.config.detect_timeout.min(MAX_HANDSHAKE)
}

/// Resolves when the proxy ends and a connection has had the time to say something.
async fn waited_enough(drain: &mut drain::Watch) {
    drain.signaled().await;
    sleep(LAST_CHANCE).await;
}

/// The application is only dialled for clients that may connect, and whose protocol is not fixed by policy.
fn may_greet(policy: &ServerPolicy, client: SocketAddr, tls: &ServerTls) -> bool {
    matches!(policy.protocol, Protocol::Detect { .. } | Protocol::Opaque)
        && policy
            .authorize(&ClientInfo {
                ip: client.ip(),
                tls: tls.shown(),
            })
            .is_ok()
}

/// Resolves when the application greets a client that says nothing.
async fn greeting(port: &Port) -> TcpStream {
    sleep(SILENCE).await;
    if let Ok(app) = port.app.dial().await
        && let Ok(1..) = app.peek(&mut [0]).await
    {
        return app;
    }
    std::future::pending().await
}

async fn terminate(
    inbound: &Inbound,
    io: PrefixedIo<TcpStream>,
    direct: bool,
) -> Result<(BoxIo, ServerTls, bool), Error> {
    let failed = |e: TlsError| Error::new(Cause::TlsHandshake, e.to_string());
    let handshake = timeout(handshake_limit(inbound), inbound.credentials.accept(io, direct));
    let (io, client_id, header) = handshake
        .await
        .map_err(|_| Error::new(Cause::DetectTimeout, "TLS handshake timed out"))?
        .map_err(failed)?;
    Ok((Box::new(io), ServerTls::Terminated { client_id }, header))
}

/// Finds the protocol of a connection whose TLS is settled.
async fn serve_transported(
    inbound: &Arc<Inbound>,
    mut connection: Connection,
    mut drain: drain::Watch,
) -> Result<(), Error> {
    let meshed = matches!(connection.tls, ServerTls::Terminated { .. });
    let carries = match &connection.policy.protocol {
        Protocol::Opaque | Protocol::Tls => Carries::Bytes { app: None },
        Protocol::Http2(_) | Protocol::Grpc(_) => Carries::Http(Version::Http2),
        Protocol::Http1(_) if !meshed => Carries::Http(Version::Http1),
        Protocol::Http1(_) | Protocol::Detect { .. } | Protocol::Invalid(_) => {
            let mut buf = BytesMut::new();
            let carries = detect_http(&mut connection, &mut buf, &mut drain)
                .await
                .map_err(|e| closed(&e))?;
            connection.io = connection.io.with_prefix(buf.freeze());
            match (carries, &connection.policy.protocol) {
                (Carries::Bytes { app: None }, Protocol::Http1(_)) => Carries::Http(Version::Http1),
                (carries, _) => carries,
            }
        }
    };
    match carries {
        Carries::Nothing => Ok(()),
        Carries::Http(version) => serve_http(inbound, version, connection, drain).await,
        Carries::Bytes { app } => Box::pin(forward::serve(inbound, connection, app, drain)).await,
    }
}

async fn detect_http(
    connection: &mut Connection,
    buf: &mut BytesMut,
    drain: &mut drain::Watch,
) -> io::Result<Carries> {
    let may_greet = may_greet(&connection.policy, connection.client, &connection.tls);
    let outcome = tokio::select! {
        biased;
        outcome = detect::read(&mut connection.io, buf, None) => outcome?,
        app = greeting(&connection.port), if may_greet => return Ok(Carries::Bytes { app: Some(app) }),
        () = waited_enough(drain) => return Ok(Carries::Nothing),
    };
    Ok(match outcome {
        Outcome::Http(version) => Carries::Http(version),
        Outcome::Opaque | Outcome::TimedOut => Carries::Bytes { app: None },
        Outcome::Closed => Carries::Nothing,
    })
}

async fn serve_http(
    inbound: &Arc<Inbound>,
    version: Version,
    connection: Connection,
    drain: drain::Watch,
) -> Result<(), Error> {
    let config = &inbound.config;
    let (session, io) = Session::new(inbound, connection);
    let session = Arc::new(session);
    match version {
        Version::Http1 => {
            match h1::serve(io, session, &config.http1_server, drain).await {
                // What was upgraded is cut off with the grace period.
                Err(error) if error.cause() == Cause::ShuttingDown => return Err(error),
                Err(error) => debug!(%error, "HTTP/1 connection ended"),
                Ok(()) => {}
            }
        }
        Version::Http2 => {
            let served = h2::serve(io, session, &config.http2_server, drain);
            // In the heap: a task is as large as its largest part, and most wait as idle HTTP/1 connections.
            if let Err(error) = Box::pin(served).await {
                debug!(%error, "HTTP/2 connection ended");
            }
        }
    }
    Ok(())
}

impl Connection {
    fn new(
        inbound: &Inbound,
        io: PrefixedIo<BoxIo>,
        client: SocketAddr,
        tls: ServerTls,
        port: Arc<Port>,
        policy: Arc<ServerPolicy>,
    ) -> Self {
        let tls_labels = labels::tls(&tls, &inbound.metrics);
        let peer = Labels::new()
            .with("direction", "inbound")
            .with("peer", "src")
            .join(&port.target)
            .join(&tls_labels)
            .join(&port.server_labels(&policy));
        let io = Counted::new(io, inbound.metrics.tcp.series(peer).open());
        Self {
            io,
            client,
            tls,
            tls_labels,
            port,
            policy,
        }
    }
}

fn closed(error: &io::Error) -> Error {
    let cause = match error.kind() {
        io::ErrorKind::TimedOut => Cause::DetectTimeout,
        _ => Cause::DownstreamClosed,
    };
    Error::new(cause, error.to_string())
}

/// How long a client may be silent before the application is asked.
const SILENCE: Duration = Duration::from_millis(10);
/// For a hello, a handshake, a transport header; a detect timeout of days is meant for silent clients.
const MAX_HANDSHAKE: Duration = Duration::from_secs(10);
/// For the first bytes on a connection when the proxy ends.
const LAST_CHANCE: Duration = Duration::from_secs(1);
