//! How long a request may take: as a whole, in its response, between two frames.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use linkerd_http::{Body, End, Observe, Response};
use linkerd_policy::client::Timeouts;
use linkerd_stack::{Cause, Error};
use std::{
    fmt,
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// The timeouts of one request, retries included, from its head to the last frame of its response.
#[derive(Debug)]
pub(crate) struct Clock {
    timeouts: Timeouts,
    born: Instant,
    /// Since then, in milliseconds: when a frame last passed either way.
    last_frame: AtomicU64,
    /// … and when the application had sent the whole request.
    sent: AtomicU64,
    /// Tells that the request is complete.
    complete: Notify,
}

/// What bounds one attempt.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Limits<'a> {
    pub(crate) clock: Option<&'a Arc<Clock>>,
    /// When the attempt must have got a response's head.
    pub(crate) head: Option<Deadline>,
}

#[derive(Copy, Clone, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) cause: Cause,
    /// How long that was, for people.
    pub(crate) limit: Duration,
}

impl Clock {
    /// `None` when there is nothing to watch.
    pub(crate) fn start(timeouts: Timeouts, now: Instant) -> Option<Arc<Self>> {
        if timeouts == Timeouts::default() {
            return None;
        }
        Some(Arc::new(Self {
            timeouts,
            born: now,
            last_frame: AtomicU64::new(0),
            sent: AtomicU64::new(NOT_YET),
            complete: Notify::new(),
        }))
    }

    /// Watches the request's body.
    pub(crate) fn request(self: &Arc<Self>, body: Body) -> Body {
        body.observe(Sending(self.clone()))
    }

    /// Bounds the response's body, and watches its frames.
    pub(crate) fn response(self: &Arc<Self>, response: Response) -> Response {
        if response.body().is_end_stream() {
            return response;
        }
        let clock = self.clone();
        let expired: Expired = Box::pin(async move { clock.expired().await });
        let clock = self.clone();
        response.map(|body| Body::wrapped(Timed { body, expired, clock }))
    }

    fn frame(&self) {
        self.last_frame.store(self.millis(), Relaxed);
    }

    fn complete(&self) {
        self.sent.store(self.millis(), Relaxed);
        self.complete.notify_waiters();
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(NOT_YET - 1)
    }

    /// Resolves when one of the timeouts is over.
    async fn expired(&self) -> Error {
        loop {
            let complete = self.complete.notified();
            tokio::pin!(complete);
            complete.as_mut().enable();
            match self.next() {
                Some(next) if next.at <= Instant::now() => return next.passed(),
                Some(next) => tokio::select! {
                    () = sleep_until(next.at) => {}
                    () = complete => {}
                },
                None => complete.await,
            }
        }
    }

    /// The timeout that is over first if nothing happens.
    fn next(&self) -> Option<Deadline> {
        let at = |millis: u64, limit: Duration, cause| Deadline {
            at: self.born + Duration::from_millis(millis) + limit,
            cause,
            limit,
        };
        let Timeouts {
            request,
            response,
            idle,
        } = self.timeouts;
        let sent = self.sent.load(Relaxed);
        let all = [
            request.map(|limit| at(0, limit, Cause::RequestTimeout)),
            response
                .filter(|_| sent != NOT_YET)
                .map(|limit| at(sent, limit, Cause::ResponseTimeout)),
            idle.map(|limit| at(self.last_frame.load(Relaxed), limit, Cause::IdleTimeout)),
        ];
        all.into_iter().flatten().min_by_key(|d| d.at)
    }
}

impl Limits<'_> {
    /// Waits no longer than may be; `what` is being waited for.
    pub(crate) async fn within<T>(
        &self,
        what: &'static str,
        future: impl Future<Output = T>,
    ) -> Result<T, Error> {
        if self.clock.is_none() && self.head.is_none() {
            return Ok(future.await);
        }
        tokio::select! {
            biased;
            output = future => Ok(output),
            error = self.expired() => Err(error.within(what)),
        }
    }

    async fn expired(&self) -> Error {
        let clock = async {
            match self.clock {
                Some(clock) => clock.expired().await,
                None => pending().await,
            }
        };
        let head = async {
            match self.head {
                Some(head) => {
                    sleep_until(head.at).await;
                    head.passed()
                }
                None => pending().await,
            }
        };
        // What ends the request as a whole comes first: there is no use in another attempt then.
        tokio::select! {
            biased;
            error = clock => error.for_good(),
            error = head => error,
        }
    }

    /// Whether there is time left after a pause.
    pub(crate) fn outlast(&self, pause: Duration) -> bool {
        let until = self.clock.and_then(|clock| clock.next()).map(|next| next.at);
        until.is_none_or(|until| Instant::now() + pause < until)
    }
}

impl Deadline {
    pub(crate) fn after(limit: Duration, since: Instant, cause: Cause) -> Self {
        Self {
            at: since + limit,
            cause,
            limit,
        }
    }

    fn passed(&self) -> Error {
        let limit = self.limit;
        let detail = match self.cause {
            Cause::IdleTimeout => format!("nothing was sent either way for {limit:?}"),
            Cause::ResponseTimeout => format!("HTTP response timeout after {limit:?}"),
            _ => format!("HTTP request timeout after {limit:?}"),
        };
        Error::new(self.cause, detail)
    }
}

struct Sending(Arc<Clock>);

impl Observe for Sending {
    fn data(&mut self, _bytes: usize) {
        self.0.frame();
    }

    fn end(&mut self, _end: End<'_>) {
        self.0.complete();
    }
}

type Expired = Pin<Box<dyn Future<Output = Error> + Send>>;

/// A response's body that breaks off when the time is over.
struct Timed {
    body: Body,
    expired: Expired,
    clock: Arc<Clock>,
}

impl http_body::Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.clock.frame();
            return Poll::Ready(frame);
        }
        match this.expired.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(error) => {
                // Lets go of the server's stream at once.
                this.body = Body::empty();
                this.expired = Box::pin(pending());
                Poll::Ready(Some(Err(error.within("response"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Frames that were looked at, and what follows them.
pub(crate) struct Peeked {
    frames: std::collections::VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl Peeked {
    /// Reads a gRPC response until its status is known: at most one message, and what is there already after it.
    ///
    /// # Errors
    /// The body's own.
    pub(crate) async fn read(mut body: Body) -> Result<Self, Error> {
        let mut frames = std::collections::VecDeque::with_capacity(2);
        if let Some(first) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let first = first?;
            let more = first.is_data();
            frames.push_back(first);
            if more {
                let second = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
                if let Poll::Ready(Some(second)) = second {
                    frames.push_back(second?);
                }
            }
        }
        Ok(Self { frames, rest: body })
    }

    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.frames.back()?.trailers_ref()
    }

    /// As if nobody had looked.
    pub(crate) fn into_body(self) -> Body {
        if self.frames.is_empty() {
            return self.rest;
        }
        Body::wrapped(self)
    }
}

impl http_body::Body for Peeked {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match this.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut this.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }
}

impl fmt::Debug for Peeked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peeked")
            .field("frames", &self.frames.len())
            .finish_non_exhaustive()
    }
}

const NOT_YET: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    const MS: Duration = Duration::from_millis(1);

    fn timeouts(request: u32, response: u32, idle: u32) -> Timeouts {
        let limit = |n: u32| (n > 0).then(|| n * MS);
        Timeouts {
            request: limit(request),
            response: limit(response),
            idle: limit(idle),
        }
    }

    async fn expiry(clock: &Arc<Clock>) -> (Cause, Duration) {
        let start = Instant::now();
        let limits = Limits {
            clock: Some(clock),
            head: None,
        };
        let error = limits.within("test", pending::<()>()).await.unwrap_err();
        (error.cause(), start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_request_is_bounded() {
        let clock = Clock::start(timeouts(100, 0, 0), Instant::now()).unwrap();
        assert_eq!(expiry(&clock).await, (Cause::RequestTimeout, 100 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn the_response_is_bounded_from_the_end_of_the_request() {
        let clock = Clock::start(timeouts(1_000, 100, 0), Instant::now()).unwrap();
        let (sender, body) = Body::channel(1);
        let mut body = clock.request(body);
        let client = async move {
            tokio::time::sleep(300 * MS).await;
            drop(sender);
            assert!(body.frame().await.is_none());
        };
        let ((), expired) = tokio::join!(client, expiry(&clock));
        assert_eq!(expired, (Cause::ResponseTimeout, 400 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_either_way_keep_a_stream_from_being_idle() {
        let clock = Clock::start(timeouts(0, 0, 100), Instant::now()).unwrap();
        let (sender, request) = Body::channel(1);
        let (answer, response) = Body::channel(1);
        let mut request = clock.request(request);
        let mut response = clock.response(Response::new(response)).into_body();
        let traffic = async {
            for _ in 0..3 {
                tokio::time::sleep(80 * MS).await;
                sender.data("x".into()).await.unwrap();
                request.frame().await.unwrap().unwrap();
                tokio::time::sleep(80 * MS).await;
                answer.data("y".into()).await.unwrap();
            }
        };
        let start = Instant::now();
        let reading = async {
            for _ in 0..3 {
                response.frame().await.unwrap().unwrap();
            }
            response.frame().await.unwrap().unwrap_err()
        };
        let ((), error) = tokio::join!(traffic, reading);
        assert_eq!(error.cause(), Cause::IdleTimeout);
        assert_eq!(start.elapsed(), 580 * MS);
        assert!(
            answer.data("late".into()).await.is_err(),
            "the server's stream is let go"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_has_a_limit_of_its_own() {
        let start = Instant::now();
        let limits = Limits {
            clock: None,
            head: Some(Deadline::after(50 * MS, start, Cause::ResponseTimeout)),
        };
        let error = limits.within("test", pending::<()>()).await.unwrap_err();
        assert_eq!(
            (error.cause(), start.elapsed()),
            (Cause::ResponseTimeout, 50 * MS)
        );
        assert_eq!(error.detail(), "test: HTTP response timeout after 50ms");
    }

    #[tokio::test]
    async fn a_peeked_body_is_whole() {
        let (sender, body) = Body::channel(4);
        sender.data("a".into()).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "14".parse().unwrap());
        sender.trailers(trailers.clone()).await.unwrap();
        let peeked = Peeked::read(body).await.unwrap();
        assert_eq!(peeked.trailers(), Some(&trailers));
        let whole = peeked.into_body().collect().await.unwrap();
        assert_eq!(whole.trailers(), Some(&trailers));
        assert_eq!(whole.to_bytes(), "a");
    }

    #[tokio::test]
    async fn a_long_answer_is_not_waited_for() {
        let (sender, body) = Body::channel(4);
        sender.data("a".into()).await.unwrap();
        let peeked = Peeked::read(body).await.unwrap();
        assert!(peeked.trailers().is_none());
        drop(sender);
        assert_eq!(peeked.into_body().collect().await.unwrap().to_bytes(), "a");
    }
}
