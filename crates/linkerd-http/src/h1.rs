//! HTTP/1 by hyper: a server, and a client with a pool of idle connections.

use crate::{
    Body, Connect, Failed, Handler, Request, Response,
    body::{End, Observe, Side, chain},
    headers, tunnel,
};
use hyper::client::conn::http1::{Builder as ClientBuilder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use linkerd_stack::{Cause, Error, drain};
use parking_lot::Mutex;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tracing::debug;

/// What an HTTP/1 server allows.
#[derive(Clone, Debug)]
pub struct ServerParams {
    /// The largest request head.
    pub max_head_bytes: usize,
}

impl Default for ServerParams {
    fn default() -> Self {
        Self {
            max_head_bytes: MAX_HEAD,
        }
    }
}

/// Serves one connection until it ends or is drained.
///
/// # Errors
/// The connection's error, for the log: clients that go away are not worth more.
pub async fn serve<I, H>(
    io: I,
    handler: Arc<H>,
    params: &ServerParams,
    mut drain: drain::Watch,
) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let handler = handler.clone();
        async move {
            let request = request.map(|body| Body::http1(body, Side::Client));
            handler.handle(request).await
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(params.max_head_bytes.max(MIN_BUFFER))
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        biased;
        result = connection.as_mut() => return result,
        () = drain.signaled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// Sends requests over HTTP/1, each on an idle or new connection.
#[derive(Debug)]
pub struct Client<C> {
    connect: C,
    pool: Arc<Pool>,
}

#[derive(Copy, Clone, Debug)]
pub struct PoolParams {
    pub max_idle: usize,
    pub idle_timeout: Duration,
}

#[derive(Debug)]
struct Pool {
    params: PoolParams,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// Gives a connection back to its pool when the response it carried is complete.
struct Lease {
    sender: Option<SendRequest<Body>>,
    pool: Weak<Pool>,
}

impl<C: Connect> Client<C> {
    #[must_use]
    pub fn new(connect: C, params: PoolParams) -> Self {
        let pool = Arc::new(Pool {
            params,
            idle: Mutex::default(),
        });
        Self { connect, pool }
    }

    pub const fn connector(&self) -> &C {
        &self.connect
    }

    /// Sends a request and waits for the response's head.
    ///
    /// # Errors
    /// With the request in it as long as nothing of it was sent.
    pub async fn send(&self, request: Request) -> Result<Response, Failed> {
        let mut request = request;
        loop {
            let connection = match self.ready().await {
                Ok(connection) => connection,
                Err(error) => return Err(Failed::unsent(error, request)),
            };
            let reused = connection.reused;
            match connection.send(request).await {
                // A server may close an idle connection at any moment; the request then goes out on the next one.
                Err(Failed {
                    request: Some(unsent),
                    ..
                }) if reused => request = *unsent,
                result => return result,
            }
        }
    }

    /// An idle connection, or a new one.
    ///
    /// # Errors
    /// When no connection can be made.
    pub async fn ready(&self) -> Result<Connection, Error> {
        let (sender, reused) = match self.pool.take() {
            Some(sender) => (sender, true),
            None => (self.open().await?, false),
        };
        Ok(Connection {
            sender,
            reused,
            pool: Arc::downgrade(&self.pool),
        })
    }

    async fn open(&self) -> Result<SendRequest<Body>, Error> {
        let io = self.connect.connect().await?;
        let (sender, connection) = ClientBuilder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|e| Error::new(Cause::ConnectError, chain(&e)).unsent())?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(error = %chain(&error), "HTTP/1 client connection ended");
            }
        });
        Ok(sender)
    }
}

/// A connection for one request.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Body>,
    reused: bool,
    pool: Weak<Pool>,
}

impl Connection {
    /// Whether it carried other requests, so that its server may just have closed it.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request and waits for the response's head.
    ///
    /// # Errors
    /// With the request in it as long as nothing of it was sent.
    pub async fn send(self, mut request: Request) -> Result<Response, Failed> {
        let Self { mut sender, pool, .. } = self;
        let upgrade = is_tunnel(&request).then(|| hyper::upgrade::on(&mut request));
        let mut response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut failed) => return Err(failed_from(failed.take_message(), failed.error())),
        };
        if let Some(client) = upgrade
            && switches(&response)
        {
            let server = hyper::upgrade::on(&mut response);
            tokio::spawn(tunnel(client, server));
            return Ok(response.map(|body| Body::http1(body, Side::Server)));
        }
        let lease = Lease {
            sender: Some(sender),
            pool,
        };
        Ok(response.map(|body| Body::http1(body, Side::Server).observe(lease)))
    }
}

/// Whether the request, once granted, turns its connection into a tunnel.
fn is_tunnel(request: &Request) -> bool {
    request.method() == http::Method::CONNECT || request.headers().contains_key(http::header::UPGRADE)
}

fn switches(response: &http::Response<hyper::body::Incoming>) -> bool {
    response.status() == http::StatusCode::SWITCHING_PROTOCOLS || response.status().is_success()
}

async fn tunnel(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    let (client, server) = match tokio::try_join!(client, server) {
        Ok(both) => both,
        Err(error) => {
            debug!(error = %chain(&error), "upgrade did not complete");
            return;
        }
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    if let Err(error) = tunnel::copy_duplex(&mut client, &mut server).await {
        debug!(%error, "upgraded connection ended");
    }
}

fn failed_from(unsent: Option<Request>, error: &hyper::Error) -> Failed {
    let cause = if error.is_parse() {
        Cause::UpstreamProtocol
    } else if is_from_body(error) {
        Cause::DownstreamClosed
    } else {
        Cause::UpstreamClosed
    };
    let error = Error::new(cause, chain(error));
    match unsent {
        Some(request) => Failed::unsent(error, request),
        None => Failed::new(error),
    }
}

/// Whether sending failed because the request's own body did.
fn is_from_body(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|e| e.downcast_ref::<Error>().is_some())
}

impl Pool {
    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        idle.retain(|i| !i.sender.is_closed() && i.since.elapsed() < self.params.idle_timeout);
        // A connection whose server is still reading the last request is left where it is.
        let ready = idle.iter().rposition(|i| i.sender.is_ready())?;
        Some(idle.remove(ready).sender)
    }

    fn put(self: &Arc<Self>, sender: SendRequest<Body>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() >= self.params.max_idle {
            return;
        }
        let was_empty = idle.is_empty();
        idle.push(Idle {
            sender,
            since: Instant::now(),
        });
        drop(idle);
        if was_empty {
            tokio::spawn(expire(Arc::downgrade(self), self.params.idle_timeout));
        }
    }
}

/// Closes idle connections when their time is over; ends when none is left.
async fn expire(pool: Weak<Pool>, idle_timeout: Duration) {
    loop {
        tokio::time::sleep(idle_timeout).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle.lock();
        idle.retain(|i| !i.sender.is_closed() && i.since.elapsed() < idle_timeout);
        if idle.is_empty() {
            return;
        }
    }
}

impl Observe for Lease {
    fn end(&mut self, end: End<'_>) {
        if let (End::Complete(_), Some(sender), Some(pool)) = (end, self.sender.take(), self.pool.upgrade()) {
            pool.put(sender);
        }
    }
}

/// Readies a request for the wire of an HTTP/1 hop.
pub fn prepare(request: &mut Request) -> bool {
    let (mut parts, body) = std::mem::take(request).into_parts();
    let upgrade = headers::is_upgrade(&parts);
    headers::strip_hop_by_hop(&mut parts.headers, upgrade);
    *request = Request::from_parts(parts, body);
    upgrade
}

const MAX_HEAD: usize = 64 * 1024;
/// hyper refuses a smaller buffer.
const MIN_BUFFER: usize = 8 * 1024;
