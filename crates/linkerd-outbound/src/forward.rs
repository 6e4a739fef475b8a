//! Connections that are not HTTP: one endpoint, then bytes both ways.

use crate::{
    Outbound,
    accept::Client,
    backend::{Backend, PickedEndpoint},
    dispatch::tapped,
    endpoint::Io,
    plan::{self, Refused},
};
use bytes::Bytes;
use linkerd_http::{Transferred, copy_duplex};
use linkerd_stack::{Cause, Error};
use linkerd_transport::PrefixedIo;
use std::{net::SocketAddr, time::Instant};
use tracing::debug;

/// A connection to an endpoint, with what the endpoint has already said.
pub(crate) struct Opened {
    pub(crate) io: Io,
    pub(crate) first: Bytes,
    picked: PickedEndpoint,
}

/// Forwards a connection; `opened` is one on which the server has already spoken.
pub(crate) async fn serve(
    outbound: &Outbound,
    mut client_io: Client,
    client: SocketAddr,
    bytes: &plan::Bytes,
    opened: Option<Opened>,
) -> Result<(), Error> {
    let Opened { io, first, picked } = match opened {
        Some(opened) => opened,
        None => open(bytes).await?,
    };
    let tapped = outbound
        .tap
        .is_active()
        .then(|| outbound.tap.connection(&tapped(client, picked.endpoint())))
        .flatten();
    let mut server_io = PrefixedIo::new(first, io);
    let (passed, reason) = match copy_duplex(&mut client_io, &mut server_io).await {
        Ok(passed) => (passed, "server".to_owned()),
        Err(error) => {
            debug!(%error, %client, server = %picked.addr(), "forwarded connection ended");
            (Transferred::default(), format!("error: {error}"))
        }
    };
    if let Some(tapped) = tapped {
        tapped.closed(passed.to_server, passed.to_client, &reason, None);
    }
    Ok(())
}

/// Connects to an endpoint; to another one, or to another backend's, when that fails, as nothing has been said yet.
pub(crate) async fn open(bytes: &plan::Bytes) -> Result<Opened, Error> {
    match &bytes.refused {
        None => {}
        Some(Refused::Forbidden) => return Err(Error::new(Cause::Forbidden, "forbidden TCP route")),
        Some(Refused::Invalid(reason)) => return Err(Error::new(Cause::InvalidPolicy, &**reason)),
    }
    let mut failed = Error::new(Cause::NoBackend, "the route has no backends");
    for backend in bytes.backends.in_turn() {
        match open_at(backend).await {
            Ok(opened) => return Ok(opened),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn open_at(backend: &Backend) -> Result<Opened, Error> {
    let mut tried = Vec::new();
    let mut picked = backend.pick(&tried).await?;
    loop {
        let started = Instant::now();
        let error = match picked.endpoint().open().await {
            Ok(io) => {
                picked.reached();
                picked.answered(started.elapsed());
                return Ok(Opened {
                    io,
                    first: Bytes::new(),
                    picked,
                });
            }
            Err(error) => error,
        };
        if error.is_connect() {
            picked.unreachable();
        }
        tried.push(picked.addr());
        drop(picked);
        picked = match backend.pick_now(&tried) {
            Some(next) if tried.len() <= MAX_FAILOVERS => next,
            _ => return Err(error.within(&backend.name)),
        };
    }
}

const MAX_FAILOVERS: usize = 4;
