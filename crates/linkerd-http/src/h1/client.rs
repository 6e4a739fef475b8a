//! Sends requests over HTTP/1, each on an idle or new connection.

use super::{
    LIMITS, PoolParams,
    conn::{Conn, Fault, Stream},
    encode,
    outgoing::{Out, Sending, Stopped},
    parse::{Asked, ResponseHead},
    pool::Pool,
    upgrade::{Switched, Upgrade},
};
use crate::{Body, Connect, Failed, Request, Response};
use http::{StatusCode, header, request::Parts};
use linkerd_stack::{Cause, Error};
use std::{
    fmt,
    future::{Future as _, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Sleep, sleep},
};
use tracing::debug;

/// Sends requests to one server.
pub struct Client<C: Connect> {
    connect: C,
    pool: Arc<Pool<C::Io>>,
}

impl<C: Connect> Client<C> {
    #[must_use]
    pub fn new(connect: C, params: PoolParams) -> Self {
        Self {
            connect,
            pool: Pool::new(params),
        }
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
    pub async fn ready(&self) -> Result<Connection<C::Io>, Error> {
        if let Some(conn) = self.pool.take() {
            return Ok(Connection { conn, reused: true });
        }
        let io = self.connect.connect().await?;
        let conn = Conn::client(io, Arc::downgrade(&self.pool));
        Ok(Connection { conn, reused: false })
    }
}

impl<C: Connect> fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("pool", &self.pool)
            .finish_non_exhaustive()
    }
}

/// A connection for one request.
#[derive(Debug)]
pub struct Connection<I> {
    conn: Arc<Conn<I>>,
    reused: bool,
}

impl<I: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection<I> {
    /// Whether it carried other requests, so that its server may just have closed it.
    #[must_use]
    pub const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request and waits for the response's head.
    ///
    /// # Errors
    /// With the request in it as long as nothing of it was sent.
    pub async fn send(self, request: Request) -> Result<Response, Failed> {
        let conn = self.conn;
        let (parts, body) = request.into_parts();
        let mut exchange = Exchange::new(&parts, body).map_err(Failed::new)?;
        conn.begin();
        let outcome = poll_fn(|cx| exchange.poll(cx, &conn)).await;
        let head = match outcome {
            Ok(head) => head,
            Err(Stop::Unsent(error)) => {
                let request = Request::from_parts(parts, exchange.sending.into_unsent());
                let error = Error::new(Cause::UpstreamClosed, error.to_string());
                return Err(Failed::unsent(error, request));
            }
            Err(Stop::Failed(error)) => return Err(Failed::new(error)),
        };
        if switches(head.parts.status, exchange.asked) {
            let upgrade = parts.extensions.get::<Upgrade>();
            return exchange.switch(conn, head, upgrade).map_err(Failed::new);
        }
        Ok(exchange.respond(&conn, head))
    }
}

/// Whether the response turns its connection into a tunnel.
pub(super) fn switches(status: StatusCode, asked: Asked) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (asked.connect && status.is_success())
}

/// A request whose response has not begun.
struct Exchange {
    sending: Sending,
    upload: Upload,
    asked: Asked,
    /// How long the server may take to ask for the body.
    patience: Option<Pin<Box<Sleep>>>,
    informational: u8,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Upload {
    Going,
    Complete,
    /// The server takes no more. It may still say why.
    Broken,
}

/// Why there is no response.
enum Stop {
    Unsent(io::Error),
    Failed(Error),
}

impl Exchange {
    fn new(parts: &Parts, body: Body) -> Result<Self, Error> {
        let framing = encode::request_framing(parts, &body)?;
        let mut out = Out::new();
        encode::request_head(out.buf(), parts, framing);
        let mut sending = Sending::new(out, body, framing);
        sending.keep();
        let waits = parts
            .headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        if waits {
            sending.hold();
        }
        Ok(Self {
            patience: sending.is_held().then(|| Box::pin(sleep(PATIENCE))),
            sending,
            upload: Upload::Going,
            asked: Asked::by(&parts.method),
            informational: 0,
        })
    }

    fn poll<I>(&mut self, cx: &mut Context<'_>, conn: &Conn<I>) -> Poll<Result<ResponseHead, Stop>>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        loop {
            if self.upload == Upload::Going {
                self.poll_upload(cx, conn)?;
            }
            let head = match conn.poll_response(cx, self.asked, LIMITS) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(head)) => head,
                Poll::Ready(Err(Fault::Io(error))) if self.sending.sent() == 0 => {
                    return Poll::Ready(Err(Stop::Unsent(error)));
                }
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(Stop::Failed(fault.of_server()))),
            };
            let status = head.parts.status;
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Ok(head));
            }
            // The server's end has its own word with its client: this one is not passed on.
            self.sending.release();
            self.informational += 1;
            if self.informational > MAX_INFORMATIONAL {
                let error = Error::new(Cause::UpstreamProtocol, "too many informational responses");
                return Poll::Ready(Err(Stop::Failed(error)));
            }
        }
    }

    fn poll_upload<I>(&mut self, cx: &mut Context<'_>, conn: &Conn<I>) -> Result<(), Stop>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        loop {
            match self.sending.poll(cx, conn) {
                Poll::Ready(Ok(())) => {
                    self.upload = Upload::Complete;
                    conn.request_sent(true);
                }
                Poll::Ready(Err(Stopped::Body(error))) => return Err(Stop::Failed(error)),
                Poll::Ready(Err(Stopped::Peer(error))) if self.sending.sent() == 0 => {
                    return Err(Stop::Unsent(error));
                }
                Poll::Ready(Err(Stopped::Peer(_))) => {
                    self.upload = Upload::Broken;
                    conn.request_sent(false);
                }
                Poll::Pending if self.sending.is_held() && self.is_impatient(cx) => {
                    self.sending.release();
                    continue;
                }
                Poll::Pending => {}
            }
            return Ok(());
        }
    }

    /// RFC 9110 §10.1.1: a server may not know of `100-continue`, so that nobody waits for it for ever.
    fn is_impatient(&mut self, cx: &mut Context<'_>) -> bool {
        self.patience
            .as_mut()
            .is_none_or(|patience| patience.as_mut().poll(cx).is_ready())
    }

    /// Hands the connection to the server's end, where the client asked for it.
    fn switch<I>(
        self,
        conn: Arc<Conn<I>>,
        head: ResponseHead,
        upgrade: Option<&Upgrade>,
    ) -> Result<Response, Error>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some(upgrade) = upgrade.filter(|_| self.upload == Upload::Complete) else {
            return Err(Error::new(
                Cause::UpstreamProtocol,
                "the server switches protocols unasked",
            ));
        };
        upgrade.grant(Stream(conn));
        let mut head = head;
        head.parts.extensions.insert(Switched);
        Ok(Response::from_parts(head.parts, Body::empty()))
    }

    /// The response. A request that has not left completely goes on in a task of its own.
    fn respond<I>(self, conn: &Arc<Conn<I>>, head: ResponseHead) -> Response
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let uploads = self.upload == Upload::Going && !self.sending.is_held();
        let body = conn.clone().response_body(head.framing, head.keep_alive);
        if uploads {
            let task = tokio::spawn(upload(conn.clone(), self.sending));
            conn.uploads(task.abort_handle());
        }
        Response::from_parts(head.parts, body)
    }
}

async fn upload<I>(conn: Arc<Conn<I>>, mut sending: Sending)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let result = poll_fn(|cx| sending.poll(cx, &conn)).await;
    conn.request_sent(result.is_ok());
    if let Err(error) = result {
        debug!(?error, "request body was not sent to its end");
    }
    conn.reuse();
}

/// How long a server may take to say `100 Continue`.
const PATIENCE: Duration = Duration::from_secs(1);
const MAX_INFORMATIONAL: u8 = 32;

#[cfg(test)]
mod tests;
