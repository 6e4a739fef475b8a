//! Serves HTTP/1 connections: one task each, and while a connection is idle hardly more than its socket.

use super::{
    Framing, LIMITS, ServerParams,
    client::switches,
    conn::{Conn, Fault, Settled, Stream},
    encode::{self, Persistence},
    outgoing::{Out, Sending, Stopped},
    parse::{Asked, Limits, Refused, RequestHead},
    upgrade::{Duplex, Upgrade},
};
use crate::{Handler, Request, Response, headers, tunnel};
use http::{HeaderMap, StatusCode, Version, header};
use linkerd_stack::{Cause, Error, drain};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep, timeout},
};
use tracing::debug;

/// Serves one connection until it ends or is drained. What it becomes by an upgrade is served as well.
///
/// # Errors
/// Why it ended early, for the log: clients that go away are not worth more.
pub async fn serve<I, H>(
    io: I,
    handler: Arc<H>,
    params: &ServerParams,
    drain: drain::Watch,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let conn = Conn::server(io);
    let mut signal = drain.clone();
    let mut signaled = pin!(signal.signaled());
    let mut draining = false;
    loop {
        let mut late = None;
        let next = poll_fn(|cx| {
            draining = draining || signaled.as_mut().poll(cx).is_ready();
            poll_next(cx, &conn, params, draining, &mut late)
        });
        // What is done with a request is in the heap, so that the task of an idle connection stays small.
        match next.await {
            Ok(Some(head)) => {
                if !Box::pin(exchange(&conn, &*handler, head, &drain)).await? {
                    return Ok(());
                }
            }
            Ok(None) => {
                close(&conn, false).await;
                return Ok(());
            }
            Err(Fault::Refused(refused)) => return Box::pin(refuse(&conn, &*handler, &refused)).await,
            Err(fault) => return Err(fault.of_client()),
        }
    }
}

/// Waits for a request's head: for ever until it begins, unless the proxy drains, then not for long.
fn poll_next<I>(
    cx: &mut Context<'_>,
    conn: &Conn<I>,
    params: &ServerParams,
    draining: bool,
    late: &mut Option<Pin<Box<Sleep>>>,
) -> Poll<Result<Option<Box<RequestHead>>, Fault>>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limits = Limits {
        bytes: params.max_head_bytes,
        ..LIMITS
    };
    if let Poll::Ready(next) = conn.poll_request(cx, limits) {
        return Poll::Ready(next);
    }
    if !conn.has_unread() {
        *late = None;
        return if draining {
            Poll::Ready(Ok(None))
        } else {
            Poll::Pending
        };
    }
    let late = late.get_or_insert_with(|| Box::pin(sleep(params.head_timeout)));
    match late.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Err(Refused::LATE.into())),
        Poll::Pending => Poll::Pending,
    }
}

/// Serves one request. `false`: the connection has ended with it.
async fn exchange<I, H>(
    conn: &Arc<Conn<I>>,
    handler: &H,
    head: Box<RequestHead>,
    drain: &drain::Watch,
) -> Result<bool, Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let RequestHead {
        parts,
        framing,
        keep_alive,
        expects_continue,
    } = *head;
    let (asked, version) = (Asked::by(&parts.method), parts.version);
    let upgrade = (framing == Framing::None && headers::is_upgrade(&parts)).then(Upgrade::default);
    let body = conn.request_body(framing, expects_continue);
    let mut request = Request::from_parts(parts, body);
    if let Some(upgrade) = &upgrade {
        request.extensions_mut().insert(upgrade.clone());
    }
    let mut client = Client::default();
    let response = {
        let mut handled = pin!(handler.handle(request));
        poll_fn(|cx| match handled.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(response),
            Poll::Pending => client.poll_gone(cx, conn, 0).map(Err),
        })
        .await?
    };
    let switched = match (switches(response.status(), asked), &upgrade) {
        (false, _) => None,
        (true, Some(upgrade)) => Some(upgrade.take().ok_or_else(not_switched)?),
        (true, None) => return Err(not_switched()),
    };
    // Bytes after an upgrade that was not granted may be anything.
    let last = !keep_alive
        || drain.is_draining()
        || conn.leaves_more_than(MAX_SKIPPED)
        || (upgrade.is_some() && conn.has_unread());
    let respond = Respond {
        asked,
        version,
        last,
        switched: switched.is_some(),
    };
    let (persistent, kept) = respond.send(conn, response, &mut client).await?;
    if let Some(server) = switched {
        let result = tunnel(conn, server, drain.clone()).await;
        drop(kept);
        return result.map(|()| false);
    }
    if persistent && next_follows(conn).await {
        return Ok(true);
    }
    close(conn, true).await;
    Ok(false)
}

fn not_switched() -> Error {
    Error::new(
        Cause::Internal,
        "a response switches protocols without a connection",
    )
}

/// How a response is sent.
struct Respond {
    asked: Asked,
    version: Version,
    /// No other can follow it.
    last: bool,
    switched: bool,
}

impl Respond {
    /// Returns whether the client may send its next request, and what must live as long as a tunnel.
    async fn send<I>(
        self,
        conn: &Arc<Conn<I>>,
        response: Response,
        client: &mut Client,
    ) -> Result<(bool, http::Extensions), Error>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (parts, body) = response.into_parts();
        let framing = encode::response_framing(&parts, &body, self.asked, self.version)?;
        let mut out = Out::new();
        let still_waits = conn.end_interim(&mut out);
        let persistent =
            !self.last && !still_waits && framing != Framing::UntilClose && !says_close(&parts.headers);
        let persistence = match (self.switched, persistent, self.version) {
            (true, ..) => Persistence::Tunnel,
            (false, false, _) => Persistence::Close,
            (false, true, Version::HTTP_10) => Persistence::KeepAlive,
            (false, true, _) => Persistence::Silent,
        };
        encode::response_head(out.buf(), &parts, self.version, framing, self.asked, persistence);
        let mut sending = Sending::new(out, body, framing);
        poll_fn(|cx| match sending.poll(cx, conn) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(Stopped::Body(error))) => Poll::Ready(Err(error)),
            Poll::Ready(Err(Stopped::Peer(error))) => {
                Poll::Ready(Err(Error::new(Cause::DownstreamClosed, error.to_string())))
            }
            Poll::Pending => client.poll_gone(cx, conn, sending.sent()).map(Err),
        })
        .await?;
        Ok((persistent, parts.extensions))
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONNECTION)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Waits until nobody reads the request any more. `false`: where it ends is not known.
async fn next_follows<I>(conn: &Conn<I>) -> bool
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match poll_fn(|cx| conn.poll_settled(cx)).await {
        Settled::Read => true,
        Settled::Left => {
            let mut left = MAX_SKIPPED;
            let skipped = timeout(SKIP_TIME, poll_fn(|cx| conn.poll_skip(cx, &mut left)));
            skipped.await.unwrap_or(false)
        }
    }
}

/// Carries bytes both ways, for as long as the proxy is there.
async fn tunnel<I>(
    conn: &Arc<Conn<I>>,
    mut server: Box<dyn Duplex>,
    mut drain: drain::Watch,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut client = Stream(conn.clone());
    tokio::select! {
        copied = tunnel::copy_duplex(&mut client, &mut server) => match copied {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::new(Cause::DownstreamClosed, error.to_string())),
        },
        () = drain.over() => Err(Error::new(Cause::ShuttingDown, "the grace period is over")),
    }
}

/// Answers what cannot be read as a request. After it nothing can, so the connection ends.
async fn refuse<I, H>(conn: &Arc<Conn<I>>, handler: &H, refused: &Refused) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Handler,
{
    let error = refused.of_request();
    debug!(%error, "request refused");
    let response = handler.reject(&error, refused.status);
    let respond = Respond {
        asked: Asked::default(),
        version: Version::HTTP_11,
        last: true,
        switched: false,
    };
    let mut client = Client::default();
    let answered = respond.send(conn, response, &mut client);
    if timeout(SKIP_TIME, answered).await.is_ok_and(|sent| sent.is_ok()) {
        close(conn, true).await;
    }
    Err(error)
}

/// Ends a connection so that its client can read all that was sent: a socket that is closed with unread bytes resets,
/// and the reset overtakes the response (RFC 9112 §9.6).
async fn close<I>(conn: &Conn<I>, linger: bool)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut left = MAX_DRAINED;
    let closed = timeout(LINGER, async {
        let shut = poll_fn(|cx| conn.poll_shutdown(cx)).await;
        if linger && shut.is_ok() {
            poll_fn(|cx| conn.poll_drained(cx, &mut left)).await;
        }
    });
    // Late or not, it is closed now.
    let _ = closed.await;
}

/// Watches a client that waits for its response.
///
/// The end of what it sends may be all of its end, or it may still read. Only writing to it tells, so it is given a
/// little time in which something can be written.
#[derive(Default)]
struct Client {
    ended: Option<Pin<Box<Sleep>>>,
    sent: u64,
}

impl Client {
    fn poll_gone<I>(&mut self, cx: &mut Context<'_>, conn: &Conn<I>, sent: u64) -> Poll<Error>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some(ended) = &mut self.ended else {
            match conn.poll_closed(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Error::new(Cause::DownstreamClosed, error.to_string()));
                }
                Poll::Ready(Ok(())) => {}
            }
            self.sent = sent;
            let mut ended = Box::pin(sleep(HALF_CLOSED));
            let gone = ended.as_mut().poll(cx).map(|()| client_closed());
            self.ended = Some(ended);
            return gone;
        };
        if self.sent != sent {
            self.sent = sent;
            ended.as_mut().reset(Instant::now() + HALF_CLOSED);
        }
        ended.as_mut().poll(cx).map(|()| client_closed())
    }
}

fn client_closed() -> Error {
    Error::new(Cause::DownstreamClosed, "client closed its connection")
}

impl Refused {
    const LATE: Self = Self {
        status: StatusCode::REQUEST_TIMEOUT,
        reason: "request head was not complete in time",
    };
}

/// The longest rest of an unwanted body that is read for the sake of the connection.
const MAX_SKIPPED: usize = 64 * 1024;
const SKIP_TIME: Duration = Duration::from_secs(5);
/// How long a closed connection is read on.
const LINGER: Duration = Duration::from_secs(1);
const MAX_DRAINED: usize = 1024 * 1024;
/// How long a request is worked on whose client has closed its side, without anything being written to it.
const HALF_CLOSED: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
