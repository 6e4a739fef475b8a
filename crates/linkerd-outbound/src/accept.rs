//! From an accepted connection to its protocol.
//!
//! As on the inbound side nobody waits for detection: a client that says nothing has its destination opened as bytes,
//! and whoever speaks first decides.
//!
//! A connection is one task for all its life, as large as its largest part. Most wait as idle HTTP/1 connections, so
//! what is not that is in the heap while it lasts.

use crate::{
    Outbound,
    destination::{DISCOVERY, Destination},
    forward::{self, Opened},
    metrics,
    plan::{self, Plan, Protocol, TlsRoute},
    session::Session,
};
use bytes::BytesMut;
use linkerd_http::{
    Counted,
    detect::{self, Outcome, Version},
    h1, h2,
};
use linkerd_metrics::Labels;
use linkerd_policy::profile::LookupTarget;
use linkerd_stack::{Cause, Error, drain};
use linkerd_tls::{Detected, NoClientTls};
use linkerd_transport::{Accepted, BoxIo, ClientAddr, OrigDst, PrefixedIo};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{io::AsyncReadExt, net::TcpStream, time::sleep};
use tracing::{debug, info};

pub(crate) type Client = Counted<PrefixedIo<BoxIo>>;

pub(crate) async fn serve(outbound: &Arc<Outbound>, accepted: Accepted, drain: drain::Watch) {
    let Accepted {
        io,
        client: ClientAddr(client),
        orig_dst: OrigDst(dst),
    } = accepted;
    if let Err(error) = serve_destination(outbound, io, client, dst, drain).await {
        let labels = metrics::target(dst).with("error", error.cause().code());
        outbound.metrics.tcp_errors.series(&labels).incr();
        info!(%client, server = %dst, code = error.cause().code(), error = error.detail(), "connection failed");
    }
}

async fn serve_destination(
    outbound: &Arc<Outbound>,
    io: TcpStream,
    client: SocketAddr,
    dst: SocketAddr,
    drain: drain::Watch,
) -> Result<(), Error> {
    let destination = outbound.destinations.of(outbound, &LookupTarget::Addr(dst));
    let plan = Box::pin(destination.plan(DISCOVERY)).await?;
    if let Protocol::Tls(routes) = &plan.protocol {
        return Box::pin(serve_tls(outbound, io, client, dst, routes)).await;
    }
    let mut io = counted(outbound, dst, io.into());
    let version = match &plan.protocol {
        // An ingress may speak HTTP to what is opaque for others: each request says where it goes.
        Protocol::Bytes(bytes) if !outbound.config.ingress => {
            return Box::pin(forward::serve(outbound, io, client, bytes, None)).await;
        }
        Protocol::Http1(_) => Version::Http1,
        Protocol::Http2(_) => Version::Http2,
        Protocol::Detect { .. } | Protocol::Bytes(_) | Protocol::Invalid(_) | Protocol::Tls(_) => {
            let mut buf = BytesMut::new();
            let found = Box::pin(detect_http(&plan, &mut io, &mut buf)).await?;
            io = io.with_prefix(buf.freeze());
            match found {
                Found::Http(version) => version,
                Found::Nothing => return Ok(()),
                Found::Bytes(opened) => {
                    let (Protocol::Detect { opaque, .. } | Protocol::Bytes(opaque)) = &plan.protocol else {
                        return Err(Error::new(
                            Cause::InvalidPolicy,
                            "invalid client policy configuration",
                        ));
                    };
                    return Box::pin(forward::serve(outbound, io, client, opaque, opened)).await;
                }
            }
        }
    };
    serve_http(outbound, &destination, io, client, dst, version, drain).await;
    Ok(())
}

fn counted(outbound: &Outbound, dst: SocketAddr, io: PrefixedIo<TcpStream>) -> Client {
    let peer = Labels::new()
        .with("direction", "outbound")
        .with("peer", "src")
        .join(&metrics::target(dst))
        .with("tls", "no_identity")
        .with("no_tls_reason", NoClientTls::Loopback.as_str());
    let (prefix, io) = io.into_parts();
    let io: BoxIo = Box::new(io);
    Counted::new(
        PrefixedIo::new(prefix, io),
        outbound.metrics.tcp.series(peer).open(),
    )
}

async fn serve_http(
    outbound: &Arc<Outbound>,
    destination: &Arc<Destination>,
    io: Client,
    client: SocketAddr,
    dst: SocketAddr,
    version: Version,
    drain: drain::Watch,
) {
    let session = Session::new(outbound, destination, client, dst);
    match version {
        Version::Http1 => {
            if let Err(error) = h1::serve(io, session, &outbound.config.http1_server, drain).await {
                debug!(%error, "HTTP/1 connection ended");
            }
        }
        Version::Http2 => {
            let served = h2::serve(io, session, &outbound.config.http2_server, drain);
            if let Err(error) = Box::pin(served).await {
                debug!(%error, "HTTP/2 connection ended");
            }
        }
    }
}

/// TLS that the application itself speaks is routed by the name it asks for.
async fn serve_tls(
    outbound: &Arc<Outbound>,
    io: TcpStream,
    client: SocketAddr,
    dst: SocketAddr,
    routes: &[TlsRoute],
) -> Result<(), Error> {
    let (detected, io) = linkerd_tls::detect(io)
        .await
        .map_err(|e| Error::new(Cause::DownstreamClosed, e.to_string()))?;
    let sni = match detected {
        Detected::Closed => return Ok(()),
        Detected::Tls { sni: Some(sni) } => sni,
        _ => return Err(Error::new(Cause::NoRoute, "a TLS route needs a server name")),
    };
    let Some(bytes) = TlsRoute::find(routes, &sni) else {
        return Err(Error::new(Cause::NoRoute, "no TLS route for the server name"));
    };
    forward::serve(outbound, counted(outbound, dst, io), client, bytes, None).await
}

enum Found {
    Http(Version),
    Bytes(Option<Opened>),
    Nothing,
}

async fn detect_http(plan: &Plan, io: &mut Client, buf: &mut BytesMut) -> Result<Found, Error> {
    let opaque = match &plan.protocol {
        Protocol::Detect { opaque, .. } | Protocol::Bytes(opaque) if opaque.refused.is_none() => Some(opaque),
        _ => None,
    };
    let outcome = tokio::select! {
        biased;
        outcome = detect::read(io, buf, None) => outcome.map_err(|e| closed(&e))?,
        opened = greeting(opaque) => return Ok(Found::Bytes(Some(opened))),
    };
    Ok(match outcome {
        Outcome::Http(version) => Found::Http(version),
        Outcome::Opaque | Outcome::TimedOut => Found::Bytes(None),
        Outcome::Closed => Found::Nothing,
    })
}

/// Resolves when the destination greets a client that says nothing.
async fn greeting(bytes: Option<&Arc<plan::Bytes>>) -> Opened {
    let Some(bytes) = bytes else {
        return std::future::pending().await;
    };
    sleep(SILENCE).await;
    if let Ok(mut opened) = forward::open(bytes).await {
        let mut first = BytesMut::with_capacity(FIRST_BYTES);
        if let Ok(1..) = opened.io.read_buf(&mut first).await {
            opened.first = first.freeze();
            return opened;
        }
    }
    std::future::pending().await
}

fn closed(error: &io::Error) -> Error {
    Error::new(Cause::DownstreamClosed, error.to_string())
}

/// How long a client may be silent before the destination is asked.
const SILENCE: Duration = Duration::from_millis(10);
const FIRST_BYTES: usize = 4 * 1024;
