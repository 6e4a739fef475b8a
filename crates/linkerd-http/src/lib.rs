//! HTTP: detection, servers, clients, retries, timeouts.
//!
//! HTTP/1 is our own ([`h1`]); HTTP/2 is the `h2` crate, driven directly. A request is one future from its head to its
//! response's head, and a [`Body`] carries what must be known at its end ([`Observe`]).

mod body;
pub mod classify;
pub mod detect;
pub mod h1;
pub mod h2;
pub mod headers;
mod io;
mod record;
mod replay;
mod stream;
mod tunnel;

pub use self::{
    body::{Body, BodySender, End, Observe, ReaderGone},
    io::Counted,
    record::{Classes, Record},
    replay::Replay,
    stream::StreamRecord,
    tunnel::{Transferred, copy_duplex},
};

use http::{StatusCode, Version};
use linkerd_stack::{Client, Error, Informational, Synthetic};
use std::future::Future;
use tokio::io::{AsyncRead, AsyncWrite};

pub type Request = http::Request<Body>;
pub type Response = http::Response<Body>;

/// What a server does with a request.
pub trait Handler: Send + Sync + 'static {
    /// An error ends the stream without a response: it is reset (HTTP/2) or its connection is closed (HTTP/1).
    fn handle(&self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send;

    /// Answers with `status` what an HTTP/1 client sent and nobody can read as a request. Strangers learn no reason.
    fn reject(&self, error: &Error, status: StatusCode) -> Response {
        let client = Client {
            version: Version::HTTP_11,
            grpc: false,
            informational: Informational::Suppressed,
        };
        let answer = Synthetic::from_error(error, client, Some(status));
        answer.head.map(|()| Body::empty())
    }
}

/// Opens connections for a client.
pub trait Connect: Send + Sync + 'static {
    type Io: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn connect(&self) -> impl Future<Output = Result<Self::Io, Error>> + Send;
}

/// A request that could not be sent or was not answered.
#[derive(Debug)]
pub struct Failed {
    pub error: Error,
    /// The request, when nothing of it has left.
    pub request: Option<Box<Request>>,
}

impl Failed {
    #[must_use]
    pub fn new(error: Error) -> Self {
        Self { error, request: None }
    }

    #[must_use]
    pub fn unsent(error: Error, request: Request) -> Self {
        Self {
            error: error.unsent(),
            request: Some(Box::new(request)),
        }
    }
}
