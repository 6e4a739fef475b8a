//! Keeping a stream of the control plane open.

use crate::{StreamLimits, cache::Link, channel::ChannelError};
use linkerd_policy::client::Backoff;
use std::{error::Error, future::Future, ops::ControlFlow, time::Duration};
use tokio::time::{self, Instant};
use tonic::{Code, Status, Streaming};

/// How a stream ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The server refused it or failed, or could not be reached.
    Failed(Status),
    Closed,
    /// It was opened, and then nothing came for as long as a first message may take.
    Silent,
    /// It was open for as long as it may be, or silent for as long as it may be after a first message.
    Expired,
}

/// What a stream delivers to.
pub(crate) trait Subscriber<M>: Send {
    /// A new stream is open; nothing has come yet.
    fn opened(&mut self) {}

    fn message(&mut self, message: M);

    /// `Break` ends the subscription for good; a pause replaces the ordinary one before the next attempt.
    fn ended(&mut self, end: &End) -> ControlFlow<(), Option<Duration>>;
}

/// Opens the stream again and again.
pub(crate) async fn subscribe<M, F>(
    name: &str,
    limits: StreamLimits,
    backoff: Backoff,
    mut open: impl FnMut() -> F + Send,
    link: &Link,
    subscriber: &mut impl Subscriber<M>,
) where
    F: Future<Output = Result<Streaming<M>, Status>> + Send,
{
    let mut failures = 0;
    loop {
        let (end, received) = once(spread(limits), open(), link, subscriber).await;
        match &end {
            End::Failed(status) if is_answer(status) => link.up(),
            End::Expired => {}
            _ => link.down(),
        }
        failures = if received { 1 } else { failures + 1 };
        report(name, &end, failures);
        let ControlFlow::Continue(pause) = subscriber.ended(&end) else {
            return;
        };
        if matches!(end, End::Expired) {
            continue;
        }
        time::sleep(pause.unwrap_or_else(|| backoff.pause(failures - 1, rand::random()))).await;
    }
}

/// One failure is an event; the same one again and again is noise.
fn report(name: &str, end: &End, failures: u32) {
    match end {
        End::Failed(status) if is_answer(status) => {
            tracing::debug!(%name, message = status.message(), "refused");
        }
        End::Failed(status) if failures.is_power_of_two() && !is_of_channel(status) => {
            tracing::warn!(%name, code = ?status.code(), error = status.message(), "control plane stream failed");
        }
        end => tracing::debug!(%name, ?end, "control plane stream ended"),
    }
}

/// Whether the service could not be reached, which the channel has told already.
fn is_of_channel(status: &Status) -> bool {
    status.source().is_some_and(<dyn Error>::is::<ChannelError>)
}

/// Codes by which the server answers about the subject of a stream, as opposed to failing.
fn is_answer(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::NotFound | Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented
    )
}

async fn once<M>(
    limits: StreamLimits,
    open: impl Future<Output = Result<Streaming<M>, Status>>,
    link: &Link,
    subscriber: &mut impl Subscriber<M>,
) -> (End, bool) {
    let born = Instant::now();
    let mut stream = match within(limits.initial, open).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(status)) => return (End::Failed(status), false),
        Err(_) => return (End::Failed(Status::deadline_exceeded("no answer")), false),
    };
    subscriber.opened();
    let mut received = false;
    loop {
        let silence = if received { limits.idle } else { limits.initial };
        let left = limits
            .lifetime
            .map(|lifetime| lifetime.saturating_sub(born.elapsed()));
        let wait = silence.into_iter().chain(left).min();
        match within(wait, stream.message()).await {
            Ok(Ok(Some(message))) => {
                link.up();
                subscriber.message(message);
            }
            Ok(Ok(None)) => return (End::Closed, received),
            Ok(Err(status)) => return (End::Failed(status), received),
            Err(_) => return (if received { End::Expired } else { End::Silent }, received),
        }
        received = true;
    }
}

/// Streams that were opened together, as all are when a control plane starts, must not all be opened again together.
fn spread(limits: StreamLimits) -> StreamLimits {
    StreamLimits {
        lifetime: limits
            .lifetime
            .map(|lifetime| lifetime.mul_f32(1.0 - rand::random::<f32>() / 10.0)),
        ..limits
    }
}

async fn within<T>(
    limit: Option<Duration>,
    future: impl Future<Output = T>,
) -> Result<T, time::error::Elapsed> {
    match limit {
        Some(limit) => time::timeout(limit, future).await,
        None => Ok(future.await),
    }
}
